"""What scores images has one face, whichever file it came from."""

from __future__ import annotations

import inspect
from pathlib import Path

from sapatchcore import SAPatchCore
from sapatchcore.export.runtime import Exported
from sapatchcore.open_model import Detector, open_model

MEMBERS = {name for name in (*vars(Detector), *Detector.__annotations__) if not name.startswith("_")}


def test_both_are_detectors(fitted: SAPatchCore) -> None:
    assert {"settings", "calibration", "predict", "can_learn"} <= MEMBERS
    assert isinstance(fitted, Detector)
    for kind in (SAPatchCore, Exported):
        assert MEMBERS - {"settings"} <= set(dir(kind)), kind  # its settings are the instance's own
        for name in MEMBERS:
            declared = inspect.getattr_static(Detector, name, None)
            if inspect.isfunction(declared):
                assert inspect.signature(getattr(kind, name)) == inspect.signature(declared), (kind, name)


def test_what_learns_on_says_so() -> None:
    for kind in (SAPatchCore, Exported):
        assert kind.can_learn == hasattr(kind, "update") == hasattr(kind, "forget")


def test_a_model_file_is_opened_as_a_detector(fitted: SAPatchCore, tmp_path: Path) -> None:
    fitted.save(tmp_path / "m.safetensors")
    detector = open_model(
        tmp_path / "m.safetensors",
        device="cpu",
        precision=None,
        batch_size=3,
        workers=None,
        weights=None,
    )
    assert isinstance(detector, SAPatchCore)
    assert detector.settings.batch_size == 3
    assert detector.threshold(0.1) == fitted.threshold(0.1)
