"""export_speed.py as far as it needs no package index: what runs, and what is asked of the other environment."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from exporting import already_fitted, exporter_done, program, tiny
from scripts import script

from sapatchcore import SAPatchCore

pytest.importorskip("openvino")
pytest.importorskip("nncf")

__all__ = ["exporter_done", "program", "tiny"]  # fixtures

# Answers as export_speed_anomalib.py does, and ends at "end".
STAND_IN = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    if asked["name"] == "end":
        break
    print(json.dumps({"seconds": [0.5] * asked["runs"]}), flush=True)
"""


@pytest.fixture(scope="module")
def speed() -> Any:
    return script("benchmarks/export/export_speed.py")


@pytest.mark.usefixtures("exporter_done")
def test_every_exported_file_is_timed_and_judged(
    speed: Any, tiny: SAPatchCore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "export_speed.json"
    monkeypatch.setattr(speed, "PRECISIONS", ("int8",))
    monkeypatch.setattr(speed, "SAPatchCore", already_fitted(tiny))
    speed.main(["--quick", "--without-anomalib", "--runtimes", "OpenVINO", "--output", str(output)])
    results = json.loads(output.read_text(encoding="utf-8"))["results"]
    assert results["bank"] == list(tiny.memory_bank.shape)
    assert set(results["export"]) == {"OpenVINO int8"}
    assert 1e5 < results["export"]["OpenVINO int8"]["bytes"] < 2e6
    kinds = (f"ours, OpenVINO int8: {kind}" for kind in ("graph", "predict"))
    assert set(results["speed"]["ms_an_image"]) == {*kinds, speed.BARE}


def test_times_faster_compares_within_a_kind_and_the_right_way_round(speed: Any) -> None:
    seconds = {
        speed.BARE: [1.0, 1.0, 1.0],
        "ours, OpenVINO int8: graph": [1.0, 2.0, 2.0],
        "ours, OpenVINO int8: predict": [2.0, 2.0, 2.0],
        "anomalib, graph, float32": [4.0, 4.0, 6.0],
        "anomalib, predict, float32": [8.0, 8.0, 8.0],
    }
    found = speed.speed(seconds, count=4)
    graph = found["times_faster, graph"]["ours, OpenVINO int8: graph"]
    assert list(graph) == ["anomalib, graph, float32"]
    assert graph["anomalib, graph, float32"]["median"] == 3.0  # of 4, 2 and 3
    assert found["times_faster, predict"]["ours, OpenVINO int8: predict"]["anomalib, predict, float32"]["median"] == 4.0
    assert found["ms_an_image"]["anomalib, graph, float32"]["median"] == 1000.0
    assert found["over_bare_network"]["ours, OpenVINO int8: graph"]["max"] == 2.0


def test_answers_come_line_by_line_and_an_early_end_is_said(speed: Any) -> None:
    command = [sys.executable, "-c", STAND_IN]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        for runs in (1, 3):
            assert speed.answer(process, {"name": "graph", "runs": runs}) == {"seconds": [0.5] * runs}
        with pytest.raises(SystemExit, match="ended before it answered"):
            speed.answer(process, {"name": "end", "runs": 0})


def test_the_environment_is_made_once(speed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(command[1:3])
        (tmp_path / "anomalib").mkdir(exist_ok=True)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(speed.subprocess, "run", run)
    for _ in range(2):
        assert speed.environment(tmp_path / "anomalib") == tmp_path / "anomalib" / "bin" / "python"
    assert [command[0] for command in asked] == ["venv", "pip"]


def test_an_environment_that_failed_is_not_taken_for_ready(
    speed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "no such package")
    monkeypatch.setattr(speed.subprocess, "run", lambda *_, **__: failed)
    for _ in range(2):
        with pytest.raises(SystemExit, match="no such package"):
            speed.environment(tmp_path / "anomalib")


def test_timed_images_are_large_and_of_one_size(speed: Any) -> None:
    images = speed.timed_images(None, 2)
    assert images.shape == (2, 1024, 1024, 3)
    assert (images[0] != images[1]).any()
