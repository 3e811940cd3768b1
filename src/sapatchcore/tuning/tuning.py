"""What `tune` compared, and what it chose: kept with the detector and in its model file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors

from sapatchcore.defects.made import GROUPS
from sapatchcore.settings import settings_from
from sapatchcore.tuning.judge import Candidate
from sapatchcore.tuning.made_images import Shown

TUNING = "tuning"  # in the model file's header
FEW = 60  # good images, below which more of them would tell candidates apart better
SHOWN = ("metric", "image_score", "global_part", "attention", "coreset_ratio")  # where they are not the preset's


@dataclass(frozen=True)
class Tuning:
    """What was compared, and what was chosen.

    candidates: in the order in which they were judged. chosen: the number of the one that was taken. images: good images that
    they were judged on, of ``of``. seconds: that the comparison took. budget_ms: milliseconds an image that were allowed.
    stopped: why candidates are missing, or "". examples: some of the made defects, at full size; not in the model file.
    """

    candidates: tuple[Candidate, ...]
    chosen: int
    images: int
    of: int
    seconds: float
    budget_ms: float | None
    stopped: str
    examples: tuple[Shown, ...] = field(default=(), compare=False)

    @property
    def best(self) -> Candidate:
        """The candidate that was taken."""
        return self.candidates[self.chosen]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, for the model file and for reports."""
        return {
            "candidates": [one.to_dict() for one in self.candidates],
            "chosen": self.chosen,
            "images": self.images,
            "of": self.of,
            "seconds": round(self.seconds, 1),
            "budget_ms": self.budget_ms,
            "stopped": self.stopped,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Tuning:
        """What ``to_dict`` gave. Raises KeyError or TypeError where it cannot be that."""
        candidates = tuple(
            Candidate(**{name: value for name, value in one.items() if name != "quality"})
            for one in values["candidates"]
        )
        return cls(**{**values, "candidates": candidates})

    def paragraph(self) -> str:
        """What it says and what it does not promise, in sentences."""
        best = self.best
        groups = ", ".join(f"{group} {area:.3f}" for group, area in best.groups.items())
        said = [
            f"Settings were chosen among {len(self.candidates)} candidates by defects made on {self.images} of {self.of} good "
            f"images, none of them learned from: image AUROC {groups} (± {best.error:.3f}); {best.found:.0%} of them found at a "
            f"promised {best.rate:.1%}, at which {best.rejected:.1%} of the good images were rejected.",
        ]
        if missing := [group for group in GROUPS if group not in best.groups]:
            said.append(f"The images allow no made defects of this group: {', '.join(missing)}.")
        if self.images < FEW:
            said.append(
                f"{self.images} good images tell candidates apart only where they differ by some {2 * best.error:.2f}; "
                f"{FEW} and more would say it better."
            )
        if self.stopped:
            said.append(self.stopped)
        said.append(
            "Made defects rank settings for these parts; they are no measure of how many real defects will be found."
        )
        return " ".join(said)

    def rows(self) -> list[tuple[str, ...]]:
        """A table as text, its header first; the chosen one is marked."""
        groups = [group for group in GROUPS if group in self.best.groups]
        head = ("candidate", *groups, "found", "good rejected", "ms an image", "")
        return [
            head,
            *(
                (
                    called(one.options),
                    *(f"{one.groups[group]:.3f}" for group in groups),
                    f"{one.found:.0%}",
                    f"{one.rejected:.1%}",
                    f"{one.milliseconds:.0f}",
                    "chosen" if number == self.chosen else "",
                )
                for number, one in enumerate(self.candidates)
            ),
        ]


def called(options: Mapping[str, Any]) -> str:
    """A candidate in a few words: its network and size, and what it has otherwise than the preset."""
    usual = settings_from(options)
    plain = settings_from({"preset": "recommended", "backbone": options["backbone"]})
    height, width = usual.resize
    size = str(height) if height == width else f"{height}x{width}"
    rest = [f"{name} {getattr(usual, name)}" for name in SHOWN if getattr(usual, name) != getattr(plain, name)]
    return ", ".join([f"{usual.backbone} {size}", *rest])


def tuning_in(path: Path) -> Tuning | None:
    """What a model file that was read and checked says of it; None where its settings were given."""
    with safetensors.safe_open(path, framework="numpy") as file:
        header = json.loads((file.metadata() or {}).get("sapatchcore", "{}"))
    return Tuning.from_dict(header[TUNING]) if TUNING in header else None
