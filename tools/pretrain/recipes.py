"""What was tried: every recipe differs from another in few places, so that a table of them says what helps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import fields

ALL = tuple(fields.FAMILIES)


@dataclass(frozen=True)
class Recipe:
    """One way to train.

    Attributes:
        network: timm's name, of the ResNet family.
        families: kinds of field that surfaces are made of.
        surfaces: number of classes.
        leaves: shapes over the ground in each scene; 0 for one surface alone.
        whole: weight of telling the scene's ground from the mean of layer 3.
        dense: weight of telling the surface at each cell of layer 2 and layer 3.
        defect: weight of telling the kind of defect at each cell.
        defective: share of the scenes that get a defect.
        contrast: weight of finding a cell again in a second photograph of the scene (InfoNCE).
        alike: weight of telling cells of one surface from those of others in the batch (supervised contrast).
        changed: weight of telling a cell from itself with a defect, which only the second photograph then has.
        turn: the second photograph is turned by up to so many radians, scaled by up to half as much.
        mono_scenes, mono_photographs: shares without colour; of the scenes, so that colour tells a change, or of the
            photographs, so that colour is no mark of a cell.
        side: pixels of a scene's side.
        batch: photographs a step.
        rate: peak learning rate of AdamW.
    """

    network: str = "resnet18"
    families: tuple[str, ...] = ALL
    surfaces: int = 4096
    leaves: int = 4
    whole: float = 0.0
    dense: float = 0.0
    defect: float = 0.0
    defective: float = 0.0
    contrast: float = 0.0
    alike: float = 0.0
    changed: float = 0.0
    turn: float = 0.0
    mono_scenes: float = 0.0
    mono_photographs: float = 0.3
    side: int = 96
    batch: int = 32
    rate: float = 2e-3

    @property
    def views(self) -> int:
        """Photographs of each scene."""
        return 2 if self.contrast else 1


_CONTRAST = Recipe(contrast=1.0)
_CHANGED = replace(_CONTRAST, changed=0.5, defective=0.5, turn=0.035)
_COLOURED = replace(_CHANGED, mono_scenes=0.3, mono_photographs=0.0)

RECIPES: dict[str, Recipe] = {
    "sines": Recipe(families=("sines",), surfaces=1000, leaves=1, whole=1.0),
    "whole": Recipe(leaves=1, whole=1.0),
    "dense": Recipe(dense=1.0),
    "contrast": _CONTRAST,
    "defects": replace(_CONTRAST, defect=1.0, defective=0.5),
    "alike": replace(_CONTRAST, alike=1.0),
    "changed": _CHANGED,
    "coloured": _COLOURED,
    "turned": replace(_COLOURED, turn=0.45),
}
