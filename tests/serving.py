"""An inspection server in the test's own process, and images for it."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from fastapi.testclient import TestClient
from PIL import Image

from sapatchcore.server.app import create_app
from sapatchcore.server.options import ServerOptions
from sapatchcore.server.service import Service

HOME = "http://127.0.0.1:8000"
INSPECT = "/v1/models/part/inspect"
PNG = {"Content-Type": "image/png"}


def encoded(image: npt.NDArray[np.uint8], kind: str = "PNG") -> bytes:
    """The image as a file's bytes."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return file.getvalue()


def post(client: TestClient, content: bytes, **query: Any) -> Any:
    """The answer to one image as the body."""
    return client.post(INSPECT, content=content, headers=PNG, params=query)


def inspect(client: TestClient, *files: bytes, name: str = "part", **query: Any) -> Any:
    """What the server says of images in one form."""
    parts = [("images", (f"{at}.png", content, "image/png")) for at, content in enumerate(files)]
    answer = client.post(f"/v1/models/{name}/inspect", files=parts, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(answer: Any, status: int, words: str = "") -> None:
    """It must be refused with this status, and a sentence that holds these words."""
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    assert words in answer.json()["error"]


@contextmanager
def serving(models: Path, **options: Any) -> Iterator[TestClient]:
    """A started server; ``client.app.state.service`` are its parts."""
    options = {"records": models.parent / "records.sqlite", **options}
    app = create_app(ServerOptions(models=models, **options))
    with TestClient(app, base_url=HOME, raise_server_exceptions=False) as client:
        until(lambda: app.state.service.folder.looked)
        yield client


def service_of(client: TestClient) -> Service:
    """The running server's parts."""
    found: Service = client.app.state.service  # type: ignore[attr-defined]
    return found


def until(true: Callable[[], Any], seconds: float = 120.0, every: float = 0.01) -> None:
    """Wait until ``true()``, asked ``every`` so many seconds; fail after ``seconds``."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "It did not come about in time."
        time.sleep(every)


class Held:
    """In a detector's place: waits for ``go`` before each batch, and notes the batches' sizes."""

    def __init__(self, detector: Any, go: Any) -> None:
        self._detector, self._go = detector, go
        self.batches: list[int] = []
        self.reached = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._detector, name)

    def score(self, batch: Any) -> Any:
        self.reached += 1
        assert self._go.wait(120)
        self.batches.append(len(batch.names))
        return self._detector.score(batch)


def hold(client: TestClient, name: str, go: Any) -> Held:
    """Let the model ``name`` wait for ``go``, a threading.Event."""
    served = service_of(client).model(name)
    held = Held(served.detector, go)
    object.__setattr__(served, "detector", held)
    return held
