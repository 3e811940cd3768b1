"""Pillow's LANCZOS in the graph: the same bytes, for any size, in PyTorch and in both runtimes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sapatchcore.data.pixels import crop_box, prepare

torch = pytest.importorskip("torch")

from sapatchcore.export.resample import Lanczos  # noqa: E402 - needs torch

TOGETHER = 16
Run = Callable[[Any], Any]


def noise(height: int, width: int, seed: int) -> Any:
    """Random bytes; every other one black and white alone, whose sums leave 0 … 255."""
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return image if seed % 2 else (image > 127).astype(np.uint8) * np.uint8(255)


def pillows(pixels: int, resized: int, places: range) -> Any:
    """Pillow's integer coefficients, as src/libImaging/Resample.c computes them: (places, pixels) float64."""
    scale = pixels / resized
    wide = max(scale, 1.0)
    matrix = np.zeros((len(places), pixels))
    for row, place in enumerate(places):
        centre = (place + 0.5) * scale
        low, high = max(int(centre - 3 * wide + 0.5), 0), min(int(centre + 3 * wide + 0.5), pixels)
        t = (np.arange(low, high) - centre + 0.5) / wide
        weight = np.where((t >= -3) & (t < 3), np.sinc(t) * np.sinc(t / 3), 0)
        weight /= weight.sum()
        matrix[row, low:high] = np.trunc(weight * 2**22 + np.where(weight < 0, -0.5, 0.5))
    return matrix


@pytest.mark.parametrize("seed", range(40))
def test_coefficients_are_pillows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    resized = int(rng.choice([32, 64, 256, 256, 320, 512]))
    pixels = int(rng.integers(1, 3500)) if seed % 8 else resized
    cropped = int(rng.integers(32, resized + 1))
    start = round((resized - cropped) / 2)
    graph = Lanczos((resized, resized), (start, start, cropped, cropped))
    window, weights = graph._coefficients(pixels, resized, start, cropped)
    dense = torch.zeros(len(weights), TOGETHER, pixels)
    dense.scatter_add_(2, window[:, None, :].expand_as(weights), weights)
    np.testing.assert_array_equal(
        dense.flatten(0, 1)[:cropped].numpy(), pillows(pixels, resized, range(start, start + cropped))
    )


@pytest.mark.parametrize("seed", range(30))
def test_pixels_are_pillows(seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    resize = tuple(int(side) for side in rng.choice([32, 64, 128, 256, 300], 2))
    crop = tuple(int(rng.integers(32, side + 1)) for side in resize) if seed % 3 else None
    height, width = (int(side) for side in rng.integers(1, 1500, 2))
    height, width = (resize[0] if seed % 5 == 0 else height), (resize[1] if seed % 4 == 0 else width)
    image = noise(height, width, seed)
    found = Lanczos(resize, crop_box(resize, crop))(torch.from_numpy(image)[None])[0].numpy()
    np.testing.assert_array_equal(found, prepare(image, resize, crop))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The step alone as an ONNX file: 256 × 256, crop 224."""
    for needed in ("onnx", "onnxscript"):
        pytest.importorskip(needed, reason=f"{needed} is not installed: install the extra export")
    path = tmp_path_factory.mktemp("resample") / "resample.onnx"
    free = {0: torch.export.Dim("n"), 1: torch.export.Dim("h"), 2: torch.export.Dim("w")}
    graph = Lanczos((256, 256), crop_box((256, 256), (224, 224)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.eval(),
            (torch.zeros(2, 97, 89, 3, dtype=torch.uint8),),
            dynamo=True,
            opset_version=18,
            input_names=["images"],
            dynamic_shapes={"images": free},
            verbose=False,
        ).save(path)
    return path


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def runtime(request: pytest.FixtureRequest, file: Path) -> Run:
    package = pytest.importorskip(request.param, reason=f"{request.param} is not installed")
    if request.param == "onnxruntime":
        session = package.InferenceSession(file, providers=["CPUExecutionProvider"])
        return lambda images: session.run(None, {"images": images})[0]
    core = package.Core()
    model = core.compile_model(core.read_model(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: np.array(model({"images": images})[0])


@pytest.mark.parametrize(
    "size",
    [
        (1, 1),
        (3, 700),
        (700, 3),
        (32, 32),
        (256, 256),
        (256, 300),
        (300, 256),
        (333, 217),
        (1024, 768),
        (1999, 2901),
        (3000, 41),
    ],
)
def test_runtimes_give_pillows_pixels(runtime: Run, size: tuple[int, int]) -> None:
    images = np.stack([noise(*size, seed) for seed in (1, 2)])
    expected = np.stack([prepare(image, (256, 256), (224, 224)) for image in images])
    np.testing.assert_array_equal(runtime(images), expected)
