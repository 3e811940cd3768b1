"""What is decided of one image, and which kind of anomaly it shows.

The kind. Good images' scores of each part have a tail: beyond their 0.9 quantile q the excess has a mean b (score/fusion.py),
and a value x *leads* by (x − q) / b: it is e^lead times rarer than the worst tenth of good images. Two sides are compared,

    local:          the largest local part of any patch; without self-attention its whole score
    co-occurrence:  the largest context part of any patch, where self-attention mixed it; the global score, where there is one

each by the largest lead of its parts. Where one leads the other by more than 1 it names the kind; else, and where neither leads
at all, it is *unclear*. Largest values and not the split of the worst patch, since a local defect is worst in one place, while
the context is always large somewhere. Without self-attention and without a global part nothing measures combinations: every
rejection is *local*, a patch like none of a good image. ``docs/verdicts.md`` says how often the kind is right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sapatchcore.errors import NotFittedError
from sapatchcore.score.anomaly_score import Float32, Maps
from sapatchcore.score.calibration import NO_CALIBRATION, Calibration
from sapatchcore.score.fusion import tail
from sapatchcore.score.regions import Region, find_regions
from sapatchcore.score.threshold import p_values, possible_rate

_ROUNDING = 1e-5  # of a map's values, relative, at most
LOCAL, CO_OCCURRENCE, UNCLEAR = "local", "co-occurrence", "unclear"
MARGIN = 1.0  # by which one side has to lead the other

_SENTENCES = {
    LOCAL: "local: a place here is unlike any place of good images.",
    CO_OCCURRENCE: "co-occurrence: the image as a whole is unlike good ones, more than any place of it is.",
    UNCLEAR: "unclear: the image is unlike good ones, but neither a place nor the whole stands out against the other.",
}


@dataclass(frozen=True)
class Verdict:
    """One image's verdict.

    rejected: its score lies above the threshold. p_value: of its score. local, context: the two parts of the patches' own score,
    at the worst patch; without a global part score² = local² + context². local_ratio, context_ratio: the largest local and
    context part of any patch, as multiples of what is usual in good images. kind: LOCAL, CO_OCCURRENCE or UNCLEAR, or "" where
    it is not rejected. global_score, global_ratio: of the image as a whole, likewise; None without a global part.
    """

    rejected: bool
    score: float
    threshold: float
    p_value: float
    local: float
    context: float
    local_ratio: float
    context_ratio: float
    kind: str
    global_score: float | None = None
    global_ratio: float | None = None

    @property
    def local_share(self) -> float:
        """local² / (local² + context²), in [0, 1]; the context's share is the rest."""
        squared = self.local**2 + self.context**2
        return self.local**2 / squared if squared > 0 else 0.0

    @property
    def sentence(self) -> str:
        """The reason, for people."""
        return _SENTENCES.get(self.kind, "accepted: nothing here goes beyond what good images show.")


@dataclass(frozen=True)
class Parts:
    """Of one image: the largest local and context part of any patch, the patches' own image score, and the global score."""

    local: float
    context: float
    largest: float
    global_score: float | None = None


class KindClassifier:
    """Tells the kind of a rejected image by what is usual in good ones."""

    def __init__(self, calibration: Calibration) -> None:
        self._mixed = calibration.attention == "self"
        largest = calibration.scores if calibration.largest is None else calibration.largest
        columns = {"local": calibration.local, "context": calibration.context, "largest": largest}
        if calibration.global_scores is not None:
            columns["global_score"] = calibration.global_scores
        self._usual = {name: max(float(np.median(values)), 1e-12) for name, values in columns.items()}
        self._tails = {name: tail(values) for name, values in columns.items()}

    def ratios(self, parts: Parts) -> tuple[float, float, float | None]:
        """The local and context part and the global score as multiples of their medians over good images."""
        whole = None if parts.global_score is None else parts.global_score / self._usual["global_score"]
        return parts.local / self._usual["local"], parts.context / self._usual["context"], whole

    def kind(self, parts: Parts) -> str:
        """The kind of a rejected image."""
        local, combination = self.leads(parts)
        if combination is None:
            return LOCAL
        if max(local, combination) <= 0 or abs(local - combination) <= MARGIN:
            return UNCLEAR
        return LOCAL if local > combination else CO_OCCURRENCE

    def leads(self, parts: Parts) -> tuple[float, float | None]:
        """How far each side leads; None where nothing measures combinations."""
        local = self._lead("local", parts.local)
        sides = [] if parts.global_score is None else [self._lead("global_score", parts.global_score)]
        if self._mixed:
            sides.append(self._lead("context", parts.context))
        else:
            local = max(local, self._lead("largest", parts.largest))
        return local, max(sides, default=None)

    def _lead(self, name: str, value: float) -> float:
        begin, spread = self._tails[name]
        return (value - begin) / spread


class Verdicts:
    """What ``Result`` says of its images against good images' scores: p-values, thresholds, regions, verdicts."""

    calibration: Calibration | None
    scores: Float32
    local_scores: Float32
    context_scores: Float32
    global_scores: Float32 | None
    patch_scores: Float32
    local_patches: Float32
    context_patches: Float32

    if TYPE_CHECKING:

        @property
        def maps(self) -> Maps: ...
        def __len__(self) -> int: ...

    @property
    def p_values(self) -> npt.NDArray[np.float64]:
        """(n,) float64 in (0, 1]: small where few good images score as high. Raises NotFittedError without calibration."""
        return p_values(self.scores, self._calibrated().scores)

    def rate(self, false_reject: float | None = None) -> float:
        """The promised rate: ``false_reject``, or where it is None 0.01, or the smallest rate that the calibration can
        promise where that is larger. Raises NotFittedError without calibration."""
        count = len(self._calibrated())
        return possible_rate(count) if false_reject is None else false_reject

    def threshold(self, false_reject: float | None = None) -> float:
        """The score above which an image is rejected, so that at most ``false_reject`` of good parts are; see ``Calibrated``."""
        return self._calibrated().threshold(false_reject)

    def pixel_threshold(self, false_reject: float | None = None) -> float:
        """The map value such that at most ``false_reject`` of good images show any pixel above it; as ``threshold``."""
        return self._calibrated().pixel_threshold(false_reject)

    def regions(self, image: int, false_reject: float | None = None) -> list[Region]:
        """The regions of one image above ``pixel_threshold``, with area, box and mask, the highest peak first."""
        limit = self.pixel_threshold(false_reject)
        if self.patch_scores[image].max() * (1 + _ROUNDING) <= limit:  # as of most good images
            return []  # a map's values are means of patch scores: none exceeds them all
        return find_regions(self.maps[image], limit)

    def verdicts(self, false_reject: float | None = None) -> list[Verdict]:
        """What is decided of each image, and of which kind it is; false_reject and errors as of ``threshold``."""
        kinds, limit = KindClassifier(self._calibrated()), self.threshold(false_reject)
        verdicts = []
        for i, (score, p) in enumerate(zip(self.scores.tolist(), self.p_values.tolist(), strict=True)):
            local, context = float(self.local_scores[i]), float(self.context_scores[i])
            parts = self.parts(i)
            local_ratio, context_ratio, global_ratio = kinds.ratios(parts)
            kind = kinds.kind(parts) if score > limit else ""
            of_patches = (local, context, local_ratio, context_ratio)
            verdicts.append(
                Verdict(score > limit, score, limit, p, *of_patches, kind, parts.global_score, global_ratio)
            )
        return verdicts

    def parts(self, image: int) -> Parts:
        """What the kind of one image is told from."""
        return Parts(
            local=float(self.local_patches[image].max()),
            context=float(self.context_patches[image].max()),
            largest=float(np.hypot(self.local_scores[image], self.context_scores[image])),
            global_score=None if self.global_scores is None else float(self.global_scores[image]),
        )

    def _calibrated(self) -> Calibration:
        if self.calibration is None:
            raise NotFittedError(NO_CALIBRATION)
        return self.calibration
