"""The check: which differences keep a file from being written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sapatchcore import SAPatchCore
from sapatchcore.errors import ModelFileError, SAPatchCoreError
from sapatchcore.export import check, export
from sapatchcore.export.export import export_model
from sapatchcore.export.metadata import OUTPUTS
from sapatchcore.export.runtime import Session


class Wrong:
    """A session whose ``output`` is a little off."""

    def __init__(self, output: str, factor: float) -> None:
        self.output, self.factor = output, factor

    def __call__(self, *args: Any, **options: Any) -> Session:
        found = SESSION(*args, **options)

        def run(images: Any) -> Any:
            values = found.run(images)
            value = values[self.output]
            values[self.output] = np.roll(value, 1) if self.output == "neighbours" else value * np.float32(self.factor)
            return values

        return Session(run, found.metadata, found.runtime)


SESSION = export.onnx_session


@pytest.mark.usefixtures("exporter_done")
@pytest.mark.parametrize("output", OUTPUTS)
def test_a_file_with_other_numbers_is_not_written(
    output: str, tiny: SAPatchCore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "m.onnx"
    target.write_bytes(b"before")
    monkeypatch.setattr(export, "onnx_session", Wrong(output, 1.002))
    with pytest.raises(ModelFileError, match=rf"The file's {output} of .* is .* away from the detector's own"):
        export_model(tiny, target)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    assert target.read_bytes() == b"before"


@pytest.mark.usefixtures("exporter_done")
def test_differences_within_the_tolerance_are_written_and_told(
    tiny: SAPatchCore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "onnx_session", Wrong("map", 1.0005))
    found = export_model(tiny, tmp_path / "m.onnx")["check"]
    assert 4e-4 < found["different"]["map"] < 6e-4


def checker(tiny: SAPatchCore) -> check.Check:
    return check.Check(export.cpu_embedder(tiny), tiny.bank, tiny.calibration, tiny.calibration)


def outputs_of(tiny: SAPatchCore, image: Any) -> Any:
    """What a file that agrees to the last digit gives."""
    result = tiny.predict(image)
    return {
        "score": result.scores,
        "local_score": result.local_scores,
        "context_score": result.context_scores,
        "patch_scores": result.patch_scores,
        "local_patches": result.local_patches,
        "context_patches": result.context_patches,
        "neighbours": result.neighbours,
        "map": np.stack(list(result.maps)),
        "p_value": result.p_values.astype(np.float32),
        "global_score": result.global_scores,
        "global_patches": result.global_patches,
    }


def test_a_verdict_that_tips_is_found_however_small_the_difference(tiny: SAPatchCore, good: Any) -> None:
    """A score within the tolerance, but on the other side of the threshold."""
    image, session = 255 - good[:1], Session(lambda _: values, None, "a runtime")
    values = outputs_of(tiny, image)
    one = checker(tiny)
    assert one.compare(session, list(image), "one", strict=True).other_verdicts == 0
    # Calibration scores just below and above what the two say.
    score = float(values["score"][0])
    calibration = tiny.calibration
    for factor, own_p, other_p in ((0.9998, 1 / 11, 1.0), (1.0002, 1.0, 1 / 11)):
        near = np.full_like(calibration.scores, score * factor)
        one._calibration = one._file_calibration = type(calibration)(**{**vars(calibration), "scores": near})
        values = outputs_of(tiny, image)
        values["score"] = values["score"] * np.float32(factor**2)  # 4e-4 away
        values["p_value"] = np.float32([own_p])
        with pytest.raises(ModelFileError, match=r"verdict on a 64×64 .* is another"):
            one.compare(session, list(image), "one", strict=True)
        assert one.compare(session, list(image), "one", strict=False).other_verdicts == 1
        values["p_value"] = np.float32([other_p])
        with pytest.raises(ModelFileError, match=r"The file's p_value of a 64×64 "):
            one.compare(session, list(image), "one", strict=True)


def test_an_image_on_the_threshold_itself_may_go_either_way(tiny: SAPatchCore, good: Any) -> None:
    image = 255 - good[:1]
    values = outputs_of(tiny, image)
    score, calibration, one = float(values["score"][0]), tiny.calibration, checker(tiny)
    one._calibration = one._file_calibration = type(calibration)(
        **{**vars(calibration), "scores": np.full_like(calibration.scores, score)}
    )
    for factor, p in ((1 + 2e-7, 1 / 11), (1 - 2e-7, 1.0)):
        values = {**values, "score": np.float32([score * factor]), "p_value": np.float32([p])}
        found = one.compare(Session(lambda _: values, None, "a runtime"), list(image), "one", strict=True)  # noqa: B023
        assert (found.on_the_line, found.other_verdicts, found.verdicts) == (1, 0, 1)


@pytest.mark.usefixtures("exporter_done")
def test_images_to_check_on(tiny: SAPatchCore, image_folder: Path, tmp_path: Path) -> None:
    found = export_model(tiny, tmp_path / "m.onnx", check=image_folder)["check"]
    assert found["source"] == "10 images of good and 6 made images of odd sizes"
    assert found["images"] == 16
    (image_folder / "05.png").write_bytes(b"no image")
    with pytest.raises(SAPatchCoreError, match=r"05\.png"):
        export_model(tiny, tmp_path / "other.onnx", check=image_folder)
    assert not (tmp_path / "other.onnx").exists()
