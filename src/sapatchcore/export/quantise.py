"""The network in float16, bfloat16 or int8, and the calibration in the file's own numbers; all around the network stays as it is.

float16 and bfloat16: the weights are held so, and are float32 again once the runtime has loaded them. int8: each runtime's own
tool, with ranges from good images. ONNX Runtime's static quantisation (QDQ, weights by channel); NNCF's post-training
quantisation for OpenVINO.

Such a network gives other scores, to good images too, and verdicts are right only where both sides of the comparison were
measured alike. So the good images go through the exported network once more. The comparison with the bank, as the file holds
it, is computed here by the graph, with an image's own rows left out. The banks of cross-fitted scores are not kept: each score
is multiplied by what this file makes of the image's score without its own rows, over what the model makes of it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sapatchcore.data.images import read_thumbnail
from sapatchcore.data.pixels import UInt8Array
from sapatchcore.data.sources import Batch, Progress, read_image
from sapatchcore.embed.patches import Embedder
from sapatchcore.errors import ModelFileError, SAPatchCoreError, install
from sapatchcore.export.check import evenly_spread
from sapatchcore.export.graph import BOUNDS, EMBEDDING, Graph
from sapatchcore.export.metadata import GLOBAL, INPUT
from sapatchcore.export.onnx_file import copied, quiet
from sapatchcore.export.runtime import Session, reason_of
from sapatchcore.learning.calibrate import as_calibration, fused_anew, rescored
from sapatchcore.memory.bank import Bank
from sapatchcore.memory.growth import fewest_left
from sapatchcore.result import gather_result
from sapatchcore.score.calibration import CROSS_FITTED, SEPARATE, Calibration, Float32, rows_needed

MOST = 64  # good images that int8's ranges are taken from
_SMALL = 1024  # numbers: tensors with fewer stay in float32
# The network's operations that are worth int8's rounding. Activations join the one before them.
_OPERATIONS = ("Conv", "Gemm", "MatMul", "Add", "MaxPool")


def with_half_weights(model: Any, precision: str) -> Any:
    """A copy of the ONNX model whose network weights are held in float16 or bfloat16.

    Raises ModelFileError where a weight is too large for float16.
    """
    import onnx

    kind = {"float16": onnx.TensorProto.FLOAT16, "bfloat16": onnx.TensorProto.BFLOAT16}[precision]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
    half = copied(model)
    used = {name for node in _network_nodes(half) for name in node.input}
    casts = []
    for tensor in half.graph.initializer:
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
    nodes = list(half.graph.node)
    del half.graph.node[:]
    half.graph.node.extend([*casts, *nodes])
    return half


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

    nodes = [one.name for one in _network_nodes(model) if one.op_type in _OPERATIONS]
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
        quantised = onnx.load(target)
    del quantised.graph.value_info[:]
    del quantised.metadata_props[:]
    quantised.producer_name = "sapatchcore"
    return quantised


def quantised_openvino(model: Any, good: Sequence[UInt8Array]) -> Any:
    """The OpenVINO model with its network in int8. Raises SAPatchCoreError without NNCF, ModelFileError where it fails."""
    try:
        with quiet("nncf"):
            import nncf
    except ImportError:
        raise SAPatchCoreError(f"int8 for OpenVINO needs nncf: {install('export')}") from None
    inside = _network_names(model)
    others = [name for name in (one.get_friendly_name() for one in model.get_ordered_ops()) if name not in inside]
    with quiet("nncf"), Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):  # its progress bars
        try:
            return nncf.quantize(
                model,
                nncf.Dataset([image[None] for image in good]),
                subset_size=len(good),
                ignored_scope=nncf.IgnoredScope(names=others, validate=False),
            )
        except Exception as error:  # the tool raises almost anything
            raise _failed("NNCF", error) from None


def good_images(bank: Bank) -> Sequence[UInt8Array]:
    """Up to ``MOST`` of the training images, evenly spread: their files where these can be read, else their thumbnails.

    Raises ModelFileError where there is neither.
    """
    originals = [image for image in bank.training if not image.turn]
    at_hand = [image for image in originals if Path(image.name).is_file() or image.thumbnail]
    if not at_hand:
        raise ModelFileError(
            "int8 needs good images to take the network's ranges from, and neither the training images nor thumbnails of them "
            "are at hand. Export where the images are, or use another precision."
        )
    chosen = [at_hand[index] for index in evenly_spread(len(at_hand), MOST)]
    return [read_image(one.name) if Path(one.name).is_file() else read_thumbnail(one.thumbnail) for one in chosen]


def recalibrated(
    calibration: Calibration,
    embedder: Embedder,
    bank: Bank,
    graph: Graph,
    session: Session,
    progress: Progress | None,
) -> tuple[Calibration, str]:
    """The calibration with the file's scores, where all of its images can be read, and a sentence about it.

    embedder, bank: the model's. graph: of the file. session: of the file, with the outputs ``graph.EMBEDDING`` and
    ``metadata.GLOBAL``. progress: stage "calibrate".
    """
    files = [Path(name) for name in calibration.names]
    if missing := sum(not file.is_file() for file in files):
        return calibration, (
            f"the model's own, in float32, since {missing} of its {len(files)} images are not at hand: the promised rate does "
            "not hold exactly"
        )
    if calibration.source != SEPARATE and fewest_left(bank) < rows_needed(calibration.image_score):
        return calibration, (
            "the model's own, in float32, since most of the bank comes from one image: the promised rate does not hold exactly"
        )
    scored = []
    for index, file in enumerate(files):
        image = read_image(file)
        found = session.run(image[None])
        local, context = (torch.from_numpy(found[name]) for name in EMBEDDING)
        own = int(calibration.images[index])  # -1: the bank has nothing of it
        with torch.inference_mode():
            arrays = graph.compare(local, context, None if own < 0 else bank.groups.cpu() == own)
        batch = Batch((calibration.names[index],), ((image.shape[0], image.shape[1]),), image[None, :0])
        scored.append(
            (batch, [*(array.numpy() for array in arrays), *(found[name] for name in GLOBAL if name in found)])
        )
        if progress is not None:
            progress("calibrate", index + 1, len(files))
    result = gather_result(scored, embedder.settings)
    fresh = as_calibration(result, calibration.source, calibration.images, embedder.settings, bank)
    if calibration.source == CROSS_FITTED:
        own_scores = rescored(calibration, range(len(calibration)), bank, embedder, None)
        fresh = replace(
            calibration,
            **{
                name: (getattr(calibration, name) * _ratio(getattr(fresh, name), getattr(own_scores, name)))
                for name in calibration.array_names
                if name not in ("images", "rows")
            },
        )
    if bank.global_part is not None:
        fresh = fused_anew(fresh, bank.global_part)
    return fresh, "taken anew with this file"


def _ratio(new: Float32, old: Float32) -> Float32:
    """new / old, 1 where old is 0."""
    return np.divide(new, old, out=np.ones_like(new), where=old > 0)


def _network_nodes(model: Any) -> list[Any]:
    """The ONNX model's nodes between ``graph.BOUNDS``: the network alone."""
    begin, *ends = BOUNDS
    after, needed = {begin}, set(ends)
    for node in model.graph.node:  # sorted: a node stands after those that it needs
        if after & set(node.input):
            after |= set(node.output)
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
    return [node for node in model.graph.node if after & set(node.input) and needed & set(node.output)]


def _network_names(model: Any) -> set[str]:
    """The names of the OpenVINO model's operations between ``graph.BOUNDS``, without constants."""
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
    return ModelFileError(f"{tool} cannot bring the network to int8: {reason_of(error)} Use another precision.")
