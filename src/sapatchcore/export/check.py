"""Does the file give the detector's own scores? Both score the same images, and every number and verdict is compared.

Two computers, or one with another number of threads, give scores that differ in the seventh digit: float32 sums depend on
their order. So an image whose score *is* a calibration score, to five digits, may fall on either side of it: there both
answers count as equal, and such images are counted. Everything else has to agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sapatchcore.data.images import all_images, read_thumbnail
from sapatchcore.data.pixels import UInt8Array, prepare
from sapatchcore.data.sources import Batch, Progress, read_image
from sapatchcore.embed.patches import Embedder, Patches
from sapatchcore.errors import ModelFileError
from sapatchcore.export.metadata import GLOBAL, GRIDS, SCORES
from sapatchcore.export.runtime import Arrays, Session, reason_of
from sapatchcore.memory.bank import Bank
from sapatchcore.result import Result, gather_result
from sapatchcore.score.anomaly_score import score_patches
from sapatchcore.score.calibration import Calibration, Float32
from sapatchcore.score.fusion import smoothed_scores
from sapatchcore.score.threshold import p_values, possible_rate, threshold
from sapatchcore.score.verdict import KindClassifier, Parts
from sapatchcore.settings import Settings

TOLERANCE = 1e-3  # of scores, parts, and maps, relative
ROUNDING = 1e-5  # a score this near a calibration score may fall on either side of it, relative
THUMBNAILS = 16  # of the training images at most, evenly spread
# Sizes of made images, (h, w): odd numbers, tall and wide, smaller and larger than any network's input.
_SIZES = ((1, 1), (37, 211), (480, 640), (641, 479), (1201, 33), (1199, 1601))
FLOOR = 1e-2  # of the bank's spread: smaller scores are compared as if they were that large


@dataclass
class Figures:
    """What the check found; its fields are the file's ``check`` entry.

    source: which images. different: for each output the largest relative difference. median_score: the median relative
    difference of the scores. other_neighbours: patches with another nearest row. verdicts: images whose verdicts were
    compared, at false_reject; other_verdicts: those accepted by one and rejected by the other; other_kinds: rejected by both,
    but as another kind. on_the_line: images whose score is a calibration score, to five digits.
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
    """A detector in float32 on the CPU, with which a file's outputs are compared. asks: what it needs beside these."""

    asks: tuple[str, ...] = ()

    def __init__(
        self,
        embedder: Embedder,
        bank: Bank,
        calibration: Calibration | None,
        file_calibration: Calibration | None,
    ) -> None:
        """calibration: what the detector's verdicts rest on. file_calibration: what the file's rest on."""
        self._embedder, self._bank, self._settings = embedder, bank, embedder.settings
        self._calibration, self._file_calibration = calibration, file_calibration
        self._floor = max(FLOOR * spread_of(bank), 1e-12)
        self._rate = None if calibration is None else possible_rate(len(calibration))

    def compare(
        self,
        session: Session,
        images: Sequence[Path | UInt8Array],
        source: str,
        *,
        strict: bool,
        progress: Progress | None = None,
    ) -> Figures:
        """The figures of the file behind ``session`` on ``images``. progress: stage "check".

        strict: raise ModelFileError at the first image where a number is more than ``TOLERANCE`` away, or a verdict differs;
        False only counts them.

        Raises ModelFileError, strict or not, where the runtime cannot score an image, or gives numbers that are not finite.
        """
        found = Figures(source, session.runtime, false_reject=self._rate)
        score_differences = []
        for index, image in enumerate(images):
            pixels = read_image(image) if isinstance(image, Path) else image
            name = str(image) if isinstance(image, Path) else f"a {pixels.shape[0]}×{pixels.shape[1]} (h×w) image"
            theirs = _run(session, pixels, name, together=index == 0)
            ours, seen = self._scored(pixels)
            differences = self._differences(ours, seen, theirs, found)
            score_differences.append(differences["score"])
            for output, value in differences.items():
                found.different[output] = max(found.different.get(output, 0.0), value)
                if strict and not value <= TOLERANCE:
                    raise ModelFileError(
                        f"The file's {output} of {name} is {value:.1g} away from the detector's own, relative; allowed is "
                        f"{TOLERANCE:g}. No file was written. Try another opset, or other versions of the runtime."
                    )
            if self._calibration is not None and self._file_calibration is not None:
                self._verdicts(ours, theirs, found)
                if strict and (found.other_verdicts or found.other_kinds):
                    raise ModelFileError(
                        f"The file's verdict on {name} is another than the detector's own. No file was written. Try another "
                        "opset, or other versions of the runtime."
                    )
            found.images = index + 1
            if progress is not None:
                progress("check", found.images, len(images))
        found.median_score = float(np.median(score_differences))
        return found

    def _scored(self, image: UInt8Array) -> tuple[Result, Any]:
        """(h, w, 3) uint8 → its result by the detector, and what ``_away`` needs, the patches."""
        batch = batch_of(image, self._settings)
        patches = self._embedder.embed(batch)
        scored = [(batch, score_patches(patches, self._bank, self._settings))]
        return gather_result(scored, self._settings, calibration=self._calibration), patches

    def _away(self, patches: Any, theirs: Arrays) -> tuple[Float32, Float32]:
        """The local and context part of each patch of the image, (h, w) each, from the row that the file found nearest."""
        return parts_away(patches, self._bank, theirs["neighbours"][0])

    def _differences(self, ours: Result, seen: Any, theirs: Arrays, found: Figures) -> dict[str, float]:
        """For each output the largest difference between theirs and ours, over the largest value of ours."""
        whole = ours.patch_scores[0]
        # Among rows that are equally near, the nearest may be another one: its distance may not differ, and the parts are those
        # of that row.
        found.other_neighbours += int((theirs["neighbours"][0] != ours.neighbours[0]).sum())
        local, context = self._away(seen, theirs)
        away = np.hypot(local, context)
        if self._settings.image_score == "smoothed":
            parts_of_score = [part[0] for part in smoothed_scores(whole[None], local[None], context[None])[1:]]
        else:
            worst = theirs["patch_scores"][0].argmax()
            weight = np.hypot(ours.local_scores[0], ours.context_scores[0]) / max(float(whole.max()), 1e-12)
            parts_of_score = [local.flat[worst] * weight, context.flat[worst] * weight]
        own = (ours.scores[0], *parts_of_score, whole, local, context)
        values: dict[str, Any] = {**dict(zip((*SCORES, *GRIDS[:3]), own, strict=True)), "map": ours.maps[0]}
        # A part is small where the other is large: differences of both are relative to the whole.
        scales = {name: float(np.abs(values["score" if name in SCORES else "patch_scores"]).max()) for name in values}
        differences = {"neighbours": float(np.abs(away - whole).max()) / max(scales["patch_scores"], self._floor)}
        for name, value in values.items():
            differences[name] = float(np.abs(value - theirs[name][0]).max()) / max(scales[name], self._floor)
        for name, of_whole in zip(GLOBAL, (ours.global_scores, ours.global_patches), strict=True):
            if of_whole is not None:
                scale = max(float(np.abs(of_whole[0]).max()), 1e-12)
                differences[name] = float(np.abs(of_whole[0] - theirs[name][0]).max()) / scale
        if self._calibration is not None and self._file_calibration is not None:
            differences["p_value"] = self._p_difference(float(ours.scores[0]), theirs)
        return differences

    def _p_difference(self, score: float, theirs: Arrays) -> float:
        """The relative difference of the p-values; 0 where a change of ``ROUNDING`` in the score would explain it."""
        assert self._calibration is not None
        low, high = p_values([score * (1 + ROUNDING), score * (1 - ROUNDING)], self._calibration.scores).astype(
            np.float32
        )
        p = theirs["p_value"][0]
        return float(abs(p - np.clip(p, low, high)) / low)

    def _verdicts(self, ours: Result, theirs: Arrays, found: Figures) -> None:
        """Count the verdict, and whether it differs."""
        assert self._calibration is not None
        assert self._file_calibration is not None
        assert self._rate is not None
        score, own_limit = float(ours.scores[0]), threshold(self._calibration.scores, self._rate)
        near = np.abs(self._calibration.scores - score) <= ROUNDING * score
        found.on_the_line += bool(near.any())
        found.verdicts += 1
        rejected = float(theirs["score"][0]) > threshold(self._file_calibration.scores, self._rate)
        if abs(score - own_limit) <= ROUNDING * score:
            return  # on the threshold itself: either is right
        if rejected != (score > own_limit):
            found.other_verdicts += 1
        elif rejected:
            usual, kind = KindClassifier(self._calibration), KindClassifier(self._file_calibration).kind(_parts(theirs))
            found.other_kinds += kind not in {usual.kind(one) for one in _near(ours.parts(0))}


def spread_of(bank: Bank) -> float:
    """How far the bank's rows are from their mean: the root of the mean square."""
    return float((bank.rows - bank.rows.mean(0)).square().sum(1).mean().sqrt())


def batch_of(image: UInt8Array, settings: Settings) -> Batch:
    """One image (h, w, 3) uint8, as ``predict`` would read it."""
    pixels = prepare(image, settings.resize, settings.crop)[None]
    return Batch(("the image",), ((image.shape[0], image.shape[1]),), pixels)


def parts_away(patches: Patches, bank: Bank, rows: npt.NDArray[np.int64]) -> tuple[Float32, Float32]:
    """One image's patches, and for each a row of the bank (h, w) → how far local and context part are from it, (h, w) each."""
    squared = (patches.rows()[0] - bank.rows[torch.from_numpy(rows).flatten()]).square()
    channels = patches.local.shape[2]
    local, context = (part.sum(1).sqrt().numpy().reshape(rows.shape) for part in squared.tensor_split([channels], 1))
    return local, context


def _parts(theirs: Arrays) -> Parts:
    """What the file's kind of its image is told from."""
    local, context = (float(theirs[name].max()) for name in GRIDS[1:3])
    largest = float(np.hypot(*(theirs[name][0] for name in SCORES[1:])))
    return Parts(local, context, largest, float(theirs[GLOBAL[0]][0]) if GLOBAL[0] in theirs else None)


def _near(parts: Parts) -> Iterator[Parts]:
    """The parts with either side up to ``ROUNDING`` larger or smaller."""
    steps = (1 - ROUNDING, 1 + ROUNDING)
    for times, others in product(steps, steps):
        whole = None if parts.global_score is None else parts.global_score * others
        yield Parts(parts.local * times, parts.context * others, parts.largest * times, whole)


def check_images(folder: Path | None, bank: Bank, *, made: bool) -> tuple[list[Path | UInt8Array], str]:
    """The images to compare on, the folder's or the bank's thumbnails, and a description of them.

    made: add made images of odd sizes. They are also taken where there is nothing else.
    """
    if folder is not None:
        real: list[Path | UInt8Array] = list(all_images(folder))
        source = f"{len(real)} images of {folder.name}"
    else:
        kept = [image.thumbnail for image in bank.training if image.thumbnail]
        chosen = [kept[index] for index in evenly_spread(len(kept), THUMBNAILS)]
        real = [read_thumbnail(thumbnail).copy() for thumbnail in chosen]  # writable, as PyTorch wants it
        source = f"{len(real)} thumbnails of training images"
    if real and not made:
        return real, source
    odd = [_made(*size) for size in _SIZES]
    return real + odd, f"{source} and {len(odd)} made images of odd sizes"


def evenly_spread(count: int, most: int) -> list[int]:
    """Up to ``most`` of the numbers 0 … count − 1, evenly spread, in order."""
    if count == 0:
        return []
    indices: list[int] = np.unique(np.linspace(0, count - 1, min(most, count)).astype(int)).tolist()
    return indices


def _run(session: Session, pixels: UInt8Array, name: str, *, together: bool) -> Arrays:
    """The outputs for one image; together: in a batch with others, which must not change them."""
    given = np.stack((pixels, pixels[::-1], 255 - pixels)) if together else pixels[None]
    try:
        found = session.run(given)
    except Exception as error:  # the runtimes' errors have no common class
        raise ModelFileError(
            f"{session.runtime} cannot score {name}: {reason_of(error)} No file was written."
        ) from None
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
