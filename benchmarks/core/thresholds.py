"""Is the promised false-reject rate kept? Good images alone, split again and again; and how soon a drift is found.

A threshold promises that of good images at most a share α lies above it (score/threshold.py). Good images are split at
random into those to learn from and the rest; the detector's own ``fit`` and ``calibrate`` do all else, only the network sees
each image once and not once a split. Two calibrations: *cross-fitted* scores each training image by a bank of the other folds;
*separate* takes good images from the rest, which then are not tested. Two thresholds: of the image score, and of the
anomaly map's largest value.

Splits are drawn independently, so the standard error over them holds for the mean over all splits of *these* images. They
share images, so the deviation between them is given, too: by so much a single split, as in practice, may differ.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.measure import Record, parser, table
from sapatchcore import SAPatchCore
from sapatchcore.data.sources import Batch, ImageSource
from sapatchcore.datasets.folders import open_dataset
from sapatchcore.datasets.samples import GOOD
from sapatchcore.embed.builtin import BUILTIN
from sapatchcore.embed.patches import Embedder, Patches
from sapatchcore.errors import SettingsError
from sapatchcore.score.calibration import CROSS_FITTED, SEPARATE, Calibration
from sapatchcore.score.drift import drift
from sapatchcore.score.threshold import p_values, threshold
from sapatchcore.settings import Settings, settings_from
from sapatchcore.synth.write import find_scene

QUESTION = "Is the promised false-reject rate kept, how careful is cross-fitting, and how soon is a drift found?"
RATES = (0.01, 0.05, 0.1)
COUNT_RATE = 0.1  # that 20 training images can promise as well
EXACT = 99  # calibration images with which all of RATES are whole numbers of ranks
TESTED = 42  # of the given images: as many as a category's own good test images, or so
COUNTS = (20, 40, 80, 160, 240)
LARGE, LARGE_RATIO = 160, 0.1  # training images and coreset ratio of a bank with ten times the rows
SIDE = 224  # pixels, as in the paper: 784 patches an image
COUNT_SIDE = 96  # where training images are counted: 144 patches an image, and so many fits
MADE_SIDE = 256

Float32 = npt.NDArray[np.float32]


class Remembering(Embedder):
    """An embedder whose images are numbers: those of images that the network has seen already, all in one go."""

    def __init__(self, settings: Settings, images: Sequence[ImageSource]) -> None:
        super().__init__(settings)
        seen = list(super().patches(images))
        first = seen[0][1]
        self.sizes = [size for batch, _ in seen for size in batch.sizes]
        self._local = torch.cat([patches.local for _, patches in seen])
        self._context = torch.cat([patches.context for _, patches in seen])
        self._cell, self._grid = first.cell, first.grid
        self.patches_an_image = len(first.cell)

    def patches(self, sources: Sequence[int], first: int = 0) -> Iterator[tuple[Batch, Patches]]:
        for at in range(first, len(sources), self.settings.batch_size):
            few = list(sources[at : at + self.settings.batch_size])
            names, sizes = tuple(f"image {number}" for number in few), tuple(self.sizes[number] for number in few)
            pixels = np.zeros((len(few), 1, 1, 3), np.uint8)  # only for thumbnails
            yield Batch(names, sizes, pixels), Patches(self._local[few], self._context[few], self._cell, self._grid)


def main(arguments: list[str] | None = None) -> None:
    options = parser("thresholds", QUESTION)
    options.add_argument("--splits", type=int, default=200, help="of each design (default: %(default)s)")
    options.add_argument("--streams", type=int, default=300, help="of parts, for the drift (default: %(default)s)")
    given = options.parse_args(arguments)
    exact, counts, large, quiet, parts = EXACT, COUNTS, LARGE, (30, 300, 3000), 1000
    if given.quick:
        given.splits, given.streams, exact, counts, large, quiet, parts = 2, 4, 19, (10,), 10, (30,), 60
    torch.set_num_threads(1)
    record = Record("thresholds", QUESTION, given)
    record["rates"], record["counts"], record["sets"] = [], [], {}
    record["drift"] = drift_delays(given.streams, quiet, parts) | false_alarms(4 * given.streams, max(quiet))

    side, count_side = (64, 64) if given.quick else (SIDE, COUNT_SIDE)
    made = made_images(2 * exact + (12 if given.quick else 42))
    measure(record, "made screws", Remembering(seen_at(side), made), exact, exact, given.splits)
    if given.data is not None:
        dataset = open_dataset(given.data)
        good = [one.path for one in (*dataset.train, *dataset.test) if one.label == GOOD]
        good = good[:28] if given.quick else good
        separate = min(exact, len(good) - (6 if given.quick else TESTED) - exact)
        measure(record, given.data.name, Remembering(seen_at(side), good), exact, separate, given.splits)
        settings = seen_at(count_side)
        pool = Remembering(settings, good)
        for count in counts:
            by_count(record, given.data.name, pool, count, settings.coreset_ratio, max(2, given.splits // 2))
        by_count(record, given.data.name, pool, large, LARGE_RATIO, max(2, given.splits // 4))
    record.write(given.output)


def seen_at(side: int) -> Settings:
    return settings_from(
        {"backbone": BUILTIN, "resize": side, "crop": None, "batch_size": 32, "workers": 0, "device": "cpu"}
    )


def made_images(count: int) -> list[npt.NDArray[np.uint8]]:
    """``count`` good screws: independent draws, so exchangeable by construction."""
    scene = find_scene("screws")
    return [scene.render(GOOD, MADE_SIDE, np.random.default_rng([0, number]))[0] for number in range(count)]


def measure(record: Record, dataset: str, pool: Remembering, learned: int, calibrated: int, splits: int) -> None:
    """Rates by cross-fitting over the images that are learned from, and by separate images to calibrate with; in each split
    some of the others are left alone where there are more than are calibrated with and ``TESTED``."""
    settings, count = pool.settings, len(pool.sizes)
    record.content["results"]["sets"][dataset] = {
        "good_images": count,
        "backbone": settings.backbone,
        "resize": settings.resize,
        "crop": settings.crop,
        "attention": settings.attention,
        "coreset_ratio": settings.coreset_ratio,
        "image_score": settings.image_score,
        "patches_an_image": pool.patches_an_image,
        "splits": splits,
    }
    begin = time.perf_counter()
    found = list(split_again(pool, learned, settings.coreset_ratio, splits, rest=calibrated + TESTED))
    rows = []
    for kind in ("image", "pixel"):
        for rate in RATES:
            about = {"set": dataset, "threshold": kind, "promised": rate, "learned": learned}
            crossed = [(of(one, kind), of(rest, kind)) for one, rest in found]
            rows.append({**about, "calibration": CROSS_FITTED, **rate_of(crossed, rate)})
            apart = [(rest[:calibrated], rest[calibrated:]) for _, rest in crossed]
            rows.append({**about, "calibration": SEPARATE, **rate_of(apart, rate)})
            both = [(one, other) for (one, _), (other, _) in zip(crossed, apart, strict=True)]
            rows[-2]["over_separate_threshold"] = thresholds_ratio(both, rate)
    record.content["results"]["rates"] += rows
    print(f"\n{dataset}, {learned} to learn from: {time.perf_counter() - begin:.0f} s")
    columns = ("threshold", "calibration", "promised", "calibrated", "tested", "realised", "standard_error")
    table(columns, [[row.get(name, "not possible") for name in columns] for row in rows])


def by_count(record: Record, dataset: str, pool: Remembering, learned: int, ratio: float, splits: int) -> None:
    """What cross-fitting costs with ``learned`` training images; all others are the separate ones, and are tested."""
    found = list(split_again(pool, learned, ratio, splits))
    for kind in ("image", "pixel"):
        pairs = [(of(crossed, kind), of(rest, kind)) for crossed, rest in found]
        row = {
            "set": dataset,
            "threshold": kind,
            "learned": learned,
            "coreset_ratio": ratio,
            "resize": pool.settings.resize,
            "promised": COUNT_RATE,
            "rows_an_image": max(1, int(ratio * learned * pool.patches_an_image)) / learned,
            **rate_of(pairs, COUNT_RATE),
            "over_separate_threshold": thresholds_ratio(pairs, COUNT_RATE),
        }
        record.content["results"]["counts"].append(row)
        shown = {name: row[name] for name in ("threshold", "learned", "coreset_ratio", "realised")}
        print(shown, row["over_separate_threshold"], flush=True)


def split_again(
    pool: Remembering, learned: int, ratio: float, splits: int, rest: int | None = None
) -> Iterator[tuple[Calibration, Calibration]]:
    """For each split: the training images, cross-fitted, and all others, or ``rest`` of them, as the detector scores them."""
    for seed in range(splits):
        order = np.random.default_rng([seed, learned]).permutation(len(pool.sizes)).tolist()
        options = {**pool.settings.model_dump(), "coreset_ratio": ratio, "seed": seed}
        detector = SAPatchCore(**options)
        detector.embedder = pool
        crossed = detector.fit(order[:learned]).calibration
        yield crossed, detector.calibrate(order[learned:][:rest]).calibration


def of(good: Calibration, kind: str) -> Float32:
    return good.scores if kind == "image" else good.peaks


def rate_of(pairs: Sequence[tuple[Float32, Float32]], rate: float) -> dict[str, Any]:
    """The share of tested images above the threshold, over (calibration scores, test scores) of each split."""
    calibrated, tested = len(pairs[0][0]), len(pairs[0][1])
    sizes: dict[str, Any] = {"calibrated": calibrated, "tested": tested, "splits": len(pairs)}
    try:
        shares = [float(np.mean(test > threshold(good, rate))) for good, test in pairs]
    except SettingsError:
        return {**sizes, "possible": False}
    deviation = statistics.stdev(shares)
    mean, error = statistics.fmean(shares), deviation / len(shares) ** 0.5
    return {
        **sizes,
        "possible": True,
        # What ranks allow: no threshold on so many scores comes nearer to the promise from below.
        "attainable": int(rate * (calibrated + 1) + 1e-9) / (calibrated + 1),
        "realised": mean,
        "standard_error": error,
        "between_splits": deviation,
        "realised_over_promised": mean / rate,
        "kept": mean <= rate + 3 * error,
    }


def thresholds_ratio(pairs: Sequence[tuple[Float32, Float32]], rate: float) -> dict[str, float] | None:
    """The first threshold as a multiple of the second in each split: median, and the middle 80 % of the splits."""
    try:
        ratios = [threshold(one, rate) / threshold(other, rate) for one, other in pairs]
    except SettingsError:
        return None
    low, middle, high = np.quantile(ratios, (0.1, 0.5, 0.9)).tolist()
    return {"median": middle, "low": low, "high": high}


def drift_delays(streams: int, quiet: Sequence[int], parts: int, calibration: int = 320) -> dict[str, Any]:
    """How many shifted parts pass until the alarm, after so many good ones; normal scores, shifted by so many deviations."""
    rows = []
    for before in quiet:
        for shift in (1, 2, 3):
            delays: list[float] = []
            early = 0
            for stream in range(streams):
                random = np.random.default_rng([stream, before, shift])
                good, scores = random.normal(size=calibration), random.normal(size=before + parts)
                scores[before:] += shift
                alarm = drift(p_values(scores, good), calibration, seed=stream).alarm
                if alarm is not None and alarm < before:
                    early += 1
                else:
                    delays.append(np.inf if alarm is None else alarm - before + 1)
            middle, high = np.quantile(delays, (0.5, 0.9), method="inverted_cdf").tolist()
            row = {"quiet": before, "shift": shift, "streams": streams, "false_before": early}
            for name, value in (("median", middle), ("high", high)):
                row[name] = None if value == np.inf else int(value)
            rows.append({**row, "never": sum(delay == np.inf for delay in delays)})
            print(rows[-1], flush=True)
    return {"calibration": calibration, "false_alarm": 0.01, "parts_after": parts, "delays": rows}


def false_alarms(streams: int, parts: int, calibration: int = 320) -> dict[str, Any]:
    """The share of streams of good parts alone on which the alarm is ever raised."""
    most = np.empty(streams)
    for stream in range(streams):
        random = np.random.default_rng([stream, parts])
        good, scores = random.normal(size=calibration), random.normal(size=parts)
        most[stream] = drift(p_values(scores, good), calibration, seed=stream).log_capital.max()
    shares = [(promised, float(np.mean(most >= -np.log(promised)))) for promised in (0.01, 0.05, 0.1)]
    rows = [
        {"promised": promised, "share": share, "standard_error": (share * (1 - share) / streams) ** 0.5}
        for promised, share in shares
    ]
    print(rows, flush=True)
    return {"good_streams": {"streams": streams, "parts": parts, "shares": rows}}


if __name__ == "__main__":
    sys.exit(main())
