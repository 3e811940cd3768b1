"""Made images and a small detector, for all tests. Nothing is downloaded anywhere."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from sapatchcore import SAPatchCore
from sapatchcore.model_file import Stored, read_model, write_model

UInt8 = npt.NDArray[np.uint8]

# A network with few channels, built in a fraction of a second; its weights are random, but the same every time.
SMALL: dict[str, Any] = {
    "backbone": "test_resnet",
    "weights": "random",
    "resize": 64,
    "crop": None,
    "batch_size": 4,
    "device": "cpu",
}

# The same for detectors that other processes load: the built-in network needs no timm, whose import takes each ten seconds.
LIGHT: dict[str, Any] = {**{name: value for name, value in SMALL.items() if name != "weights"}, "backbone": "builtin"}


def made_images(count: int, size: tuple[int, int] = (64, 64), seed: int = 0) -> UInt8:
    """(count, h, w, 3) uint8: a smooth texture, another one each image, with a little noise."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    images = np.empty((count, *size, 3), np.uint8)
    for image in images:
        phase = rng.uniform(0, 2 * np.pi, (2, 3))
        wave = np.sin(rows[..., None] / 6 + phase[0]) + np.sin(columns[..., None] / 9 + phase[1])
        image[:] = np.clip(128 + 40 * wave + rng.normal(0, 6, (*size, 3)), 0, 255)
    return images


def changed(path: Path, change: Callable[[Stored], object]) -> Path:
    """The model file with another content, whose checksum fits it."""
    stored = read_model(path)
    stored.header.pop("sha256", None)
    change(stored)
    write_model(path, stored)
    return path


def write_images(folder: Path, images: UInt8) -> Path:
    """``folder``, made, with ``images`` as PNG files, 00.png, 01.png, …"""
    folder.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small tensors gain nothing from threads, and several test runs may share the machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def small() -> dict[str, Any]:
    """Options of a small detector; a copy may be changed."""
    return dict(SMALL)


@pytest.fixture(scope="session")
def images() -> Callable[..., UInt8]:
    """``images(count, size, seed)``: textures, see ``made_images``."""
    return made_images


@pytest.fixture(scope="session")
def good() -> UInt8:
    """(10, 64, 64, 3) uint8 good images."""
    return made_images(10)


@pytest.fixture(scope="session")
def fitted(good: UInt8) -> SAPatchCore:
    """A detector that learned ``good``; not to be fitted again."""
    return SAPatchCore(**SMALL, coreset_ratio=0.1).fit(good)


@pytest.fixture(scope="session")
def light_fitted(good: UInt8) -> SAPatchCore:
    """A detector for processes of their own that learned ``good``; not to be fitted again."""
    return SAPatchCore(**LIGHT, coreset_ratio=0.1).fit(good)


@pytest.fixture
def image_folder(tmp_path: Path, good: UInt8) -> Path:
    """A folder with ``good`` as PNG files, 00.png to 09.png."""
    return write_images(tmp_path / "good", good)


@pytest.fixture(scope="session")
def run_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """``run_python(code, *arguments)``: a Python of its own, for what a process can do only once."""

    def run(code: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)

    return run


WriteImage = Callable[..., Path]


def _write_image(path: Path, value: int = 0, size: tuple[int, int] = (4, 6)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(size, value, np.uint8)).save(path)
    return path


@pytest.fixture
def write_image() -> WriteImage:
    """Writes a grey image of one value, (h, w) = (4, 6), and the folders above it."""
    return _write_image


@pytest.fixture
def write_tree() -> Callable[[Path, str], Path]:
    """Writes an image at each of the given relative paths (separated by spaces); returns the root."""

    def write(root: Path, paths: str) -> Path:
        for path in paths.split():
            _write_image(root / path)
        return root

    return write


SLOW = ("scale", "server", "benchmarks", "export", "records")  # folders, those that take longest first
# Of these, the ones whose tests share what takes long to start, a Ray cluster, servers, PyTorch's exporter: one process has
# all of a folder.
TOGETHER = frozenset(SLOW) - {"benchmarks"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The folders that take longest come first, so that no process has them alone at the end."""
    folders = [item.path.relative_to(Path(__file__).parent).parts[0] for item in items]
    order = sorted(range(len(items)), key=lambda i: SLOW.index(folders[i]) if folders[i] in SLOW else len(SLOW))
    items[:] = [items[i] for i in order]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Every process takes a file at a time, or one of the folders TOGETHER."""
    from xdist.scheduler import LoadFileScheduling

    class ByFolder(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            folder = file.removeprefix("tests/").partition("/")[0]
            return folder if folder in TOGETHER else file

    return ByFolder(config, log)
