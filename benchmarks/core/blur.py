"""Are anomaly maps faster with kornia's Gaussian blur, and are they the same?"""

from __future__ import annotations

import sys

import kornia
import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.measure import Record, interleaved, parser, ratio, shown, spread, table
from sapatchcore.score.anomaly_score import SIGMA, anomaly_map

QUESTION = (
    "Time of one anomaly map, one small matrix an axis against interpolating and kornia's blur, and how far they differ"
)
GRID, CROP = (28, 28), (224, 224)
SIZES = ((320, 320), (700, 700), (1024, 1024))


def main(arguments: list[str] | None = None) -> None:
    options = parser("blur", QUESTION)
    given = options.parse_args(arguments)
    repeats = 3 if given.quick else given.repeats or 50
    record = Record("blur", QUESTION, given)
    scores = np.random.default_rng(0).gamma(2, 1, GRID).astype(np.float32)
    rows = []
    for size in SIZES[:1] if given.quick else SIZES:
        ours, theirs = anomaly_map(scores, size, CROP, None), with_kornia(scores, size)
        seconds = interleaved(
            {
                "matrices": lambda size=size: anomaly_map(scores, size, CROP, None),
                "kornia": lambda size=size: with_kornia(scores, size),
            },
            repeats=repeats,
        )
        rows.append(
            {
                "size": list(size),
                "milliseconds": {name: spread(values, 1e3) for name, values in seconds.items()},
                "ratio": ratio(seconds, "kornia", "matrices"),
                "largest_difference": float(np.abs(ours - theirs).max() / np.abs(theirs).max()),
            }
        )
    record["maps"] = rows
    cells = [
        [
            f"{row['size'][0]}²",
            *(shown(row["milliseconds"][name]) for name in ("matrices", "kornia")),
            f"{row['largest_difference']:.1e}",
        ]
        for row in rows
    ]
    table(("Image", "Matrices (ms)", "kornia (ms)", "Difference"), cells)
    record.write(given.output)


def with_kornia(scores: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The same map by interpolation, kornia's blur at the size that the network saw, and interpolation."""
    grid = torch.from_numpy(scores)[None, None]
    enlarged = F.interpolate(grid, CROP, mode="bilinear", align_corners=False)
    blurred = kornia.filters.gaussian_blur2d(enlarged, (33, 33), (SIGMA, SIGMA), border_type="reflect")
    return F.interpolate(blurred, size, mode="bilinear", align_corners=False)[0, 0].numpy()


if __name__ == "__main__":
    main(sys.argv[1:])
