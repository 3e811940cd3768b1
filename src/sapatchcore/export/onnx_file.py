"""The graph as an ONNX model in memory: exported by PyTorch, cleaned of what it says of this machine, shortened, sealed."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from sapatchcore.errors import ModelFileError, SettingsError
from sapatchcore.export.checksum import NAME, ZEROS, sealed
from sapatchcore.export.graph import BOUNDS, INNER, Graph
from sapatchcore.export.metadata import INPUT, METADATA, OUTPUTS

OPSET, LOWEST_OPSET, HIGHEST_OPSET = 18, 17, 25
_EXPORTERS = ("torch.onnx", "onnxscript", "onnx_ir")
_SMALL = 1024  # numbers: tensors with fewer stay in float32

Model = Any  # onnx.ModelProto, which has no types


def check_opset(opset: int) -> None:
    """Raises SettingsError for an opset that cannot be written."""
    if not LOWEST_OPSET <= opset <= HIGHEST_OPSET:
        raise SettingsError(f"opset must be from {LOWEST_OPSET} to {HIGHEST_OPSET}. Got {opset}. Use {OPSET}.")


def onnx_model(graph: Graph, *, opset: int, backbone: str) -> Model:
    """The graph as an ONNX model with all of its outputs, and ``graph.INNER``.

    Raises ModelFileError where PyTorch cannot export the network, or not with this opset.
    """
    outputs = [name for name in OUTPUTS if name != "p_value" or graph.good is not None]
    free = {0: torch.export.Dim("n"), 1: torch.export.Dim("h"), 2: torch.export.Dim("w")}
    example = torch.zeros(2, 97, 89, 3, dtype=torch.uint8)
    try:
        with quiet(*_EXPORTERS), warnings.catch_warnings():  # it is the check that tells whether the file is right
            warnings.simplefilter("ignore")
            program: Any = torch.onnx.export(
                graph.eval(),
                (example,),
                dynamo=True,
                opset_version=opset,
                input_names=[INPUT],
                output_names=[*outputs, *INNER],
                dynamic_shapes={INPUT: free},
                external_data=False,
                verbose=False,
            )
            model = program.model_proto
    except MemoryError:
        raise
    except Exception as error:  # torch.export and the exporter raise almost anything
        reason = " ".join(str(error).split())[:240]
        raise ModelFileError(
            f"{backbone} cannot be exported to ONNX with torch {torch.__version__}: {reason}"
        ) from None
    got = next(one.version for one in model.opset_import if one.domain == "")
    if got != opset:
        raise ModelFileError(f"{backbone} cannot be exported with opset {opset}. Use opset {got}.")
    _clean(model)
    return model


def only(model: Model, outputs: Iterable[str]) -> Model:
    """A copy without outputs other than these."""
    import onnx

    short = onnx.ModelProto()
    short.CopyFrom(model)
    kept = [one for one in short.graph.output if one.name in set(outputs)]
    del short.graph.output[:]
    short.graph.output.extend(kept)
    return short


def sealed_onnx(model: Model, facts: dict[str, Any]) -> bytes:
    """The file's bytes, with ``facts`` and the seal."""
    import onnx

    onnx.helper.set_model_props(model, {METADATA: json.dumps(facts, sort_keys=True), NAME: ZEROS})
    return sealed(model.SerializeToString(deterministic=True), ".onnx")


def set_values(model: Model, name: str, values: np.ndarray) -> None:
    """Other numbers, of the same shape and dtype, for a constant of the graph."""
    import onnx

    place = next(one for one in model.graph.initializer if one.name == name)
    place.CopyFrom(onnx.numpy_helper.from_array(values.reshape(tuple(place.dims)), name))


def with_short_weights(model: Model, precision: str) -> Model:
    """A copy whose network weights are held in float16 or bfloat16; the runtime brings them back to float32 when it loads.

    Raises ModelFileError where a weight is too large for float16.
    """
    import onnx

    kind = {"float16": onnx.TensorProto.FLOAT16, "bfloat16": onnx.TensorProto.BFLOAT16}[precision]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
    short = onnx.ModelProto()
    short.CopyFrom(model)
    used = {name for node in network_nodes(short) for name in node.input}
    casts = []
    for tensor in short.graph.initializer:
        if tensor.name not in used or tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        values = onnx.numpy_helper.to_array(tensor)
        if values.size < _SMALL:
            continue
        with np.errstate(over="ignore"):
            held = values.astype(dtype)
        if not np.isfinite(held.astype(np.float32)).all():
            raise ModelFileError(f"The network has weights beyond {precision}'s range. Use another precision.")
        name, held_name = tensor.name, f"{tensor.name}.{precision}"
        tensor.CopyFrom(onnx.numpy_helper.from_array(held, held_name))
        casts.append(onnx.helper.make_node("Cast", [held_name], [name], f"{name}.cast", to=onnx.TensorProto.FLOAT))
    nodes = list(short.graph.node)
    del short.graph.node[:]
    short.graph.node.extend([*casts, *nodes])
    return short


def network_nodes(model: Model) -> list[Any]:
    """The nodes of the network alone: what lies between ``graph.BOUNDS``."""
    begin, *ends = BOUNDS
    after, needed = {begin}, set(ends)
    for node in model.graph.node:  # in the order of the work
        if after & set(node.input):
            after |= set(node.output)
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
    return [node for node in model.graph.node if after & set(node.input) and needed & set(node.output)]


def _clean(model: Model) -> None:
    """Without the exporter's notes, which hold this machine's paths, and the shapes that it guessed: runtimes infer their own."""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        value.doc_string = ""
        del value.metadata_props[:]
    del model.graph.value_info[:]
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    model.graph.doc_string = model.doc_string = ""
    model.graph.name, model.producer_name = "sapatchcore", "sapatchcore"


@contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Without these loggers' warnings; "" is the root."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
