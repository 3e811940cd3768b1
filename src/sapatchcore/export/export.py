"""A fitted detector as one artefact for machines without PyTorch, which begins at the raw image and gives the same scores.

``export_model`` builds ONNX or OpenVINO in memory, compares it with the detector, and only then writes it, with what the check
found. docs/export.md says what is in the file and what is exact.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from sapatchcore.atomic import atomic_write
from sapatchcore.data.sources import Batch, Progress
from sapatchcore.detector import SAPatchCore
from sapatchcore.embed.patches import Embedder
from sapatchcore.embed.tiles import TiledBackbone
from sapatchcore.embed.weights import origin
from sapatchcore.errors import ModelFileError, SAPatchCoreError, SettingsError, did_you_mean, install
from sapatchcore.export import onnx_file, openvino_file
from sapatchcore.export.check import Check, check_images
from sapatchcore.export.global_part import GlobalPartGraph
from sapatchcore.export.graph import EMBEDDING, FORMATS, BankPart, Graph
from sapatchcore.export.metadata import FORMAT, GLOBAL, SUFFIXES, calibration_metadata
from sapatchcore.export.onnx_file import OPSET, check_opset
from sapatchcore.export.quantise import good_images, quantised_onnx, quantised_openvino, recalibrated, with_half_weights
from sapatchcore.export.runtime import Session, onnx_session, openvino_session
from sapatchcore.export.together import TogetherCheck, TogetherGraph
from sapatchcore.learning.images import Updatable
from sapatchcore.memory.bank import Bank
from sapatchcore.networks import refuse_several
from sapatchcore.score.calibration import Calibration
from sapatchcore.score.together import finest
from sapatchcore.together.together import Together

PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("onnx", "onnxscript", "openvino")}
_FILE = {"device": "cpu", "precision": "float32", "search": "exact"}  # options of what is in the file
_LARGEST = 2_000_000_000  # bytes; the format's own limit is 2³¹ for one file
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}


def export_model(
    detector: SAPatchCore,
    path: str | os.PathLike[str],
    *,
    kind: str | None = None,
    check: Path | None = None,
    precision: str = "float32",
    bank_precision: str = "float32",
    opset: int = OPSET,
    source_sha256: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the exported file (of OpenVINO the .xml and the .bin), whole or not at all; returns what it says of itself.

    Args:
        detector: fitted. It is exported in float32 from the CPU, whatever its own device and precision.
        path: the file to write, .onnx or .xml.
        kind: "onnx" or "openvino"; None for what the path's suffix says.
        check: folder of images to compare the file with the detector on; None for the thumbnails in the model.
        precision, bank_precision: of the network and of the memory bank, one of ``graph.FORMATS``. Where one is not float32,
            the scores differ: by how much is measured and stored, not refused, and the calibration is taken anew.
        opset: of the ONNX form.
        source_sha256: of the model file that the detector was loaded from.
        progress: stages "calibrate" and "check".

    Raises:
        NotFittedError: before ``fit``. SettingsError: an option outside its range. SAPatchCoreError: a package is missing.
        ModelFileError: the network cannot be exported, the file would be too large, gives other scores or verdicts, or cannot
            be written.
    """
    calibration = detector.calibration if detector.is_calibrated else None
    file, kind = Path(path), kind_of(Path(path), kind)
    require_packages(kind)
    check_opset(opset)
    for name, value in (("precision", precision), ("bank_precision", bank_precision)):
        if value not in FORMATS:
            raise SettingsError(f"{name} must be {', '.join(FORMATS)}. Got {value!r}.{did_you_mean(value, FORMATS)}")
    if not file.parent.is_dir():
        raise ModelFileError(f"{file} cannot be written: there is no folder {file.parent}. Make it, or name another.")
    exact = precision == bank_precision == "float32"
    if not exact:
        refuse_several(detector.settings.backbone, "`precision` or `bank_precision` other than float32")
    networks = [(cpu_embedder(one), replace(one.bank, rows=one.bank.rows.cpu())) for one in detector.networks]
    embedder, bank = networks[0]
    _check_size(networks, bank_precision)
    # A network in a shorter format is judged on images that it was made for alone.
    images, source = check_images(check, bank, made=exact)

    checker: Check | None = None
    graph: Any = build_graph(embedder, bank, bank_precision, calibration)
    if isinstance(detector, Together):
        graph, checker = together_graph(detector, networks, calibration)
    model = onnx_file.onnx_model(graph, opset=opset, backbone=detector.settings.backbone)
    good = good_images(bank) if precision == "int8" else []
    if precision in ("float16", "bfloat16"):
        model = with_half_weights(model, precision)
    elif precision == "int8" and kind == "onnx":
        model = quantised_onnx(model, good)
    form: Any = onnx_file
    if kind == "openvino":
        form = openvino_file
        model = openvino_file.openvino_model(model)
        if precision == "int8":
            model = quantised_openvino(model, good)

    file_calibration, note = calibration, "the model's own"
    if calibration is not None and not exact:
        session = open_session(
            kind, form.only(model, (*EMBEDDING, *(name for name in GLOBAL if name in graph.outputs)))
        )
        file_calibration, note = recalibrated(calibration, embedder, bank, graph, session, progress)
        if file_calibration is not calibration:
            form.set_values(model, "good", np.sort(file_calibration.scores))
    checker = checker or Check(embedder, bank, calibration, file_calibration)
    checked = form.only(model, [*graph.outputs, *checker.asks])
    found = checker.compare(open_session(kind, checked), images, source, strict=exact, progress=progress)
    model = form.only(model, graph.outputs)
    metadata = {
        "format": FORMAT,
        "kind": kind,
        "settings": detector.settings.model_copy(update=_FILE).model_dump(mode="json"),
        **origin(detector.settings),
        "versions": {name: version(name) for name in ("sapatchcore", "torch", "timm", "pillow", *PACKAGES[kind])},
        "model_sha256": source_sha256,
        "opset": opset,
        "precision": {"network": precision, "bank": bank_precision},
        "bank": banks if len(banks := [list(one.rows.shape) for _, one in networks]) > 1 else banks[0],
        "grid": list(graph.grid),
        "outputs": graph.outputs,
        "training_statistics": None if bank.usual is None else bank.usual.to_dict(),
        "calibration": calibration_metadata(file_calibration),
        "calibration_scores": note if calibration is not None else "none: the file gives no p_value and no verdicts",
        "check": asdict(found),
    }
    _write(file, kind, model, metadata)
    return metadata


def kind_of(file: Path, kind: str | None) -> str:
    """ "onnx" or "openvino", by ``kind`` or the suffix. Raises SettingsError for any other, and where the two disagree."""
    kinds = {name: suffix for suffix, name in SUFFIXES.items()}
    if kind is not None and kind not in kinds:
        raise SettingsError(f"format must be {' or '.join(kinds)}. Got {kind!r}.{did_you_mean(kind, kinds)}")
    by_suffix = SUFFIXES.get(file.suffix.lower())
    if by_suffix is None or (kind is not None and by_suffix != kind):
        wanted = " or ".join(f"{suffix} for {name}" for name, suffix in kinds.items() if kind in (None, name))
        raise SettingsError(f"The file's name must end in {wanted}. Got {file.name}.")
    return by_suffix


def require_packages(kind: str) -> None:
    """Raises SAPatchCoreError where a package that the export needs is missing."""
    for name in PACKAGES[kind]:
        try:
            importlib.import_module(name)
        except ImportError:
            *most, last = PACKAGES[kind]
            raise SAPatchCoreError(f"Exporting needs {', '.join(most)} and {last}: {install('export')}") from None


def cpu_embedder(detector: Updatable) -> Embedder:
    """The detector's network on the CPU in float32: what the file is made from and compared with."""
    options = {**detector.settings.model_dump(), **_FILE}
    whitening = detector.embedder.whitening
    return Embedder(SAPatchCore(**options).settings, detector.embedder.network.weights, whitening)


def _check_size(networks: Sequence[tuple[Embedder, Bank]], bank_precision: str) -> None:
    # The networks count in full: that is how they are first exported.
    rows = sum(bank.rows.numel() * _BYTES[bank_precision] for _, bank in networks)
    size = sum(value.nbytes for embedder, _ in networks for value in embedder.network.weights.values()) + rows
    if size > _LARGEST:
        raise ModelFileError(
            f"The exported file would hold {size / 1e9:.1f} GB (memory bank {rows / 1e9:.1f} GB); one file holds up to 2 GB. "
            "Learn with a smaller coreset_ratio, or a smaller network, or give the bank a shorter precision."
        )


def build_graph(embedder: Embedder, bank: Bank, bank_precision: str, calibration: Calibration | None) -> Graph:
    """The graph of a detector; embedder, bank: on the CPU in float32. calibration: None leaves the p-value out."""
    settings, channels = embedder.settings, embedder.network.channels[0]
    h, w = settings.input_size
    blank = Batch(("a blank image",), ((h, w),), np.zeros((1, h, w, 3), np.uint8))
    patches = embedder.embed(blank)
    parts = bank.rows[:, :channels].contiguous(), bank.rows[:, channels:].contiguous()
    rows = BankPart(parts[0], bank_precision), BankPart(parts[1], bank_precision)
    scores = None if calibration is None else calibration.scores
    whole = None
    if bank.global_part is not None:
        whole = GlobalPartGraph(bank.global_part, patches.grid, patches.cell, patches.context.shape[1])
    network = embedder.network
    features = network.features_at_once if isinstance(network, TiledBackbone) else network.features
    return Graph(features, rows, patches.cell, patches.grid, settings, scores, embedder.whitening, whole)


def together_graph(
    detector: Together, networks: Sequence[tuple[Embedder, Bank]], calibration: Calibration | None
) -> tuple[TogetherGraph, TogetherCheck]:
    """The graph of a detector of several networks, and what compares it. networks: on the CPU in float32."""
    main = [bank.grid for _, bank in networks].index(finest([bank.grid for _, bank in networks]))
    graphs = [
        build_graph(embedder, bank, "float32", calibration if number == main else None)
        for number, (embedder, bank) in enumerate(networks)
    ]
    graph = TogetherGraph(graphs, detector.scale)
    return graph, TogetherCheck(networks, detector.scale, detector.settings, calibration)


def open_session(kind: str, model: Any) -> Session:
    """The runtime's session of an ONNX or OpenVINO model in memory."""
    if kind == "onnx":
        return onnx_session("The exported model", model.SerializeToString(), threads=None)
    xml, weights = openvino_file.serialised(model)
    return openvino_session("The exported model", xml, weights, threads=None)


def _write(file: Path, kind: str, model: Any, metadata: dict[str, Any]) -> None:
    def sentence(error: OSError) -> str:
        return f"{file} cannot be written: {error.strerror or error}. What was there before is unchanged."

    if kind == "openvino":
        openvino_file.write_both(file, *openvino_file.openvino_bytes(model, metadata))
        return
    content = onnx_file.onnx_bytes(model, metadata)
    with atomic_write(file, ModelFileError, sentence, durable=True) as part:
        part.write_bytes(content)
