"""The two runtimes behind one call: images in, outputs by name out. On the CPU, in float32.

No PyTorch here: this is what runs on the line.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sapatchcore.errors import ModelFileError, SAPatchCoreError, install
from sapatchcore.export.metadata import INPUT, METADATA

UInt8Array = npt.NDArray[np.uint8]
Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Session:
    """A loaded model.

    run: (n, h, w, 3) uint8 → its outputs by name. metadata: the JSON text in it, or None. runtime: "onnxruntime 1.32.0".
    """

    run: Callable[[UInt8Array], Arrays]
    metadata: str | None
    runtime: str


def onnx_session(name: str, content: bytes, *, threads: int | None, outputs: Sequence[str] | None = None) -> Session:
    """ONNX Runtime's.

    name: what messages call the file. threads: None for all cores. outputs: those to compute, of which the file may lack some;
    None for all.

    Raises SAPatchCoreError without the package; ModelFileError where the runtime refuses the file.
    """
    onnxruntime = _package("onnxruntime", f"An ONNX file needs onnxruntime: {install('edge')}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common class
        raise ModelFileError(f"{name} cannot be loaded by ONNX Runtime: {_reason(error)}") from None
    there = [one.name for one in session.get_outputs()]
    wanted = there if outputs is None else [one for one in outputs if one in there]

    def run(images: UInt8Array) -> Arrays:
        return dict(zip(wanted, session.run(wanted, {INPUT: images}), strict=True))

    metadata = session.get_modelmeta().custom_metadata_map.get(METADATA)
    return Session(run, metadata, f"onnxruntime {onnxruntime.__version__}")


def openvino_session(
    name: str, content: bytes, weights: bytes, *, threads: int | None, outputs: Sequence[str] | None = None
) -> Session:
    """OpenVINO's; content and weights: of the .xml and the .bin. All else as of ``onnx_session``."""
    openvino = _package("openvino", f"An OpenVINO file needs openvino: {install('edge-openvino')}")
    # Where the processor has bfloat16, OpenVINO would compute in it by itself: other scores.
    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if threads:
        config["INFERENCE_NUM_THREADS"] = threads
    try:
        core = openvino.Core()
        model = core.read_model(content, weights)
        there = {one.get_any_name(): one for one in model.outputs}
        wanted = list(there) if outputs is None else [one for one in outputs if one in there]
        kept = openvino.Model([there[one].get_node() for one in wanted], model.get_parameters())
        # One image a request: with a free batch OpenVINO runs many steps one by one instead of as one.
        kept.reshape({INPUT: [1, -1, -1, 3]})
        compiled = core.compile_model(kept, "CPU", config)
        metadata = model.get_rt_info([METADATA]).astype(str) if model.has_rt_info([METADATA]) else None
    except Exception as error:  # RuntimeError, mostly
        raise ModelFileError(f"{name} cannot be loaded by OpenVINO: {_reason(error)}") from None
    requests = threading.local()  # a request computes one image at a time

    def run(images: UInt8Array) -> Arrays:
        if not hasattr(requests, "own"):
            requests.own = compiled.create_infer_request()
        parts: list[Arrays] = []
        for place in range(len(images)):
            found = requests.own.infer({INPUT: images[place : place + 1]}, share_inputs=True)
            parts.append({one: np.array(found[one]) for one in wanted})  # copies: the next image writes where these lie
        return parts[0] if len(parts) == 1 else {one: np.concatenate([part[one] for part in parts]) for one in wanted}

    return Session(run, metadata, f"openvino {openvino.__version__.split('-')[0]}")


def _package(name: str, sentence: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise SAPatchCoreError(sentence) from None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:240]
