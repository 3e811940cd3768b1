"""The one result object: checked when made, read-only, maps on demand."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from made_result import made_result

from sapatchcore import Result
from sapatchcore.data.sources import Batch
from sapatchcore.learning.calibrate import as_calibration
from sapatchcore.result import gather_result
from sapatchcore.score.calibration import SEPARATE
from sapatchcore.score.regions import find_regions
from sapatchcore.settings import Settings


def parts(n: int = 3) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    local, context = rng.random((2, n, 4, 5), dtype=np.float32)
    whole = np.sqrt(local**2 + context**2)
    return {
        "paths": tuple(f"{i}.png" for i in range(n)),
        "scores": whole.reshape(n, -1).max(1),
        "local_scores": local.reshape(n, -1).max(1),
        "context_scores": context.reshape(n, -1).max(1),
        "patch_scores": whole,
        "local_patches": local,
        "context_patches": context,
        "neighbours": np.zeros((n, 4, 5), np.int64),
        "sizes": ((40, 50), (64, 80), (33, 47))[:n],
        "resize": (32, 40),
        "crop": None,
    }


def test_maps_have_the_images_own_sizes() -> None:
    result = Result(**parts())
    assert len(result) == 3
    for maps in (result.maps, result.local_maps, result.context_maps):
        assert [one.shape for one in maps] == [(40, 50), (64, 80), (33, 47)]
        assert {one.dtype for one in maps} == {np.dtype(np.float32)}


def test_maps_split() -> None:
    result = Result(**parts())
    for whole, local, context in zip(result.maps, result.local_maps, result.context_maps, strict=True):
        np.testing.assert_allclose(local**2 + context**2, whole**2, rtol=0, atol=1e-6)


def test_read_only() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Result(**parts()).scores = np.zeros(3, np.float32)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("scores", np.zeros(2, np.float32), r"Result\.scores must be \(3,\) float32\. Got \(2,\) float32\."),
        ("scores", np.zeros(3), r"Result\.scores must be \(3,\) float32\. Got \(3,\) float64\."),
        ("local_scores", np.zeros((3, 1), np.float32), r"Result\.local_scores must be \(3,\)"),
        ("context_scores", np.zeros(4, np.float32), r"Result\.context_scores must be \(3,\)"),
        ("patch_scores", np.zeros((3, 20), np.float32), r"Result\.patch_scores must be \(3, h, w\)"),
        ("patch_scores", np.zeros((3, 4, 4), np.float32), r"must be \(3, h, w\) as the others\. Got "),
        ("local_patches", np.zeros((2, 4, 5), np.float32), r"Result\.local_patches must be"),
        ("context_patches", np.zeros((3, 5, 4), np.float32), r"Result\.context_patches must be"),
        ("neighbours", np.zeros((3, 4), np.int64), r"Result\.neighbours must be"),
        ("sizes", ((4, 4),), r"Result\.sizes must have 3 entries\. Got 1\."),
        ("paths", ("a",), r"Result\.scores must be \(1,\)"),
        ("global_scores", np.zeros(2, np.float32), r"^Result\.global_scores must be \(3,\)\. Got \(2,\)\.$"),
        ("global_patches", np.zeros((2, 4, 5), np.float32), r"^Result\.global_patches must be \(3, 4, 5\)"),
    ],
)
def test_parts_that_do_not_fit(name: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Result(**{**parts(), name: value})


@pytest.mark.parametrize("scale", [0.2, 0.9, 1.0, 1.1, 1.5])
def test_regions_are_those_of_the_map_though_most_maps_are_not_drawn(scale: float) -> None:
    """Patch scores below the limit tell it without the map; scores around it, scores that are all alike, and single ones."""
    good = made_result(30, 0, "good")
    calibration = as_calibration(good, SEPARATE, np.full(30, -1), Settings())
    made = made_result(12, 1, "new")
    limit = float(calibration.peaks.max())
    grids = made.patch_scores * np.float32(limit * scale / made.patch_scores.max())
    grids[9], grids[10], grids[11] = limit * scale, limit, 0
    grids[11, 3, 4] = limit * scale * 3
    result = dataclasses.replace(made, patch_scores=grids.astype(np.float32), calibration=calibration)
    for i, values in enumerate(result.maps):
        found, expected = result.regions(i, 0.05), find_regions(values, result.pixel_threshold(0.05))
        assert [(one.box, one.area, one.peak) for one in found] == [(one.box, one.area, one.peak) for one in expected]


@pytest.mark.parametrize("expected", [None, 0, 1, 5, 11, 12, 30])
def test_batches_become_one_whatever_number_was_expected(expected: int | None) -> None:
    rng = np.random.default_rng(0)
    batches = []
    for first, count in ((0, 3), (3, 1), (4, 5), (9, 2)):
        names = tuple(str(i) for i in range(first, first + count))
        flat = [rng.random(count, np.float32) for _ in range(3)]
        grids = [rng.random((count, 2, 3), np.float32) for _ in range(3)]
        rows = rng.integers(0, 9, (count, 2, 3))
        pixels = np.empty((0, 0, 0, 3), np.uint8)
        batches.append((Batch(names, ((4, 4),) * count, pixels), (*flat, *grids, rows)))
    seen: list[int] = []
    result = gather_result(
        batches, Settings(resize=(32, 32), crop=None), total=expected, progress=lambda _, done, __: seen.append(done)
    )
    assert seen == [3, 4, 9, 11]
    assert result.paths == tuple(str(i) for i in range(11))
    found = (result.scores, result.local_scores, result.context_scores, result.patch_scores)
    found += (result.local_patches, result.context_patches, result.neighbours)
    for column, value in enumerate(found):
        expected_column = np.concatenate([arrays[column] for _, arrays in batches])
        assert value.dtype == expected_column.dtype
        np.testing.assert_array_equal(value, expected_column)
