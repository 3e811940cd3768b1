"""Does the file give the detector's own scores? Both on the same images, number by number, verdict by verdict.

Two computers, or one with another number of threads, give scores that differ in the seventh digit: float32 sums depend on
their order. So an image whose score *is* a calibration score, to five digits, may fall on either side of it: there both
answers count as the same, and how many such images there were is said. Everything else has to agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sapatchcore.data.images import all_images, read_thumbnail
from sapatchcore.data.pixels import UInt8Array, prepare
from sapatchcore.data.sources import Batch, Progress, read_image
from sapatchcore.embed.patches import Embedder, Patches
from sapatchcore.errors import ModelFileError
from sapatchcore.export.metadata import GRIDS, SCORES
from sapatchcore.export.sessions import Arrays, Session
from sapatchcore.memory.bank import Bank
from sapatchcore.result import Result, gather_result
from sapatchcore.score.anomaly_score import score_patches
from sapatchcore.score.calibration import Calibration
from sapatchcore.score.threshold import p_values, possible_rate, threshold
from sapatchcore.score.verdict import KindClassifier

TOLERANCE = 1e-3  # of scores, parts, and maps
ROUNDING = 1e-5  # how near a calibration score a score may lie so that either side of it is right
THUMBNAILS = 16  # of the training images at most, evenly spread
# Sizes of made images, (h, w): odd ones, tall and wide, smaller and larger than any network's input.
_SIZES = ((1, 1), (37, 211), (480, 640), (641, 479), (1201, 33), (1199, 1601))
_FLOOR = 1e-2  # of the bank's spread: scores below it are compared as if they were that large


@dataclass
class Figures:
    """What the check found; its fields are the file's ``check`` entry.

    source: which images. different: for each output the largest relative difference. median_score: the median one of the
    scores. other_neighbours: patches whose nearest row is another one. verdicts: images whose verdicts were compared, at
    false_reject; other_verdicts: those accepted by one and rejected by the other; other_kinds: rejected by both, but as
    another kind. on_the_line: images whose score is a calibration score, to five digits.
    """

    source: str
    runtime: str
    images: int = 0
    tolerance: float = TOLERANCE
    different: dict[str, float] = field(default_factory=dict)
    median_score: float = 0.0
    other_neighbours: int = 0
    false_reject: float | None = None
    verdicts: int = 0
    other_verdicts: int = 0
    other_kinds: int = 0
    on_the_line: int = 0


class Check:
    """A detector in float32 on the CPU, and what a file's outputs are held against."""

    def __init__(self, embedder: Embedder, bank: Bank, known: Calibration | None, of_file: Calibration | None) -> None:
        """known: what the detector's verdicts are measured against; of_file: what the file's are."""
        self._embedder, self._bank, self._known, self._of_file = embedder, bank, known, of_file
        spread = float((bank.rows - bank.rows.mean(0)).square().sum(1).mean().sqrt())
        self._floor = max(_FLOOR * spread, 1e-12)
        self._rate = None if known is None else possible_rate(len(known))

    def compare(
        self,
        session: Session,
        images: Sequence[Path | UInt8Array],
        source: str,
        *,
        strict: bool,
        progress: Progress | None = None,
    ) -> Figures:
        """The figures of the file behind ``session`` on ``images``.

        strict: raise ModelFileError at the first image where a number is more than ``TOLERANCE`` away, or a verdict is another
        one; else they are only counted.
        """
        found = Figures(source, session.runtime, false_reject=self._rate)
        score_differences = []
        for place, image in enumerate(images):
            pixels = read_image(image) if isinstance(image, Path) else image
            name = str(image) if isinstance(image, Path) else f"a {pixels.shape[0]}×{pixels.shape[1]} (h×w) image"
            theirs = _run(session, pixels, name, together=place == 0)
            ours, patches = self._scored(pixels)
            differences = self._differences(ours, patches, theirs, found)
            score_differences.append(differences["score"])
            for output, value in differences.items():
                found.different[output] = max(found.different.get(output, 0.0), value)
                if strict and not value <= TOLERANCE:
                    raise ModelFileError(
                        f"The file's {output} of {name} is {value:.1g} away from the detector's own, relative; allowed is "
                        f"{TOLERANCE:g}. No file was written. Try another opset, or other versions of the runtime."
                    )
            if self._known is not None and self._of_file is not None:
                self._verdicts(ours, theirs, found)
                if strict and (found.other_verdicts or found.other_kinds):
                    raise ModelFileError(
                        f"The file's verdict on {name} is another than the detector's own. No file was written. Try another "
                        "opset, or other versions of the runtime."
                    )
            found.images = place + 1
            if progress is not None:
                progress("check", found.images, len(images))
        found.median_score = float(np.median(score_differences))
        return found

    def _scored(self, image: UInt8Array) -> tuple[Result, Patches]:
        """(h, w, 3) uint8 → its result by the detector, and its patches."""
        pixels = prepare(image, self._embedder.settings.resize, self._embedder.settings.crop)[None]
        batch = Batch(("the image",), ((image.shape[0], image.shape[1]),), pixels)
        patches = self._embedder.embed(batch)
        settings = self._embedder.settings
        scored = [(batch, score_patches(patches, self._bank, settings))]
        return gather_result(scored, settings, calibration=self._known), patches

    def _differences(self, ours: Result, patches: Patches, theirs: Arrays, found: Figures) -> dict[str, float]:
        """For each output how far theirs are from ours, over the largest of ours."""
        whole = ours.patch_scores[0]
        # A nearest row may differ among rows that are equally near: its distance may not, and the parts are that row's.
        row = torch.from_numpy(theirs["neighbours"][0]).flatten()
        found.other_neighbours += int((theirs["neighbours"][0] != ours.neighbours[0]).sum())
        squared, channels = (patches.rows()[0] - self._bank.rows[row]).square(), patches.local.shape[2]
        parts = (squared[:, :channels], squared[:, channels:], squared)
        local, context, away = (part.sum(1).sqrt().numpy().reshape(whole.shape) for part in parts)
        worst, weight = theirs["patch_scores"][0].argmax(), ours.scores[0] / max(float(whole.max()), 1e-12)
        own = (ours.scores[0], local.flat[worst] * weight, context.flat[worst] * weight, whole, local, context)
        values: dict[str, Any] = {**dict(zip((*SCORES, *GRIDS[:3]), own, strict=True)), "map": ours.maps[0]}
        # A part is small where the other is large: both are held against the whole.
        scales = {name: float(np.abs(values["score" if name in SCORES else "patch_scores"]).max()) for name in values}
        differences = {"neighbours": float(np.abs(away - whole).max()) / max(scales["patch_scores"], self._floor)}
        for name, value in values.items():
            differences[name] = float(np.abs(value - theirs[name][0]).max()) / max(scales[name], self._floor)
        if self._known is not None and self._of_file is not None:
            differences["p_value"] = self._p_difference(float(ours.scores[0]), theirs)
        return differences

    def _p_difference(self, score: float, theirs: Arrays) -> float:
        """How far their p-value is from ours, relative; 0 where ours would be theirs, were the score's sixth digit another."""
        assert self._known is not None
        low, high = p_values([score * (1 + ROUNDING), score * (1 - ROUNDING)], self._known.scores).astype(np.float32)
        p = theirs["p_value"][0]
        return float(abs(p - np.clip(p, low, high)) / low)

    def _verdicts(self, ours: Result, theirs: Arrays, found: Figures) -> None:
        """Count the verdict, and whether it is another one."""
        assert self._known is not None
        assert self._of_file is not None
        assert self._rate is not None
        score, own_limit = float(ours.scores[0]), threshold(self._known.scores, self._rate)
        near = np.abs(self._known.scores - score) <= ROUNDING * score
        found.on_the_line += bool(near.any())
        found.verdicts += 1
        rejected = float(theirs["score"][0]) > threshold(self._of_file.scores, self._rate)
        if abs(score - own_limit) <= ROUNDING * score:
            return  # on the threshold itself: either is right
        if rejected != (score > own_limit):
            found.other_verdicts += 1
        elif rejected:
            parts = (float(ours.local_patches.max()), float(ours.context_patches.max()))
            kind = KindClassifier(self._of_file).kind(*(float(theirs[name].max()) for name in GRIDS[1:3]))
            steps = (1 - ROUNDING, 1 + ROUNDING)
            usual = KindClassifier(self._known)
            found.other_kinds += kind not in {usual.kind(parts[0] * a, parts[1] * b) for a in steps for b in steps}


def check_images(folder: Path | None, bank: Bank, *, made: bool) -> tuple[list[Path | UInt8Array], str]:
    """What to compare on, and in words what it is: the folder's images, or the thumbnails.

    made: and made ones of odd sizes. They are also taken where there is nothing else.
    """
    if folder is not None:
        real: list[Path | UInt8Array] = list(all_images(folder))
        source = f"{len(real)} images of {folder.name}"
    else:
        kept = [image.thumbnail for image in bank.training if image.thumbnail]
        places = (
            np.unique(np.linspace(0, len(kept) - 1, min(THUMBNAILS, len(kept))).astype(int)).tolist() if kept else []
        )
        real = [read_thumbnail(kept[place]).copy() for place in places]  # writable, as PyTorch wants it
        source = f"{len(real)} thumbnails of training images"
    if real and not made:
        return real, source
    odd = [_made(*size) for size in _SIZES]
    return real + odd, f"{source} and {len(odd)} made images of odd sizes"


def _run(session: Session, pixels: UInt8Array, name: str, *, together: bool) -> Arrays:
    """The outputs for one image; together: in a batch with others, which it must not notice."""
    given = np.stack((pixels, pixels[::-1], 255 - pixels)) if together else pixels[None]
    try:
        found = session.run(given)
    except Exception as error:  # the runtimes' errors have no common class
        reason = " ".join(str(error).split())[:240]
        raise ModelFileError(f"{session.runtime} cannot score {name}: {reason} No file was written.") from None
    found = {output: value[:1] for output, value in found.items()}
    if not np.isfinite(found["score"]).all():
        raise ModelFileError(
            f"The exported network gives numbers that are not finite for {name}. No file was written. Use precision float32."
        )
    return found


def _made(height: int, width: int) -> UInt8Array:
    """(h, w, 3) uint8: a coloured slope with a bright block and noise, another one for each size."""
    rng = np.random.default_rng((height, width))
    down, across = np.meshgrid(np.linspace(0, 255, height), np.linspace(255, 0, width), indexing="ij")
    image = np.stack((down, across, 255 - down), axis=2)
    image[height // 4 : height // 2, width // 4 : width // 2] = 255
    return np.clip(image * 0.8 + rng.normal(0, 25, image.shape), 0, 255).astype(np.uint8)
