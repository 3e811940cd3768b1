"""How good a candidate is: cross-fitted over good images, on what was made on those that it did not learn from.

The good images part into ``FOLDS``. For each of them the detector itself learns from the others, its calibration included, and
predicts the fold's images and the defects that were made on them. So every good image is held out once, and a defect is never
scored by a bank that has seen the image it was made on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any

import numpy as np
import numpy.typing as npt

from sapatchcore.datasets.samples import GOOD
from sapatchcore.defects.made import GROUPS, KINDS
from sapatchcore.score.metrics import auroc
from sapatchcore.score.threshold import possible_rate
from sapatchcore.tuning.made_images import AtSize, MadeImages, Networks

FOLDS = 3
RATE = 0.01  # promised, of good images rejected; where the images are too few for it, the smallest possible
TIMED = 5  # images

Make = Callable[..., Any]  # a detector, from options


@dataclass(frozen=True)
class Candidate:
    """What was measured of a candidate.

    options: as SAPatchCore takes them. groups: image AUROC of each group's made defects, mean over the folds; a group that
    these images do not allow is missing. kinds: of each kind alone, over all folds. error: the standard error of ``quality``
    (Hanley and McNeil 1982). found: share of the made defects above the threshold that promises ``rate``. rejected: share of
    the held-out good images above it. milliseconds: of one image, batches of one, in the median.
    """

    options: dict[str, Any]
    groups: dict[str, float]
    kinds: dict[str, float]
    error: float
    found: float
    rejected: float
    rate: float
    milliseconds: float

    @property
    def quality(self) -> float:
        """The mean over the groups."""
        return fmean(self.groups.values())

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "quality": self.quality}


def judge(make: Make, options: Mapping[str, Any], examples: MadeImages, networks: Networks) -> Candidate:
    """Measure the candidate that ``make`` builds from ``options``. Raises as SAPatchCore, its fit and its predict."""
    size = make(**options).settings.resize
    pictures = examples.at(size)
    scores = np.zeros(len(pictures.kinds))
    above, rates, spent = np.zeros(len(scores), np.bool_), [], math.inf
    for fold in range(FOLDS):
        detector = make(**options)
        for one in detector.networks:
            one.embedder = networks.embedder(one.settings)
        detector.fit([pictures.images[at] for at in _chosen(pictures, fold, held_out=False)])
        at = np.array(_chosen(pictures, fold, held_out=True))
        result = detector.predict([pictures.images[number] for number in at])
        assert result.calibration is not None  # as several images were learned from
        rate = possible_rate(len(result.calibration), RATE)
        scores[at], above[at] = result.scores, result.scores > result.threshold(rate)
        rates.append(rate)
        if fold == 0:
            spent = _milliseconds(detector, pictures)
    folds = np.array(pictures.sources) % FOLDS
    kinds = np.array(pictures.kinds)
    good = kinds == GOOD
    groups, errors = {}, []
    for group in GROUPS:
        theirs = np.array([KINDS.get(kind) == group for kind in pictures.kinds])
        if theirs.any():
            groups[group] = _mean_auroc(scores, good, theirs, folds)
            errors.append(_standard_error(groups[group], int(good.sum()), int(theirs.sum())))
    return Candidate(
        options=dict(options),
        groups=groups,
        kinds={str(kind): _mean_auroc(scores, good, kinds == kind, folds) for kind in sorted(set(kinds[~good]))},
        error=math.sqrt(sum(error**2 for error in errors)) / len(errors),
        found=float(above[~good].mean()),
        rejected=float(above[good].mean()),
        rate=max(rates),
        milliseconds=spent,
    )


def _chosen(pictures: AtSize, fold: int, *, held_out: bool) -> list[int]:
    """The fold's images and what was made on them; or the good images of all other folds."""
    return [
        at
        for at, (kind, source) in enumerate(zip(pictures.kinds, pictures.sources, strict=True))
        if (source % FOLDS == fold) == held_out and (held_out or kind == GOOD)
    ]


def _mean_auroc(
    scores: npt.NDArray[np.float64],
    good: npt.NDArray[np.bool_],
    bad: npt.NDArray[np.bool_],
    folds: npt.NDArray[np.int64],
) -> float:
    """Mean over the folds in which there are both: scores of different banks are not compared."""
    found = []
    for fold in range(FOLDS):
        here = (good | bad) & (folds == fold)
        if (good & here).any() and (bad & here).any():
            found.append(auroc(bad[here], scores[here]))
    return fmean(found)


def _standard_error(area: float, good: int, bad: int) -> float:
    """Of an AUROC; Hanley and McNeil, Radiology 143, 1982, equation 2."""
    both, one = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (bad - 1) * (both - area**2) + (good - 1) * (one - area**2)
    return math.sqrt(max(variance, 0) / (good * bad))


def _milliseconds(detector: Any, pictures: AtSize) -> float:
    shared = [one.embedder.shared for one in detector.networks]
    for network in shared:
        network.remembers = False
    spent = []
    for image in pictures.images[: TIMED + 1]:
        begin = time.perf_counter()
        _ = detector.predict([image]).maps[0]
        spent.append(1000 * (time.perf_counter() - begin))
    for network in shared:
        network.remembers = True
    return median(spent[1:])  # the first one finds nothing ready
