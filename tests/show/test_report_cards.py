"""A report's pictures: cut-outs, boxes, where the context comes from, one scale for all."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sapatchcore.data.sources import read_image
from sapatchcore.result import Result
from sapatchcore.show.report_cards import SMALL, Picture, Scales, boxed, cut_out, drawn_over, panels


@pytest.mark.parametrize("cell", [(0, 0), (7, 7), (3, 4), (0, 7)])
def test_cut_out_holds_its_patch(cell: tuple[int, int]) -> None:
    picture = np.zeros((80, 64, 3), np.uint8)
    box = (cell[0] / 8, cell[1] / 8, 1 / 8, 1 / 8)
    picture[cell[0] * 10 : cell[0] * 10 + 10, cell[1] * 8 : cell[1] * 8 + 8] = 255
    found = cut_out(picture, box)
    assert found.shape == (SMALL, SMALL, 3)
    white = (found > 200).all(2)
    # One of 7 cells a side, but for the blurred rim.
    assert white.sum() == pytest.approx((SMALL / 7) ** 2, rel=0.35)


def test_box_lies_around_its_cell() -> None:
    picture = np.full((144, 144, 3), 90, np.uint8)
    found = boxed(picture, (0.5, 0.25, 0.125, 0.125), 144)
    changed = (found != 90).any(2)
    assert not changed[72:90, 36:54].any()
    rows, columns = np.nonzero(changed)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (69, 92, 33, 56)


def test_context_is_where_the_shares_are() -> None:
    seen = np.full((64, 64, 3), 128, np.uint8)
    shares = np.full((4, 4), -0.1, np.float32)
    shares[0, 3] = 3
    found, largest = drawn_over(seen, shares, (0.75, 0.0, 0.125, 0.125))
    assert largest == pytest.approx(3 / 1.5)
    colour = np.ptp(found.astype(int), axis=2)
    assert colour[10, -10] > 50
    assert colour[:40, :40].max() == 0
    assert drawn_over(seen, np.zeros((4, 4), np.float32), (0, 0, 0.125, 0.125))[1] == 0


def test_scales_are_one_for_all(made: Any) -> None:
    found = Scales.of(made.evaluation.result, None)
    assert found.whole.threshold == pytest.approx(made.evaluation.result.pixel_threshold())
    assert found.local.high == pytest.approx(float(made.evaluation.result.local_patches.max()))
    captions = ["local part in scores", "context part in scores", "global part in shares of global score²"]
    assert [caption for caption, _, _ in found.ramps()] == captions
    assert found.ramps()[2][1:] == ("0", f"{made.evaluation.result.global_patches.max():.4g}")
    assert "pixel threshold" in found.legend().alt
    assert [caption for caption, _, _ in Scales.of(without_global(made), None).ramps()] == captions[:2]


def without_global(made: Any) -> Result:
    """The result as of a model without a global part."""
    found: Result = replace(made.evaluation.result, global_scores=None, global_patches=None)
    return found


def pixels(picture: Picture) -> np.ndarray:
    content = base64.b64decode(picture.source.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def test_the_global_part_is_heat_where_places_add_to_it(made: Any) -> None:
    result, sample = made.evaluation.result, made.dataset.test[0]
    shares = np.zeros_like(result.global_patches)
    shares[0, :4, :4], shares[0, 4:, 4:] = 2, -8  # what lessens it stays clear, however much that is
    result = replace(result, global_patches=shares)
    image = read_image(sample.path)
    found = panels(result, 0, sample, image, Scales.of(result, None), None)
    assert [one.caption for one in found] == ["image", "anomaly map", "local part", "context part", "global part"]
    colour = np.ptp(pixels(found[4]), axis=2)
    height, width = colour.shape
    assert colour[: height // 4, : width // 4].min() > 50
    assert colour[height * 5 // 8 :, width * 5 // 8 :].max() < 12  # grey, but for the compression
    assert len(panels(without_global(made), 0, sample, image, Scales.of(without_global(made), None), None)) == 4
