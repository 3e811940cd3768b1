"""Step 1 of the paper as far as pixels stay pixels, against torchvision, which the authors use."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms

from sapatchcore.data.transform import crop_box, prepare
from sapatchcore.errors import DataError, SettingsError


def _noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_tall_image_too_is_resized_along_its_rows_first() -> None:
    """Pillow 13 takes the cheaper order: with it, another version would see other pixels."""
    image = _noise(700, 200)
    across = Image.fromarray(image).resize((64, 700), Image.Resampling.LANCZOS)
    expected = np.asarray(across.resize((64, 128), Image.Resampling.LANCZOS))
    assert np.array_equal(prepare(image, (128, 64), None), expected)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_crop_box_is_torchvisions(height: int, width: int, data: st.DataObject) -> None:
    crop = (data.draw(st.integers(1, height)), data.draw(st.integers(1, width)))
    top, left, *size = crop_box((height, width), crop)
    image = torch.arange(height * width).view(1, height, width)
    theirs = transforms.CenterCrop(crop)(image)
    assert torch.equal(image[:, top : top + size[0], left : left + size[1]], theirs)


def test_crop_box_by_hand() -> None:
    assert crop_box((256, 256), (224, 224)) == (16, 16, 224, 224)
    assert crop_box((10, 20), None) == (0, 0, 10, 20)
    # 0.5 rounds to 0 and 1.5 to 2, as in torchvision.
    assert crop_box((5, 7), (4, 4)) == (0, 2, 4, 4)


def test_an_image_of_the_right_size_keeps_its_pixels() -> None:
    image = _noise(32, 48)
    assert np.array_equal(prepare(image, (32, 48), None), image)
    unchanged = np.asarray(Image.fromarray(image).resize((48, 32), Image.Resampling.LANCZOS))
    assert np.array_equal(prepare(image, (32, 48), None), unchanged)
    cropped = prepare(image, (32, 48), (30, 40))
    assert np.array_equal(cropped, image[1:31, 4:44])
    assert cropped.flags.c_contiguous


def test_height_comes_first() -> None:
    assert prepare(_noise(9, 7), (20, 30), None).shape == (20, 30, 3)
    assert prepare(_noise(9, 7), (20, 30), (18, 10)).shape == (18, 10, 3)


@pytest.mark.filterwarnings("error")
def test_torch_takes_the_memory_without_a_warning() -> None:
    torch.from_numpy(prepare(_noise(9, 7), (4, 4), None))


def test_wrong_input_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"crop must not be larger.*\(9, 4\).*\(8, 8\)"):
        prepare(_noise(9, 9), (8, 8), (9, 4))
    with pytest.raises(DataError, match=r"Got shape \(4, 4\), uint8"):
        prepare(np.zeros((4, 4), np.uint8), (8, 8), None)
    with pytest.raises(DataError, match=r"\(4, 4, 3\), float64"):
        prepare(np.zeros((4, 4, 3)), (8, 8), None)
