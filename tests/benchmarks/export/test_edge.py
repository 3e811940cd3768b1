"""edge.py as far as it needs no package index: sizes, what is run where, times and their ratio."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripts import script


@pytest.fixture(scope="module")
def edge() -> Any:
    return script("benchmarks/export/edge.py")


def test_sizes_count_every_file_once(edge: Any, tmp_path: Path) -> None:
    files = {
        "numpy/core.so": 3_000_000,
        "torch/lib/libtorch_cpu.so": 5_000_000,
        "torch/lib/libtorch_cuda.so": 7_000_000,
        "torch/lib/libtorch_cuda_linalg.so": 1_000_000,
        "nvidia/cu13/lib/libcublas.so": 11_000_000,
        "numpy-2.4.6.dist-info/METADATA": 500_000,
        "single.py": 250_000,
    }
    for name, count in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(count))
    (tmp_path / "nvidia/cu13/lib/again.so").symlink_to("libcublas.so")
    link = len("libcublas.so") / 1e6  # a link takes the bytes of its text
    found = edge.size(tmp_path)
    assert found["megabytes"] == pytest.approx(27.75 + link)
    assert found["of_it_for_gpus"] == pytest.approx(19 + link)
    assert found["packages"] == 1
    assert list(found["largest"]) == ["torch", "nvidia", "numpy", "numpy-2.4.6.dist-info", "single.py"]
    assert found["largest"]["torch"] == 13


def test_each_environment_runs_its_own_program_and_model(
    edge: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge, "process", lambda *command: [str(part) for part in command])
    programs = {"edge": Path("/e"), "learn": Path("/l")}
    asked = edge.variants(programs, None, None, None)
    assert list(asked) == ["sapatchcore --version", "import sapatchcore", "import what scores"]
    assert asked["sapatchcore --version"] == {
        "edge": ["/e/sapatchcore", "--version"],
        "learn": ["/l/sapatchcore", "--version"],
    }
    both = edge.variants(programs, Path("m.onnx"), Path("m.safetensors"), tmp_path)["sapatchcore predict"]
    assert both["edge"] == ["/e/sapatchcore", "predict", "m.onnx", str(tmp_path), "--quiet"]
    assert both["learn"][:3] == ["/l/sapatchcore", "predict", "m.safetensors"]
    alone = edge.variants(programs, Path("m.onnx"), None, tmp_path)["sapatchcore predict"]
    assert list(alone) == ["edge"]


def test_times_and_their_ratio(edge: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = [0.0]
    monkeypatch.setattr(edge, "processor_seconds", lambda: clock[0])

    def taking(*seconds: float) -> Callable[[], None]:
        times = iter(seconds)
        return lambda: clock.__setitem__(0, clock[0] + next(times))

    asked = {"both": {"edge": taking(9, 1, 2), "learn": taking(9, 3, 8)}, "one": {"edge": taking(9, 5, 5)}}
    found = edge.timed(asked, 2)  # and a round before, which does not count
    taken = found["both"]["by_the_processor"]
    assert taken["edge"] == {"median": 1.5, "min": 1, "max": 2, "rounds": 2}
    assert taken["learn"] == {"median": 5.5, "min": 3, "max": 8, "rounds": 2}
    assert taken["learn_over_edge"] == {"median": 3.5, "min": 3, "max": 4, "rounds": 2}
    assert set(found["both"]["by_the_clock"]) == set(taken)
    assert set(found["one"]["by_the_processor"]) == {"edge"}
    sizes = {extra: {"packages": 3, "megabytes": 20.0, "of_it_for_gpus": 12.0} for extra in ("edge", "learn")}
    edge.show({"installed": sizes, "seconds": found})
    printed = capsys.readouterr().out.splitlines()
    assert printed[1].split() == ["edge", "3", "20", "8"]
    assert "–" in printed[-2]


def test_a_process_that_fails_ends_the_run(edge: Any) -> None:
    edge.process(sys.executable, "-c", "")()
    with pytest.raises(SystemExit, match="went wrong"):
        edge.process(sys.executable, "-c", "raise SystemExit('went wrong')")()


@pytest.mark.parametrize(
    "arguments",
    [["--data", "x"], ["--model", "m.onnx"], ["--images", "x"], ["--learned", "m.safetensors", "--images", "x"]],
)
def test_options_that_do_not_go_together(edge: Any, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        edge.main(arguments)
    assert stop.value.code == 2
    assert "--model" in capsys.readouterr().err
