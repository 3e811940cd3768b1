"""A model of several networks in service: inspected, explained, and taught what an operator called good."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SMALL, made_images
from serving import encoded, inspect, service_of, serving

from sapatchcore import SAPatchCore


@pytest.fixture(scope="module")
def pair() -> SAPatchCore:
    """Not to be changed."""
    names = "test_resnet+test_efficientnet"
    return SAPatchCore(**{**SMALL, "backbone": names}, coreset_ratio=0.1, global_part="pooled").fit(made_images(10))


def test_it_is_inspected_and_learns(pair: SAPatchCore, images: Any, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    pair.save(tmp_path / "models/part.safetensors")
    new = np.clip(images(2, seed=31).astype(int) + 60, 0, 255).astype(np.uint8)
    expected = pair.predict(new)
    with serving(tmp_path / "models", keep_images="all") as client:
        answer = inspect(client, *map(encoded, new), map="grey", explain=True)
        for index, found in enumerate(answer["results"]):
            assert found["score"] == pytest.approx(float(expected.scores[index]), rel=1e-5)
            assert found["global_score"] == pytest.approx(float(expected.global_scores[index]), rel=1e-5)
            assert found["maps"]["whole"]
            assert found["explanation"]["causes"][0]["network"] in ("test_resnet", "test_efficientnet")
        numbers = [found["record"] for found in answer["results"]]
        for number in numbers:
            client.post("/v1/models/part/feedback", json={"record": number, "label": "good"})
        seen = client.post("/v1/models/part/update/preview", json={"records": numbers}).json()
        grown = SAPatchCore.load(tmp_path / "models/part.safetensors").update(list(new))
        assert (seen["images_added"], seen["rows_before"], seen["rows_after"]) == (2, pair.rows, grown.rows)
        assert seen["threshold_after"] == grown.threshold(1 / 11)
        updated = client.post("/v1/models/part/update", json={"preview": seen["preview"]})
        assert updated.status_code == 200, updated.text
        entry = service_of(client).folder.find("part")
        assert entry is not None
        assert entry.served is not None
        assert len(entry.served.learner.provenance[0]) == 12
