"""The main job on real images, where a folder of them lies beside the checkout."""

from __future__ import annotations

from pathlib import Path

import pytest

from sapatchcore import SAPatchCore
from sapatchcore.datasets.folders import open_dataset
from sapatchcore.verify.evaluate import evaluate

DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.skipif(not DATA.is_dir(), reason="no real images: the folder ../shared/data is not there")
@pytest.mark.parametrize("attention", ["self", "none"])
def test_stains_on_hazelnuts_are_found_and_located(attention: str) -> None:
    """Coloured stains are so plain that random weights find them all; what fails here is the path, not the network."""
    dataset = open_dataset(DATA / "hazelnut_toy/hazelnut")
    detector = SAPatchCore(backbone="resnet18", weights="random", attention=attention)
    found = evaluate(detector.fit([sample.path for sample in dataset.train]), dataset)
    assert found.image_auroc > 0.95
    assert found.pixel.auroc > 0.9
    assert found.pixel.aupro > 0.6
    assert found.pixel.pixels == sum(h * w for h, w in found.result.sizes) * 224**2 // 256**2
    assert found.reasons == {}
