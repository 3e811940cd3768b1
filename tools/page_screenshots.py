"""Take the README's screenshots of the page as it is: `python tools/page_screenshots.py` writes docs/page-*.png.

Everything in them is real: made screws, a model fitted on some of them with the built-in backbone, `sapatchcore serve`, and
some hundred inspections through the API, the last of them by a camera that was knocked and stands nearer. Needs the extras
learn and serve, httpx, playwright and Debian's chromium; takes some minutes.
"""

from __future__ import annotations

import argparse
import io
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

DOCS = Path(__file__).parent.parent / "docs"
CHROMIUM = "/usr/bin/chromium"
MODEL, SIDE, RATE, NEARER = "screws", 350, 0.02, 1.15
MOST_BYTES = 200_000  # of one picture
KINDS = ("lacking", "paint", "over-coupling")
COMMAND = [sys.executable, "-c", "from sapatchcore.cli import main; main()"]


def sapatchcore(*arguments: str | Path) -> None:
    """One command of the package. Raises CalledProcessError where it fails."""
    subprocess.run([*COMMAND, *map(str, arguments)], check=True)


def fit(folder: Path) -> Path:
    """Made screws below ``folder``, and a model of half of the good ones, calibrated with the other half; the models' folder."""
    sapatchcore("synth", "screws", folder / MODEL, "--side", str(SIDE), "--train", "320", "--test", "120", "-q")
    good = sorted((folder / MODEL / "train" / "good").iterdir())
    for half, name in ((good[::2], "learn"), (good[1::2], "calibrate")):
        (folder / name).mkdir()
        for path in half:
            path.rename(folder / name / path.name)
    model = folder / "models" / f"{MODEL}.safetensors"
    model.parent.mkdir()
    sapatchcore(
        *("fit", folder / "learn", "-o", model, "--backbone", "builtin", "--preset", "recommended"),
        *("--calibrate", folder / "calibrate", "-q"),
    )
    return model.parent


@contextmanager
def served(models: Path, records: Path) -> Iterator[str]:
    """`sapatchcore serve` on a free port; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--records", str(records), "--port", str(port), "--keep-images", "all", "--false-reject", str(RATE)]
    server = subprocess.Popen([*COMMAND, "serve", str(models), *options])
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{address}/readyz", timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        yield address
    finally:
        server.terminate()
        server.wait(60)


def png(path: Path, nearer: float) -> bytes:
    """The image as a PNG file, seen from so much nearer: 1.05 shows its parts 5 % larger."""
    image = Image.open(path).convert("RGB")
    edge = round(image.width * (1 - 1 / nearer) / 2)
    out = io.BytesIO()
    image.crop((edge, edge, image.width - edge, image.height - edge)).resize(image.size).save(out, "PNG")
    return out.getvalue()


def inspect_a_shift(address: str, test: Path) -> None:
    """A shift's parts: mostly good ones, some defects, the rejected ones looked at by hand; then the camera was knocked."""
    good = [(path, "good", 1.0) for path in sorted((test / "good").iterdir())]
    bad = [(path, "defect", 1.0) for kind in KINDS for path in sorted((test / kind).iterdir())[10:18]]
    order = np.random.default_rng(0).permutation(len(good) + len(bad))
    parts = [(good + bad)[index] for index in order] + [(path, "good", NEARER) for path, _, _ in good]
    with httpx.Client(base_url=f"{address}/v1/models/{MODEL}", timeout=60) as client:
        for number, (path, truth, nearer) in enumerate(parts):
            image = ("images", (f"screw_{number:04}.png", png(path, nearer), "image/png"))
            (found,) = client.post("/inspect?keep=true", files=[image]).raise_for_status().json()["results"]
            if number < len(order) and (found["verdict"] == "reject" or truth == "defect"):
                client.post("/feedback", json={"record": found["record"], "label": truth}).raise_for_status()


def shoot(page: Page, name: str) -> None:
    """The page as docs/page-<name>.png, in 256 colours, and as much smaller as the limit asks for."""
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    for percent in (100, 85, 75, 65, 55):
        small = shot.resize((shot.width * percent // 100, shot.height * percent // 100), Image.Resampling.LANCZOS)
        out = io.BytesIO()
        small.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1).save(out, "PNG", optimize=True)
        if out.tell() <= MOST_BYTES:
            break
    (DOCS / f"page-{name}.png").write_bytes(out.getvalue())
    print(f"page-{name}.png: {small.width} × {small.height}, {out.tell() / 1000:.0f} kB")


def open_page(browser: Any, address: str, width: int, height: int, **options: Any) -> Page:
    page = browser.new_context(viewport={"width": width, "height": height}, **options).new_page()
    page.goto(address)
    page.wait_for_selector("#model option", state="attached")
    return page


def inspected(page: Page, paths: list[Path]) -> None:
    page.set_input_files("#files", [str(path) for path in paths])
    page.wait_for_function(
        "count => document.querySelectorAll('.thumb.done').length >= count", arg=len(paths), timeout=120_000
    )


def first_shots(browser: Any, address: str, test: Path) -> None:
    """The inspector's view, before there is a history."""
    parts = [
        *sorted((test / "good").iterdir())[:4],
        *(path for kind in KINDS[:2] for path in sorted((test / kind).iterdir())[:3]),
    ]
    page = open_page(browser, address, 1280, 800, locale="en-GB")
    inspected(page, parts)
    page.keyboard.press("End")
    for _ in parts:  # the first rejected one with a region
        page.keyboard.press("n")
        page.wait_for_timeout(300)
        if page.locator("rect.line.region").count():
            break
    page.wait_for_timeout(500)
    shoot(page, "reject")
    page = open_page(browser, address, 1024, 600, locale="vi-VN", color_scheme="dark")
    inspected(page, parts[:4])
    page.keyboard.press("Home")
    page.wait_for_timeout(500)
    shoot(page, "panel-vi")


def later_shots(browser: Any, address: str) -> None:
    """The engineer's views of the shift."""
    page = open_page(browser, address, 1280, 800, locale="en-GB")
    page.keyboard.press("r")
    page.wait_for_selector(".counts")
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(500)
    shoot(page, "rate")
    page.keyboard.press("h")
    page.wait_for_selector("tr[data-record]")
    page.select_option("[data-filter=verdict]", "reject")
    page.wait_for_timeout(1000)
    shoot(page, "history")
    page.set_viewport_size({"width": 1280, "height": 1040})
    page.keyboard.press("t")
    page.wait_for_selector("line-chart canvas")
    page.wait_for_timeout(500)
    shoot(page, "drift")
    page.set_viewport_size({"width": 1280, "height": 800})
    page.keyboard.press("l")
    page.wait_for_selector(".pool kept-image img")
    page.locator("[data-preview]").click()
    page.wait_for_selector("[data-preview-of]", timeout=300_000)
    page.evaluate("window.scrollTo(0, document.querySelector('.pool li:last-child').offsetTop - 12)")
    page.wait_for_timeout(500)
    shoot(page, "learn")


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as driver:
        folder = Path(scratch)
        models, test = fit(folder), folder / MODEL / "test"
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        with served(models, folder / "records.sqlite") as address:
            first_shots(browser, address, test)
            inspect_a_shift(address, test)
            time.sleep(5)  # until the drift's watch has seen them
            later_shots(browser, address)
        browser.close()


if __name__ == "__main__":
    main()
