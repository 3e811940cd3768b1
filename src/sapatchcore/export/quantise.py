"""The network in int8, by each runtime's own tool, with ranges from good images; all before and after it stays as it is.

ONNX Runtime's static quantisation (QDQ, weights by channel); NNCF's post-training quantisation for OpenVINO.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from sapatchcore.data.pixels import UInt8Array
from sapatchcore.errors import ModelFileError, SAPatchCoreError, install
from sapatchcore.export.graph import BOUNDS
from sapatchcore.export.metadata import INPUT
from sapatchcore.export.onnx_file import network_nodes, quiet

# Of a network's operations: those whose int8 form is worth its rounding. Activations join the one before them.
_OPERATIONS = ("Conv", "Gemm", "MatMul", "Add", "MaxPool")


def quantised_onnx(model: Any, good: Sequence[UInt8Array]) -> Any:
    """The ONNX model with its network in int8. Raises ModelFileError where the tool fails."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._rest = iter(good)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self._rest, None)
            return None if image is None else {INPUT: image[None]}

    nodes = [one.name for one in network_nodes(model) if one.op_type in _OPERATIONS]
    with tempfile.TemporaryDirectory(prefix="sapatchcore-") as folder, quiet(""):
        target = Path(folder) / "int8.onnx"
        try:
            quantize_static(
                onnx.shape_inference.infer_shapes(model),
                target,
                Reader(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_quantize=nodes,
                op_types_to_quantize=list(_OPERATIONS),
                extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
            )
        except Exception as error:  # the tool raises almost anything
            raise _failed("onnxruntime.quantization", error) from None
        short = onnx.load(target)
    del short.graph.value_info[:]
    del short.metadata_props[:]
    short.producer_name = "sapatchcore"
    return short


def quantised_openvino(model: Any, good: Sequence[UInt8Array]) -> Any:
    """The OpenVINO model with its network in int8. Raises SAPatchCoreError without NNCF, ModelFileError where it fails."""
    try:
        with quiet("nncf"):
            import nncf
    except ImportError:
        raise SAPatchCoreError(f"int8 for OpenVINO needs nncf: {install('export')}") from None
    inside = _names_of_network(model)
    others = [name for name in (one.get_friendly_name() for one in model.get_ordered_ops()) if name not in inside]
    with quiet("nncf"), Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):  # its bars
        try:
            return nncf.quantize(
                model,
                nncf.Dataset([image[None] for image in good]),
                subset_size=len(good),
                ignored_scope=nncf.IgnoredScope(names=others, validate=False),
            )
        except Exception as error:  # the tool raises almost anything
            raise _failed("NNCF", error) from None


def _names_of_network(model: Any) -> set[str]:
    """The names of the operations between ``graph.BOUNDS``; constants are none of them."""
    begin, *ends = (model.output(name).get_node().input_value(0).get_node() for name in BOUNDS)
    return _reached([begin], _users) & _reached(ends, _sources)


def _reached(start: list[Any], beyond: Callable[[Any], list[Any]]) -> set[str]:
    found: set[str] = set()
    waiting = list(start)
    while waiting:
        node = waiting.pop()
        if node.get_friendly_name() not in found:
            found.add(node.get_friendly_name())
            waiting += beyond(node)
    return found


def _users(node: Any) -> list[Any]:
    return [target.get_node() for output in node.outputs() for target in output.get_target_inputs()]


def _sources(node: Any) -> list[Any]:
    return [one.get_source_output().get_node() for one in node.inputs()]


def _failed(tool: str, error: Exception) -> ModelFileError:
    reason = " ".join(str(error).split())[:240]
    return ModelFileError(f"{tool} cannot bring the network to int8: {reason} Use another precision.")
