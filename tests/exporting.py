"""One tiny detector, exported once for all tests and all their processes: PyTorch's exporter takes many seconds, and gives
the same graph for the same detector."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import write_images

from sapatchcore import SAPatchCore
from sapatchcore.export import onnx_file
from sapatchcore.export.export import build_graph, cpu_embedder, export_model


def program_of(detector: SAPatchCore, opset: int = onnx_file.OPSET) -> Any:
    """The ONNX model, with its inner outputs, that ``export_model`` goes on with."""
    calibration = detector.calibration if detector.is_calibrated else None
    graph = build_graph(cpu_embedder(detector), detector.bank, "float32", calibration)
    return onnx_file.onnx_model(graph, opset=opset, backbone=detector.settings.backbone)


def use(program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``export_model`` take ``program`` instead of running the exporter."""
    monkeypatch.setattr(onnx_file, "onnx_model", lambda *_, **__: onnx_file.copied(program))


def already_fitted(detector: SAPatchCore) -> Any:
    """In the place of SAPatchCore in a benchmark: whatever is learned with its options, it is ``detector``."""

    def made(**options: Any) -> Any:
        SAPatchCore(**options)  # refuses what is no option
        return SimpleNamespace(fit=lambda _: detector)

    return made


@pytest.fixture(scope="session")
def tiny(small: dict[str, Any], good: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> SAPatchCore:
    """A detector that learned ``good`` from files, which stay at hand; not to be changed."""
    folder = write_images(tmp_path_factory.mktemp("tiny") / "good", good)
    return SAPatchCore(**small, coreset_ratio=0.1, global_part="pooled").fit(folder)


@pytest.fixture(scope="session")
def exported(tiny: SAPatchCore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``tiny`` as model.safetensors, model.onnx, and model.xml with model.bin; not to be changed."""
    return _made_once(tiny, tmp_path_factory) / "models"


@pytest.fixture(scope="session")
def program(tiny: SAPatchCore, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What PyTorch's exporter makes of ``tiny``."""
    return pytest.importorskip("onnx").load(_made_once(tiny, tmp_path_factory) / "program.onnx")


@pytest.fixture
def exporter_done(program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """``export_model`` takes ``program`` instead of running the exporter."""
    use(program, monkeypatch)


def _made_once(detector: SAPatchCore, factory: pytest.TempPathFactory) -> Path:
    """A folder that the processes of one run of the tests share; the first that asks fills it."""
    for needed in ("onnx", "onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(needed, reason=f"{needed} is not installed: install the extra export")
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, unfinished = shared / "exported", shared / "exported.part"
    with (shared / "exported.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            models = unfinished / "models"
            models.mkdir(parents=True)
            program = program_of(detector)
            (unfinished / "program.onnx").write_bytes(program.SerializeToString())
            detector.save(models / "model.safetensors")
            with pytest.MonkeyPatch.context() as patch:
                use(program, patch)
                for name in ("model.onnx", "model.xml"):
                    export_model(detector, models / name, source_sha256="ab" * 32)
            unfinished.rename(folder)
    return folder
