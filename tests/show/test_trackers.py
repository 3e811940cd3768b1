"""Trackers: what was logged can be read back, with the real libraries and without a network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sapatchcore.errors import SAPatchCoreError, SettingsError
from sapatchcore.show.trackers import _ENVIRONMENT, TRACKERS, check_tracker, tracked

SETTINGS = {"backbone": "builtin", "layers": ["layer2", "layer3"], "crop": None, "server": {"port": 80}}
PIXELS = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3) * 4


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key, no server and no home of whoever runs the tests; and what ``check_tracker`` sets is unset again."""
    ours = [name for names in _ENVIRONMENT.values() for name in names]
    for name in (*ours, "MLFLOW_TRACKING_URI", "WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def needs(name: str) -> None:
    pytest.importorskip(name, reason=f"{name} is not installed")


def work(
    name: str | None,
    folder: Path,
    *,
    warn: Callable[[str], None] = pytest.fail,
    key: str | None = None,
    run: str = "a run",
) -> None:
    """What every test of a library logs."""
    with tracked(name, run=run, settings=SETTINGS, folder=folder, warn=warn, key=key) as tracker:
        for step, area in enumerate([0.5, 0.75]):
            tracker.figures({"image_auroc": np.float32(area)}, step)
        tracker.figures({"defects": {"groß (cut)": 1}, "aupro": None, "f1": float("nan"), "far": float("inf")})
        tracker.figures({"category": "screw", "scores": [1.0], "is_good": True})
        tracker.picture("maps/worst", PIXELS, 3)
        tracker.picture("gallery", PIXELS)


class Wandb(ModuleType):
    """A stand-in that keeps what it was sent."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.options: dict[str, Any] = {}
        self.sent: list[Any] = []
        self.closed: list[int] = []
        self.Settings = dict
        self.Image = lambda pixels: ("picture", pixels.tolist())

    def init(self, **options: Any) -> SimpleNamespace:
        print("wandb: Tracking run")
        self.options = options
        return SimpleNamespace(log=self.log, finish=self.finish, define_metric=lambda *_, **__: None)

    def log(self, values: dict[str, Any]) -> None:
        self.sent.append(values)

    def finish(self, exit_code: int) -> None:
        self.closed.append(exit_code)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Wandb:
    module = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_tensorboard(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    needs("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    work("tensorboard", tmp_path)
    work("tensorboard", tmp_path)
    assert capfd.readouterr().out == ""
    folders = sorted(path.name for path in (tmp_path / "tensorboard").iterdir())
    assert folders == ["a run", "a run-2"]
    for folder in folders:
        events = EventAccumulator(str(tmp_path / "tensorboard" / folder)).Reload()
        assert sorted(events.Tags()["scalars"]) == ["defects/groß (cut)", "image_auroc"]
        assert [(one.step, one.value) for one in events.Scalars("image_auroc")] == [(0, 0.5), (1, 0.75)]
        assert [one.value for one in events.Scalars("defects/groß (cut)")] == [1]
        assert sorted(events.Tags()["images"]) == ["gallery", "maps/worst"]
        (picture,) = events.Images("maps/worst")
        assert (picture.step, picture.height, picture.width) == (3, 4, 5)
        (text,) = events.Tensors("settings/text_summary")
        said = text.tensor_proto.string_val[0].decode()
        assert '| layers | ["layer2", "layer3"] |' in said
        assert "| server/port | 80 |" in said


@pytest.mark.parametrize("elsewhere", [False, True])
def test_mlflow(
    elsewhere: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    needs("mlflow")
    store = tmp_path / ("other" if elsewhere else "an output/mlflow")
    if elsewhere:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", store.as_uri())
    work("mlflow", tmp_path / "an output")
    work("mlflow", tmp_path / "an output")
    assert capfd.readouterr().out == ""
    assert (tmp_path / "an output").exists() is not elsewhere

    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=store.as_uri())
    experiment = client.get_experiment_by_name("sapatchcore")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 2
    for run in runs:
        assert (run.info.run_name, run.info.status) == ("a run", "FINISHED")
        assert run.data.params == {
            "backbone": "builtin",
            "layers": '["layer2", "layer3"]',
            "crop": "null",
            "server/port": "80",
        }
        assert run.data.metrics == {"image_auroc": 0.75, "defects/groß _cut_": 1}
        history = client.get_metric_history(run.info.run_id, "image_auroc")
        assert [(one.step, one.value) for one in history] == [(0, 0.5), (1, 0.75)]
        for name in ("gallery.png", "maps/worst/000003.png"):
            file = client.download_artifacts(run.info.run_id, name)
            np.testing.assert_array_equal(np.asarray(Image.open(file)), PIXELS)


def test_wandb_offline_for_real(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    needs("wandb")
    work("wandb", tmp_path)
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    (log,) = folder.glob("run-*.wandb")
    # Its service writes on in a process of its own when the run has been finished.
    for _ in range(100):
        if b"image_auroc" in (content := log.read_bytes()):
            break
        time.sleep(0.1)
    assert b"image_auroc" in content
    assert b"backbone" in content
    pictures = [np.asarray(Image.open(path)) for path in folder.rglob("*.png")]
    assert len(pictures) == 2
    assert all(np.array_equal(one, PIXELS) for one in pictures)


def test_wandb_is_sent_just_this(tmp_path: Path, wandb: Wandb, capfd: pytest.CaptureFixture[str]) -> None:
    work("wandb", tmp_path)
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "wandb: Tracking run\n")  # a library's own words never reach standard output
    assert wandb.options == {
        "project": "sapatchcore",
        "name": "a run",
        "dir": str(tmp_path),
        "mode": "offline",
        "config": SETTINGS,
        "reinit": "create_new",
        "settings": {"console": "off"},
    }
    assert wandb.sent == [
        {"image_auroc": 0.5, "step": 0},
        {"image_auroc": 0.75, "step": 1},
        {"defects/groß (cut)": 1.0},
        {"maps/worst": ("picture", PIXELS.tolist()), "step": 3},
        {"gallery": ("picture", PIXELS.tolist())},
    ]
    assert wandb.closed == [0]
    assert os.environ["WANDB_SILENT"] == "true"


@pytest.mark.parametrize(
    ("environment", "key", "mode"),
    [
        ({}, None, "offline"),
        ({"WANDB_API_KEY": "k"}, None, "online"),
        ({"WANDB_API_KEY": "k", "WANDB_MODE": "offline"}, None, "offline"),
        ({"WANDB_MODE": "disabled"}, None, "disabled"),
        ({"NETRC": "machine api.wandb.ai login user password k"}, None, "online"),
        ({"NETRC": "machine other.example login user password k"}, None, "offline"),
        ({"NETRC": "machine our.host login u password k", "WANDB_BASE_URL": "https://our.host:8080"}, None, "online"),
        ({"NETRC": "what is this"}, None, "offline"),
        ({}, "s3cret", "online"),
        ({"WANDB_API_KEY": "k", "WANDB_MODE": "online"}, "", "offline"),
    ],
)
def test_wandb_goes_online_with_a_key_alone(
    environment: dict[str, str],
    key: str | None,
    mode: str,
    tmp_path: Path,
    wandb: Wandb,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        if name == "NETRC":
            (tmp_path / "netrc").write_text(value + "\n")
            value = str(tmp_path / "netrc")
        monkeypatch.setenv(name, value)
    work("wandb", tmp_path, key=key)
    assert wandb.options["mode"] == mode
    assert wandb.options["settings"].get("api_key") == (key or None)
    assert "s3cret" not in json.dumps(wandb.options["config"])


def test_none_does_nothing(tmp_path: Path) -> None:
    work(None, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_tracker_is_refused(tmp_path: Path) -> None:
    for use in (check_tracker, lambda name: work(name, tmp_path)):
        with pytest.raises(SettingsError, match=r"tensorboard, mlflow, wandb\. Got 'wandbb'\. Did you mean 'wandb'\?"):
            use("wandbb")


@pytest.mark.parametrize("name", TRACKERS)
@pytest.mark.parametrize("there", [None, ModuleType("a mere folder")])
def test_a_missing_library_is_said_before_the_work(
    name: str, there: ModuleType | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard" if name == "tensorboard" else name, there)
    for use in (check_tracker, lambda name: work(name, tmp_path)):
        with pytest.raises(SAPatchCoreError, match=rf"^{name} is not installed.*: pip install {name}(-skinny)?$"):
            use(name)


@pytest.mark.parametrize("name", TRACKERS)
def test_an_installed_library_is_there(name: str) -> None:
    needs(name)
    check_tracker(name)


def test_a_library_that_cannot_be_loaded_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "wandb"
    package.mkdir()
    (package / "__init__.py").write_text("raise TypeError('Descriptors cannot be created directly')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(SAPatchCoreError, match=r"wandb is installed but cannot be loaded \(TypeError\)"):
        check_tracker("wandb")


def test_nothing_is_imported_for_no_tracker() -> None:
    code = (
        "import sys, sapatchcore.show.trackers\n"
        "print([name for name in ('wandb', 'mlflow', 'tensorboard') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("name", TRACKERS)
def test_a_folder_that_cannot_be_costs_a_sentence(name: str, tmp_path: Path) -> None:
    needs(name)
    (tmp_path / "file").write_text("")
    problems: list[str] = []
    work(name, tmp_path / "file", warn=problems.append)
    (problem,) = problems
    assert problem.startswith(f"{name} failed, and nothing more is logged to it: ")
    assert "\n" not in problem


def test_a_failure_in_the_middle_is_said_once(tmp_path: Path, wandb: Wandb, monkeypatch: pytest.MonkeyPatch) -> None:
    def log(values: dict[str, Any]) -> None:
        wandb.sent.append(values)
        if len(wandb.sent) == 2:
            raise ConnectionError("The service is down.\nkey=s3cret")

    def finish(exit_code: int) -> None:
        wandb.closed.append(exit_code)
        raise ConnectionError("The service is still down.")

    monkeypatch.setattr(wandb, "log", log)
    monkeypatch.setattr(wandb, "finish", finish)
    problems: list[str] = []
    work("wandb", tmp_path, warn=problems.append)
    assert problems == ["wandb failed, and nothing more is logged to it: ConnectionError: The service is down."]
    assert len(wandb.sent) == 2
    assert wandb.closed == [0]


def test_a_failure_at_the_end_is_said(tmp_path: Path, wandb: Wandb, monkeypatch: pytest.MonkeyPatch) -> None:
    def finish(exit_code: int) -> None:
        raise TimeoutError(f"with {exit_code}")

    monkeypatch.setattr(wandb, "finish", finish)
    problems: list[str] = []
    work("wandb", tmp_path, warn=problems.append)
    assert problems == ["wandb failed, and nothing more is logged to it: TimeoutError: with 0."]

    with pytest.raises(KeyError, match="the work's own"), _tracked("wandb", tmp_path, problems.append):
        raise KeyError("the work's own")
    assert len(problems) == 2


def _tracked(name: str, folder: Path, warn: Callable[[str], None] = pytest.fail) -> Any:
    return tracked(name, run="a run", settings=SETTINGS, folder=folder, warn=warn)


def _fail_at_work(name: str, folder: Path, error: BaseException) -> None:
    def work_and_fail() -> None:
        with _tracked(name, folder) as tracker:
            tracker.figures({"image_auroc": 0.5})
            raise error

    with pytest.raises(type(error)) as caught:
        work_and_fail()
    assert caught.value is error


@pytest.mark.parametrize("error", [ValueError("no image"), KeyboardInterrupt()])
def test_a_failed_run_is_closed_as_failed(tmp_path: Path, wandb: Wandb, error: BaseException) -> None:
    _fail_at_work("wandb", tmp_path, error)
    assert wandb.closed == [1]


def test_a_failed_run_of_mlflow(tmp_path: Path) -> None:
    needs("mlflow")
    _fail_at_work("mlflow", tmp_path, ValueError("no image"))
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=(tmp_path / "mlflow").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("sapatchcore").experiment_id])
    assert run.info.status == "FAILED"
    assert run.data.metrics == {"image_auroc": 0.5}


def test_a_failed_run_of_tensorboard_keeps_its_figures(tmp_path: Path) -> None:
    needs("tensorboard")
    _fail_at_work("tensorboard", tmp_path, ValueError("no image"))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard/a run")).Reload()
    assert [one.value for one in events.Scalars("image_auroc")] == [0.5]
