"""All of step 1 against torchvision, which the authors use; normalising by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from sapatchcore.data.pixels import prepare
from sapatchcore.embed.backbone import IMAGENET_MEAN, IMAGENET_STD, normalise
from sapatchcore.errors import DataError


@pytest.mark.parametrize("size", [(256, 256), (200, 300), (100, 511), (700, 700)])
def test_equals_the_authors_transform(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
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


def test_normalise_by_hand_and_with_the_backbones_own_numbers() -> None:
    batch = torch.tensor([0, 255, 51], dtype=torch.uint8).view(1, 1, 1, 3)
    expected = [(0 - 0.485) / 0.229, (1 - 0.456) / 0.224, (0.2 - 0.406) / 0.225]
    assert normalise(batch).flatten().tolist() == pytest.approx(expected, abs=1e-6)
    own = normalise(batch, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    assert own.flatten().tolist() == pytest.approx([-1, 1, -0.6], abs=1e-6)
    assert batch.flatten().tolist() == [0, 255, 51]


def test_wrong_input_is_refused() -> None:
    with pytest.raises(DataError, match=r"Got shape \(1, 4, 4, 3\), torch\.float32"):
        normalise(torch.zeros(1, 4, 4, 3))
    with pytest.raises(DataError, match=r"\(1, 3, 4, 4\)"):
        normalise(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))
