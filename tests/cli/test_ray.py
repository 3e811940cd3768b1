"""The command line's options for many machines: wrong use is one sentence, before any work."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import run


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["fit", "x", "-o", "m.safetensors", "--shares", "2"], "--shares needs --ray, for example --ray local."),
        (["predict", "m", "x", "-o", "scores"], "--output needs --ray"),
        (["predict", "m", "x", "-o", "scores", "--ray-workers", "2"], "--output and --ray-workers need --ray"),
        (["predict", "m", "x", "--ray", "local"], "predict --ray needs --output FOLDER"),
        (
            ["predict", "m", "x", "-o", "s", "--ray", "local", "--maps", "m", "--map-format", "png"],
            "must be tiff or npy with",
        ),
        (["benchmark", "x", "--ray-workers", "2"], "--ray-workers needs --ray"),
        (["benchmark", "x", "--ray", "nowhere"], "holds no category|does not exist"),
    ],
)
def test_wrong_use(
    arguments: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) in (1, 2)
    error = capsys.readouterr().err
    assert any(part in error for part in sentence.split("|"))
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []
