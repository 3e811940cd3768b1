"""Servers with one small model, in the tests' own process, for all tests of the server; and the page's browser."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from serving import encoded, serving

from sapatchcore import SAPatchCore
from sapatchcore.server.tokens import make_token


@pytest.fixture(scope="session")
def folder(fitted: SAPatchCore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one model, "part"; not to be changed."""
    models = tmp_path_factory.mktemp("served") / "models"
    models.mkdir()
    fitted.save(models / "part.safetensors")
    return models


@pytest.fixture(scope="session")
def whole_fitted(good: Any, small: dict[str, Any]) -> SAPatchCore:
    """A detector with a global part that learned ``good``; not to be fitted again."""
    return SAPatchCore(**small, coreset_ratio=0.1, global_part="pooled").fit(good)


@pytest.fixture(scope="session")
def client(folder: Path) -> Iterator[TestClient]:
    """A server that keeps all images."""
    with serving(folder, keep_images="all") as found:
        yield found


@pytest.fixture(scope="session")
def limited(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A server with small limits."""
    records = tmp_path_factory.mktemp("limited") / "r.sqlite"
    with serving(folder, records=records, max_bytes=200_000, max_pixels=10_000, max_images=4) as found:
        yield found


@pytest.fixture(scope="session")
def guarded(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[TestClient, dict[str, str], Path]]:
    """A server with tokens: the client, a token for each role, and their file."""
    file = tmp_path_factory.mktemp("tokens") / "tokens.yaml"
    tokens = {role: make_token(f"the-{role}", role, file) for role in ("inspect", "feedback", "admin")}
    with serving(folder, records=file.parent / "r.sqlite", tokens=file, host="0.0.0.0") as found:
        yield found, tokens, file


@pytest.fixture
def fresh(fitted: SAPatchCore, tmp_path: Path) -> Iterator[TestClient]:
    """A server of the test's own, whose model may be changed."""
    (tmp_path / "models").mkdir()
    fitted.save(tmp_path / "models/part.safetensors")
    with serving(tmp_path / "models", keep_images="all") as found:
        yield found


@pytest.fixture(scope="session")
def part(good: Any) -> bytes:
    """A good image as a PNG file."""
    return encoded(good[0])


@pytest.fixture(scope="session")
def bad(images: Any) -> Any:
    """An image that is rejected: good but for a square of noise."""
    image = images(1, seed=4)[0].copy()
    image[10:40, 20:50] = np.random.default_rng(0).integers(0, 256, (30, 30, 3))
    return image


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Clients that wait for their answers side by side."""
    with ThreadPoolExecutor(32) as pool:
        yield pool


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium with a made camera. One a module: while Playwright runs, no other event loop can."""
    from live_page import CAMERA, chromium

    with chromium(*CAMERA) as found:
        yield found
