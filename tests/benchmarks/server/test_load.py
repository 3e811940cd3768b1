"""Under load for a few seconds, beyond what it can do, and killed: the short form of benchmarks/server/load.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scripts import script

from sapatchcore import SAPatchCore

if not Path("/proc/self/status").is_file():
    pytest.skip("the load test reads memory from /proc", allow_module_level=True)

figures, harness = script("benchmarks/server/answers.py"), script("benchmarks/server/process.py")
killing = script("benchmarks/server/kill.py")


@pytest.fixture
def images(image_folder: Path) -> list[Path]:
    """Four image files; one of them a JPEG."""
    found = sorted(image_folder.glob("*.png"))[:3]
    picture = image_folder / "more.jpg"
    Image.open(found[0]).save(picture)
    return [*found, picture]


@pytest.fixture(scope="module")
def server(light_fitted: SAPatchCore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One for all tests: it is to recover from each. Its queue holds eight images."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "models").mkdir()
    light_fitted.save(folder / "models" / f"{harness.MODEL}.safetensors")
    found = harness.Server(folder, "--queue", "8", "--max-images", "4")
    found.start()
    yield found
    found.kill()


def test_every_accepted_request_is_answered_and_recorded_once(server: Any, images: list[Path], tmp_path: Path) -> None:
    before = len(server.records())
    answers = harness.Generator(tmp_path, server, images, clients=8, seconds=2.0, first=0).wait(60)
    records = server.records()[before:]
    counts = figures.accounted(answers["answered"], records)
    assert figures.statuses(answers["answered"]).keys() == {"200"}
    assert answers["failures"] == {}
    assert figures.faults(counts) == {}
    assert counts["answered"] == len(records) >= 8


def test_beyond_the_queue_there_are_503_alone(server: Any, images: list[Path], tmp_path: Path) -> None:
    before, task = len(server.records()), {"rate": 300.0, "seconds": 2.0, "probe": 5.0, "first": 1_000_000}
    answers = harness.Generator(tmp_path, server, images, **task).wait(120)
    both = [*answers["answered"], *answers["probed"]]
    counts = figures.accounted(both, server.records()[before:])
    assert answers["failures"] == {}
    assert figures.statuses(both).keys() == {"200", "503"}
    assert answers["probed"][-1][2] == 200, "it did not recover"
    assert figures.faults(counts) == {}
    assert counts["unanswered"] == 0
    assert server.tracebacks() == []


def test_what_was_answered_outlives_a_kill(server: Any, images: list[Path], tmp_path: Path) -> None:
    """The numbers of its comments are its own: nothing before is counted."""
    before = len(server.records())
    found = killing.sigkill(tmp_path, server, images, rounds=1)
    assert found["records"]["answered"] > 0
    assert len(server.records()) >= before + found["records"]["answered"]
    assert found["faults"] == {}
    assert found["integrity"] == ["ok"]
    assert found["models"] == ["whole"]
    assert found["left_behind"] == []
    assert found["other_hash_from_the_server"] == 0


def test_what_the_load_test_calls_a_fault() -> None:
    """By hand: five answers, each with one thing wrong, beside one that is right."""
    answered = [
        *([0.0, 0.1, 200, 1, "a"], [0.0, 0.1, 200, 2, "b"], [0.0, 0.1, 200, 2, "c"]),
        *([0.0, 0.1, 200, 9, "d"], [0.0, 0.1, 503, None, "e"], [0.0, 0.1, 200, 4, "f"]),
    ]
    counts = figures.accounted(answered, [(1, "a"), (2, "b"), (3, "e"), (4, "x"), (5, "y"), (6, "y")])
    assert counts == {
        "answered": 5,
        "missing": 1,  # 9
        "another_image": 2,  # 2 for c, 4 for f
        "number_given_twice": 1,  # 2
        "recorded_twice": 1,  # y
        "recorded_though_refused": 1,  # e
        "unanswered": 3,  # e, x and y
    }
    assert figures.faults(counts).keys() == counts.keys() - {"answered", "unanswered"}
    assert figures.faults(figures.accounted(answered[:2], [(1, "a"), (2, "b"), (3, "z")])) == {}


def test_flatness_is_a_slope_with_its_error() -> None:
    seconds = np.arange(120.0)
    grown = figures.flatness(seconds, (1e9 + 1e6 * seconds).tolist())
    assert grown["slope_mb_a_minute"] == pytest.approx(60)
    assert grown["slope_error"] == pytest.approx(0, abs=1e-6)
    noise = np.random.default_rng(0).normal(0, 2e6, 120)
    flat = figures.flatness(seconds, (1e9 + noise).tolist())
    assert abs(flat["slope_mb_a_minute"]) < 4 * flat["slope_error"]
    assert flat["residual_mb"] == pytest.approx(2, rel=0.3)


@pytest.mark.parametrize("stage", ["latency"])
def test_the_load_test_runs(stage: str, tmp_path: Path) -> None:
    output = tmp_path / "load.json"
    output.write_text(json.dumps({"results": {"fuzz": {"kept": 1}, stage: {"old": 1}}}), encoding="utf-8")
    script("benchmarks/server/load.py").main([stage, "--quick", "--output", str(output)])
    results = json.loads(output.read_text(encoding="utf-8"))["results"]
    assert results["fuzz"] == {"kept": 1}
    assert "old" not in results[stage]
    assert results[stage]["jpeg 700"]["over_predict_ms"]["count"] == 3
    assert results[stage]["stopped_with"] == 0
    assert results[stage]["environment"]["cpus"]
