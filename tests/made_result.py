"""A result of made numbers, and everything that can be asked of one; nothing here needs PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sapatchcore.result import Result
from sapatchcore.score.calibration import SEPARATE, Calibration, largest_values
from sapatchcore.score.drift import drift
from sapatchcore.score.regions import whole_mask
from sapatchcore.show.drawing import colours
from sapatchcore.show.maps import write_maps

RATE = 0.1


def made_result(count: int, seed: int, folder: str) -> Result:
    """``count`` images of three sizes, their patch scores drawn from ``seed``; not calibrated."""
    random = np.random.default_rng(seed)
    local, context = random.gamma(2.0, 1.0, (2, count, 7, 9)).astype(np.float32)
    whole = np.sqrt(local**2 + context**2)
    worst = np.arange(count), whole.reshape(count, -1).argmax(1)
    return Result(
        paths=tuple(f"{folder}/{i}.png" for i in range(count)),
        scores=whole.reshape(count, -1)[worst],
        local_scores=local.reshape(count, -1)[worst],
        context_scores=context.reshape(count, -1)[worst],
        patch_scores=whole,
        local_patches=local,
        context_patches=context,
        neighbours=random.integers(0, 99, whole.shape),
        sizes=tuple(((120, 90), (64, 64), (333, 500))[i % 3] for i in range(count)),
        resize=(72, 90),
        crop=(56, 72),
    )


def answers(folder: Path) -> dict[str, npt.NDArray[Any]]:
    """All that a calibrated result says, by name; the files of its maps go to ``folder``."""
    good = made_result(30, 0, "good")
    calibration = Calibration(
        source=SEPARATE,
        names=good.paths,
        images=np.full(30, -1),
        scores=good.scores,
        local=good.local_patches.max((1, 2)),
        context=good.context_patches.max((1, 2)),
        peaks=largest_values(good.patch_scores, good.sizes, good.resize, good.crop),
        grids=good.patch_scores,
        rows=good.neighbours,
        sizes=good.sizes,
        image_score="max",
        neighbors=9,
    )
    result = Result(**{**vars(made_result(9, 1, "new")), "calibration": calibration})
    found: dict[str, npt.NDArray[Any]] = {
        "peaks": calibration.peaks,
        "p_values": result.p_values,
        "thresholds": np.array([result.threshold(RATE), result.pixel_threshold(RATE), result.threshold()]),
        "verdicts": np.array([repr(verdict) for verdict in result.verdicts(RATE)]),
        "sentences": np.array([verdict.sentence for verdict in result.verdicts(0.5)]),
        "drift": drift(result.p_values, 30).log_capital,
    }
    for i, (whole, local, context) in enumerate(zip(result.maps, result.local_maps, result.context_maps, strict=True)):
        regions = result.regions(i, 0.9)
        found |= {f"map {i}": whole, f"local {i}": local, f"context {i}": context}
        found[f"colours {i}"] = colours(whole, (0, 9))
        found[f"regions {i}"] = np.array([(*one.box, one.area, one.peak, *one.peak_at) for one in regions])
        found[f"mask {i}"] = whole_mask(regions, result.sizes[i])
    for kind in ("png", "tiff", "npy"):
        for i, file in enumerate(write_maps(result, folder, kind)):
            found[f"{kind} {i}"] = np.frombuffer(file.read_bytes(), np.uint8)
    return found
