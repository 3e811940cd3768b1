"""The same graph as OpenVINO's two files, an .xml and a .bin: converted from the ONNX model, so that there is one graph."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from sapatchcore.errors import ModelFileError
from sapatchcore.export.metadata import CHECKSUM, METADATA, ZEROS, with_checksum
from sapatchcore.export.runtime import reason_of

Model = Any  # openvino.Model


def openvino_model(onnx_model: Any) -> Model:
    """The ONNX model as one of OpenVINO. Raises ModelFileError where it cannot be converted."""
    import openvino

    try:
        return openvino.Core().read_model(onnx_model.SerializeToString(deterministic=True))
    except RuntimeError as error:
        raise ModelFileError(f"OpenVINO cannot take the exported graph: {reason_of(error)}") from None


def only(model: Model, outputs: Iterable[str]) -> Model:
    """The model without outputs other than these."""
    import openvino

    kept = [model.output(name).get_node() for name in outputs]
    return openvino.Model(kept, model.get_parameters(), "sapatchcore")


def set_values(model: Model, name: str, values: np.ndarray) -> None:
    """Other numbers, of the same shape and dtype, for a constant of the graph."""
    import openvino

    old = next(node for node in model.get_ordered_ops() if node.get_friendly_name() == name)
    new = openvino.opset13.constant(values.reshape(tuple(old.get_output_shape(0))), old.get_output_element_type(0))
    new.set_friendly_name(name)
    for target in old.output(0).get_target_inputs():
        target.replace_source_output(new.output(0))


def serialised(model: Model) -> tuple[bytes, bytes]:
    """The two files' bytes, .xml and .bin."""
    import openvino

    with tempfile.TemporaryDirectory(prefix="sapatchcore-") as folder:
        xml, weights = Path(folder) / "model.xml", Path(folder) / "model.bin"
        openvino.serialize(model, xml, weights)
        return xml.read_bytes(), weights.read_bytes()


def openvino_bytes(model: Model, metadata: dict[str, Any]) -> tuple[bytes, bytes]:
    """The two files' bytes, .xml and .bin, with ``metadata`` and the checksum."""
    model.set_rt_info(json.dumps(metadata, sort_keys=True), [METADATA])
    model.set_rt_info(ZEROS, [CHECKSUM])
    content, beside = serialised(model)
    return with_checksum(content, ".xml", beside), beside


def write_both(path: Path, content: bytes, beside: bytes) -> None:
    """The .xml ``path`` and the .bin beside it, both or none: where anything fails, both are as they were.

    Only a power cut between the two renamings can leave a mixture; its checksum does not fit, so it is refused.
    """
    other = path.with_suffix(".bin")
    unique = secrets.token_hex(4)
    parts = {file: file.parent / f".{file.name}.{unique}.part" for file in (other, path)}
    before = other.parent / f".{other.name}.{unique}.before"
    try:
        for file, data in ((other, beside), (path, content)):
            with parts[file].open("xb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
        if other.is_file():
            os.link(other, before)
        parts[other].replace(other)
        try:
            parts[path].replace(path)
        except OSError:
            if before.exists():
                before.replace(other)
            else:
                other.unlink()
            raise
    except OSError as error:
        raise ModelFileError(
            f"{path} cannot be written: {error.strerror or error}. What was there before is unchanged."
        ) from None
    finally:
        for left in (*parts.values(), before):
            with suppress(OSError):
                left.unlink()
