"""The graph as an ONNX model in memory: exported by PyTorch, cleaned of what it says of this machine, with its checksum."""

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
from sapatchcore.export.graph import Graph
from sapatchcore.export.metadata import CHECKSUM, INPUT, METADATA, ZEROS, with_checksum
from sapatchcore.export.runtime import reason_of
from sapatchcore.export.together import TogetherGraph

OPSET, LOWEST_OPSET, HIGHEST_OPSET = 18, 17, 25
_EXPORTERS = ("torch.onnx", "onnxscript", "onnx_ir")

Model = Any  # onnx.ModelProto, which has no types


def check_opset(opset: int) -> None:
    """Raises SettingsError for an opset that cannot be written."""
    if not LOWEST_OPSET <= opset <= HIGHEST_OPSET:
        raise SettingsError(f"opset must be from {LOWEST_OPSET} to {HIGHEST_OPSET}. Got {opset}. Use {OPSET}.")


def onnx_model(graph: Graph | TogetherGraph, *, opset: int, backbone: str) -> Model:
    """The graph as an ONNX model with all of its outputs, ``graph.inner`` too.

    Raises ModelFileError where PyTorch cannot export the network, or not with this opset.
    """
    free = {0: torch.export.Dim("n"), 1: torch.export.Dim("h"), 2: torch.export.Dim("w")}
    example = torch.zeros(2, 97, 89, 3, dtype=torch.uint8)
    try:
        with quiet(*_EXPORTERS), warnings.catch_warnings():  # the check will tell whether the file is right
            warnings.simplefilter("ignore")
            program: Any = torch.onnx.export(
                graph.eval(),
                (example,),
                dynamo=True,
                opset_version=opset,
                input_names=[INPUT],
                output_names=[*graph.outputs, *graph.inner],
                dynamic_shapes={INPUT: free},
                external_data=False,
                verbose=False,
            )
            model = program.model_proto
    except MemoryError:
        raise
    except Exception as error:  # torch.export and the exporter raise almost anything
        raise ModelFileError(
            f"{backbone} cannot be exported to ONNX with torch {torch.__version__}: {reason_of(error)}"
        ) from None
    got = next(one.version for one in model.opset_import if one.domain == "")
    if got != opset:
        raise ModelFileError(f"{backbone} cannot be exported with opset {opset}. Use opset {got}.")
    _clean(model)
    return model


def copied(model: Model) -> Model:
    """A copy that can be changed."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def only(model: Model, outputs: Iterable[str]) -> Model:
    """A copy without outputs other than these."""
    copy = copied(model)
    kept = [one for one in copy.graph.output if one.name in set(outputs)]
    del copy.graph.output[:]
    copy.graph.output.extend(kept)
    return copy


def set_values(model: Model, name: str, values: np.ndarray) -> None:
    """Other numbers, of the same shape and dtype, for a constant of the graph."""
    import onnx

    tensor = next(one for one in model.graph.initializer if one.name == name)
    tensor.CopyFrom(onnx.numpy_helper.from_array(values.reshape(tuple(tensor.dims)), name))


def onnx_bytes(model: Model, metadata: dict[str, Any]) -> bytes:
    """The file's bytes, with ``metadata`` and the checksum."""
    import onnx

    onnx.helper.set_model_props(model, {METADATA: json.dumps(metadata, sort_keys=True), CHECKSUM: ZEROS})
    return with_checksum(model.SerializeToString(deterministic=True), ".onnx")


def _clean(model: Model) -> None:
    """Removes the exporter's notes, which hold this machine's paths, and the shapes that it guessed: runtimes infer their own."""
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
