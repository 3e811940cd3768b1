"""Step 1 of the paper against torchvision, which the authors use."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms

from sapatchcore.data.transform import IMAGENET_MEAN, IMAGENET_STD, crop_box, normalise, prepare
from sapatchcore.errors import DataError, SettingsError


def _noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(256, 256), (300, 200), (100, 511), (700, 700)])
def test_equals_the_authors_transform(size: tuple[int, int]) -> None:
    image = _noise(*size)
    theirs = transforms.Compose(
        [
            transforms.Resize((256, 256), interpolation=Image.Resampling.LANCZOS),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )(Image.fromarray(image))
    ours = normalise(torch.from_numpy(prepare(image, (256, 256), (224, 224))[None]))
    assert ours.shape == (1, 3, 224, 224)
    assert ours.dtype == torch.float32
    assert ours.is_contiguous()
    torch.testing.assert_close(ours[0], theirs, rtol=0, atol=1e-6)


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


def test_normalise_by_hand_and_with_the_backbones_own_numbers() -> None:
    batch = torch.tensor([0, 255, 51], dtype=torch.uint8).view(1, 1, 1, 3)
    expected = [(0 - 0.485) / 0.229, (1 - 0.456) / 0.224, (0.2 - 0.406) / 0.225]
    assert normalise(batch).flatten().tolist() == pytest.approx(expected, abs=1e-6)
    own = normalise(batch, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    assert own.flatten().tolist() == pytest.approx([-1, 1, -0.6], abs=1e-6)
    assert batch.flatten().tolist() == [0, 255, 51]


def test_wrong_input_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"crop must not be larger.*\(9, 4\).*\(8, 8\)"):
        prepare(_noise(9, 9), (8, 8), (9, 4))
    with pytest.raises(DataError, match=r"Got shape \(4, 4\), uint8"):
        prepare(np.zeros((4, 4), np.uint8), (8, 8), None)
    with pytest.raises(DataError, match=r"\(4, 4, 3\), float64"):
        prepare(np.zeros((4, 4, 3)), (8, 8), None)
    with pytest.raises(DataError, match=r"Got shape \(1, 4, 4, 3\), torch\.float32"):
        normalise(torch.zeros(1, 4, 4, 3))
    with pytest.raises(DataError, match=r"\(1, 3, 4, 4\)"):
        normalise(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))
