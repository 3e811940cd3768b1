"""One exporter run for many tests: it takes seconds, and gives the same graph for the same detector."""

from __future__ import annotations

from typing import Any

import pytest

from sapatchcore import SAPatchCore
from sapatchcore.export import onnx_file
from sapatchcore.export.export import _graph, _on_cpu


def program_of(detector: SAPatchCore) -> Any:
    """The ONNX model, with its inner outputs, that ``export_model`` goes on with."""
    graph = _graph(_on_cpu(detector), detector.bank, "float32", detector._calibration)
    return onnx_file.onnx_model(graph, opset=onnx_file.OPSET, backbone="resnet18")


def given(program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``export_model`` take ``program`` instead of running the exporter."""
    names = [one.name for one in program.graph.output]
    monkeypatch.setattr(onnx_file, "onnx_model", lambda *_, **__: onnx_file.only(program, names))
