"""One run of PyTorch's exporter for many files: it takes many seconds, and gives the same graph for the same detector."""

from __future__ import annotations

from typing import Any

import pytest

from sapatchcore import SAPatchCore
from sapatchcore.export import onnx_file
from sapatchcore.export.export import build_graph, cpu_embedder


def program_of(detector: SAPatchCore) -> Any:
    """The ONNX model, with its inner outputs, that ``export_model`` goes on with."""
    calibration = detector.calibration if detector.is_calibrated else None
    graph = build_graph(cpu_embedder(detector), detector.bank, "float32", calibration)
    return onnx_file.onnx_model(graph, opset=onnx_file.OPSET, backbone=detector.settings.backbone)


def use(program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``export_model`` take ``program`` instead of running the exporter."""
    monkeypatch.setattr(onnx_file, "onnx_model", lambda *_, **__: onnx_file.copied(program))
