"""Networks in float16, bfloat16 and int8: smaller, measured, and calibrated anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for needed in ("torch", "onnx", "onnxscript", "onnxruntime", "openvino"):
    pytest.importorskip(needed, reason=f"{needed} is not installed: install the extra export")

from conftest import write_images  # noqa: E402
from exporting import program_of, use  # noqa: E402 - these need the packages above

from sapatchcore import SAPatchCore  # noqa: E402
from sapatchcore.errors import ModelFileError  # noqa: E402
from sapatchcore.export import export  # noqa: E402
from sapatchcore.export.export import export_model  # noqa: E402
from sapatchcore.export.metadata import SUFFIXES, files_of  # noqa: E402
from sapatchcore.export.runtime import open_exported  # noqa: E402


@pytest.fixture(scope="module")
def by_files(
    small: dict[str, Any], images: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> SAPatchCore:
    """Learned from files, so that they are at hand later; with a network that can be brought to int8."""
    folder = write_images(tmp_path_factory.mktemp("parts") / "good", images(12, (80, 72)))
    options = {**small, "backbone": "builtin", "weights": "pretrained", "coreset_ratio": 0.2}
    return SAPatchCore(**options).fit(folder)


@pytest.fixture(scope="module")
def its_program(by_files: SAPatchCore) -> Any:
    return program_of(by_files)


@pytest.fixture(scope="module")
def full(by_files: SAPatchCore, its_program: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``by_files`` in float32, as full.onnx, and full.xml with full.bin."""
    folder = tmp_path_factory.mktemp("full")
    with pytest.MonkeyPatch.context() as patch:
        use(its_program, patch)
        for suffix in SUFFIXES:
            export_model(by_files, folder / f"full{suffix}")
    return folder


def test_the_bank_and_the_network_are_in_the_file_once(full: Path, by_files: SAPatchCore) -> None:
    tensors = sum(value.nbytes for value in by_files.embedder.network.weights.values()) + by_files.memory_bank.nbytes
    assert (full / "full.onnx").stat().st_size < tensors + 700_000
    assert (full / "full.bin").stat().st_size < tensors + 400_000
    assert sorted(path.name for path in full.iterdir()) == ["full.bin", "full.onnx", "full.xml"]


@pytest.mark.parametrize(
    ("name", "precision", "within", "share"),
    [
        ("m.onnx", "float16", 2e-3, 0.6),
        ("m.onnx", "bfloat16", 2e-2, 0.6),
        ("m.onnx", "int8", 0.3, 0.45),
        ("m.xml", "float16", 2e-3, 0.6),
        ("m.xml", "int8", 0.3, 0.45),
    ],
)
def test_shorter_networks_are_measured_and_calibrated_anew(
    by_files: SAPatchCore,
    its_program: Any,
    full: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    precision: str,
    within: float,
    share: float,
) -> None:
    if precision == "int8" and name == "m.xml":
        pytest.importorskip("nncf", reason="nncf is not installed: install the extra export")
    use(its_program, monkeypatch)
    metadata = export_model(by_files, tmp_path / name, precision=precision)
    assert metadata["precision"] == {"network": precision, "bank": "float32"}
    assert metadata["calibration_scores"] == "taken anew with this file"
    found = metadata["check"]
    assert found["images"] == 12  # thumbnails alone
    assert 1e-6 < found["different"]["score"] < within
    size, whole = (
        sum(file.stat().st_size for file in files_of(path))
        for path in (tmp_path / name, full / f"full{Path(name).suffix}")
    )
    assert size < share * whole + 400_000
    exported = open_exported(tmp_path / name, threads=1)
    # Its thresholds are those of its own scores, from the good images without their own rows.
    fresh, own = exported.calibration, by_files.calibration
    assert 0 < np.abs(fresh.scores - own.scores).max() < within * own.scores.max()
    defect = np.random.default_rng(0).integers(0, 256, (80, 72, 3), dtype=np.uint8)
    result = exported.predict([defect])
    assert result.verdicts()[0].rejected
    values = exported._session.run(defect[None])
    assert values["score"][0] == result.scores[0]
    session = export.open_session(SUFFIXES[Path(name).suffix], _reread(tmp_path / name))
    p = session.run(defect[None])["p_value"]
    np.testing.assert_array_equal(p, result.p_values.astype(np.float32))


def _reread(path: Path) -> Any:
    if path.suffix == ".onnx":
        return pytest.importorskip("onnx").load(path)
    return pytest.importorskip("openvino").Core().read_model(path)


@pytest.fixture(scope="module")
def tiny_from_arrays(tiny: SAPatchCore, good: Any) -> SAPatchCore:
    """``tiny``, but that no file is at hand."""
    return SAPatchCore(**tiny.settings.model_dump()).fit(good)


@pytest.mark.usefixtures("exporter_done")
def test_a_short_network_without_the_calibration_images_says_so(
    tiny: SAPatchCore, tiny_from_arrays: SAPatchCore, tmp_path: Path
) -> None:
    metadata = export_model(tiny_from_arrays, tmp_path / "m.onnx", precision="float16")
    assert "10 of its 10 images are not at hand" in metadata["calibration_scores"]
    np.testing.assert_array_equal(open_exported(tmp_path / "m.onnx").calibration.scores, tiny.calibration.scores)


@pytest.mark.usefixtures("exporter_done")
def test_int8_needs_good_images(tiny_from_arrays: SAPatchCore, tmp_path: Path) -> None:
    tiny_from_arrays.save(tmp_path / "m.safetensors", include_thumbnails=False)
    with pytest.raises(ModelFileError, match="int8 needs good images"):
        export_model(SAPatchCore.load(tmp_path / "m.safetensors"), tmp_path / "m.onnx", precision="int8")
