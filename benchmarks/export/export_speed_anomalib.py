"""The opponent of export_speed.py: anomalib's PatchCore, exported and run by anomalib's own code, in anomalib's own environment.

``build`` exports; ``serve`` runs what it is asked for: a line of JSON in, {"name": …, "runs": …}, a line out, {"seconds": […]}.
Nothing of sapatchcore is imported here.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

LAYERS = ("layer2", "layer3")
RAW, SEEN, INT8 = "raw image", "network input", "network input, int8"  # the exports, and the folders they lie in
FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}


def build(folder: Path, backbone: str, rows: int) -> None:
    """Three OpenVINO files below ``folder``. raw.npy: (k, h, w, 3) uint8. seen.npy: (k, 3, 224, 224) float32, normalised."""
    import torch
    from anomalib.deploy import CompressionType
    from anomalib.models import Patchcore
    from anomalib.pre_processing import PreProcessor

    raw, seen = np.load(folder / "raw.npy"), torch.from_numpy(np.load(folder / "seen.npy"))
    torch.manual_seed(0)
    whole = Patchcore.configure_pre_processor(image_size=(256, 256), center_crop_size=tuple(seen.shape[2:]))
    model = Patchcore(
        backbone=backbone, layers=LAYERS, pre_trained=False, pre_processor=whole, evaluator=False, visualizer=False
    )
    model.eval()
    model.model.memory_bank = _memory_bank(model.model, seen.shape[2], rows)
    # Without this option the file takes only two images at a time.
    options: dict[str, Any] = {"onnx_kwargs": {"dynamic_axes": {}}}
    model.to_openvino(folder / RAW, input_size=raw.shape[1:3], **options)
    model.pre_processor = PreProcessor(transform=None)
    model.to_openvino(folder / SEEN, input_size=tuple(seen.shape[2:]), **options)
    options |= {"compression_type": CompressionType.INT8_PTQ, "datamodule": _Images(seen)}
    model.to_openvino(folder / INT8, input_size=tuple(seen.shape[2:]), **options)


def _memory_bank(model: Any, size: int, rows: int) -> Any:
    """(rows, d) features of random images: choosing them well would change no time."""
    import torch

    model.train()
    model.feature_extractor.eval()  # frozen, as in training
    with torch.no_grad():
        patches = torch.cat([model(torch.randn(1, 3, size, size)) for _ in range(4)])
    model.embedding_store.clear()
    model.eval()
    return patches[torch.randperm(len(patches))[:rows]].contiguous()


class _Images:
    """As much of a datamodule as its quantisation asks for."""

    train_batch_size = 1

    def __init__(self, images: Any) -> None:
        self._images = images

    def setup(self, stage: str) -> None:
        """Nothing is left to do."""

    def val_dataloader(self) -> Any:
        import torch

        return torch.utils.data.DataLoader([{"image": image} for image in self._images], batch_size=1)


def variants(folder: Path) -> dict[str, Callable[[int], object]]:
    """What can be asked for by name; each takes the number of an image."""
    from anomalib.deploy import OpenVINOInferencer

    raw, seen = np.load(folder / "raw.npy"), np.load(folder / "seen.npy")

    def inferencer(name: str, precision: dict[str, str] | None) -> Any:
        file = folder / name / "weights" / "openvino" / "model.xml"
        return OpenVINOInferencer(file, device="CPU" if precision else "AUTO", config=precision)

    def graph(name: str, precision: dict[str, str] | None) -> Callable[[int], object]:
        one = inferencer(name, precision)
        return lambda k: one.model({one.input_blob.any_name: seen[k : k + 1]})

    def predict(precision: dict[str, str] | None) -> Callable[[int], object]:
        one = inferencer(RAW, precision)
        return lambda k: one.predict(raw[k])

    return {
        "graph, float32": graph(SEEN, FLOAT32),
        "graph, default": graph(SEEN, None),
        "graph, int8": graph(INT8, FLOAT32),
        "predict, float32": predict(FLOAT32),
        "predict, default": predict(None),
    }


def serve(folder: Path) -> None:
    """Answers until the input ends."""
    # What the libraries print goes to the error output: the answers have a channel of their own.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        ready = variants(folder)
        packages = ("anomalib", "openvino", "torch")
        hello = {"variants": list(ready), "versions": {name: version(name) for name in packages}}
        print(json.dumps(hello), file=answers, flush=True)
        for line in sys.stdin:
            asked = json.loads(line)
            seconds = []
            for k in range(asked["runs"]):
                begin = time.perf_counter()
                ready[asked["name"]](k)
                seconds.append(time.perf_counter() - begin)
            print(json.dumps({"seconds": seconds}), file=answers, flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "build":
        build(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
    else:
        serve(Path(sys.argv[2]))
