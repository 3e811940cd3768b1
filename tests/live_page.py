"""The page in a browser, on a real server of its own: what the page's tests share."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
uvicorn = pytest.importorskip("uvicorn", reason="the server's packages are not installed (extra: serve)")

from sapatchcore.records.record import NewRecord  # noqa: E402
from sapatchcore.records.records import Records  # noqa: E402
from sapatchcore.server.app import create_app  # noqa: E402
from sapatchcore.server.options import ServerOptions  # noqa: E402

CHROMIUM = Path("/usr/bin/chromium")
needs_chromium = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no Chromium at {CHROMIUM}")
CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
MODEL = "parts"
SLOW = 120_000  # ms that a step may take on a loaded machine


@contextmanager
def chromium(*arguments: str) -> Iterator[Any]:
    """Headless Chromium, started with ``arguments``."""
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu", *arguments]
        )
        yield found
        found.close()


@contextmanager
def running(options: ServerOptions) -> Iterator[str]:
    """A server on a free port of this machine, in a thread; its address."""
    server = uvicorn.Server(uvicorn.Config(create_app(options), host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 120
    while not server.started and thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.05)
    address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{address}/readyz", timeout=5).close()
            break
        except OSError:
            time.sleep(0.1)
    yield address
    server.should_exit = True
    thread.join(120)


@dataclass
class Watched:
    """A page, and all that it did which it should not."""

    page: Any
    address: str
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)  # parts of messages that a test provokes

    def check(self) -> None:
        """Nothing was asked of another machine, nothing failed, and the policy for content was kept."""
        mine = urlsplit(self.address).netloc
        urls = [urlsplit(url) for url in self.requests]
        assert {url.netloc for url in urls if url.scheme not in ("data", "blob")} <= {mine}
        assert [error for error in self.errors if not any(part in error for part in self.expected)] == []
        assert self.page.evaluate("() => window.violations ?? []") == []

    def open(self, view: str = "") -> None:
        """The page with its models; the policy's violations are noted from the first moment on."""
        self.page.goto(f"{self.address}/{view}")
        self.page.wait_for_selector("#model option", state="attached", timeout=SLOW)

    def inspect(self, *files: Path) -> None:
        """Choose image files, and wait for all their verdicts."""
        self.page.wait_for_selector("main.inspect")
        before = self.page.locator(".thumb").count()
        self.page.set_input_files("#files", [str(file) for file in files])
        self.finished(before + len(files))

    def finished(self, count: int) -> None:
        """Wait until so many images have a verdict, or a refusal."""
        self.page.wait_for_function(
            "count => document.querySelectorAll('.thumb.done, .thumb.failed').length >= count", arg=count, timeout=SLOW
        )

    def verdict(self) -> str:
        """What the band says: accept, reject, unknown, waiting or failed."""
        return str(self.page.locator(".band").get_attribute("data-verdict"))


@contextmanager
def watched(browser: Any, address: str, **options: Any) -> Iterator[Watched]:
    """A new browser context's page, checked when it closes; nothing but ``address`` can be reached."""
    options = {"viewport": {"width": 1280, "height": 800}, "locale": "en-GB", **options}
    context = browser.new_context(**options)
    page = context.new_page()
    page.set_default_timeout(SLOW)
    seen = Watched(page, address)
    page.on("request", lambda request: seen.requests.append(request.url))
    page.on("console", lambda said: seen.errors.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.add_init_script(
        "window.violations = [];"
        "addEventListener('securitypolicyviolation', e => window.violations.push(`${e.violatedDirective} ${e.blockedURI}`))"
    )
    page.route(
        "**/*", lambda route: route.continue_() if route.request.url.startswith((address, "blob:")) else route.abort()
    )
    yield seen
    seen.check()
    context.close()


def with_defect(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(h, w, 3) uint8: the image with a checked square that no good image has."""
    found = image.copy()
    rows, columns = np.mgrid[:20, :20]
    found[20:40, 24:44] = np.where((rows // 3 + columns // 3) % 2, 255, 0)[..., None]
    return found


def write_images(folder: Path, good: npt.NDArray[np.uint8]) -> dict[str, Path]:
    """Files "good 0" … and "bad 0" … of the good images (n, h, w, 3) uint8, by these names."""
    files = {}
    for number, image in enumerate(good):
        for kind, pixels in (("good", image), ("bad", with_defect(image))):
            files[f"{kind} {number}"] = folder / f"{kind}_{number}.png"
            Image.fromarray(pixels).save(files[f"{kind} {number}"])
    return files


def add_records(
    path: Path, model_hash: str, calibration: int, ranks: Sequence[int], labels: Sequence[str | None]
) -> None:
    """Earlier inspections: p-values ranks / (calibration + 1), and what people said of them; the two smallest are rejected."""
    records = Records(path)
    added = records.add([_record(number, rank, calibration, model_hash) for number, rank in enumerate(ranks)])
    for record, label in zip(added, labels, strict=True):
        if label is not None:
            records.feedback(record.number, label, "", "tester")
    records.close()


def _record(number: int, rank: int, calibration: int, model_hash: str) -> NewRecord:
    p_value = rank / (calibration + 1)
    rejected = rank <= 2
    return NewRecord(
        model=MODEL,
        model_hash=model_hash,
        image_hash=f"{number:064x}",
        file_name=f"tray_{number:04}.png",
        width=64,
        height=64,
        score=10.0 - p_value,
        p_value=p_value,
        threshold=9.0,
        false_reject=2 / (calibration + 1),
        verdict="reject" if rejected else "accept",
        kind=("local", "co-occurrence")[number % 2] if rejected else None,
        local=6.0,
        context=8.0,
        global_score=None,
        notes=None,
        product=None,
        source="watch",
    )
