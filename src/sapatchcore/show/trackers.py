"""Experiment trackers: the settings, figures and pictures of a run, for TensorBoard, MLflow or Weights & Biases.

    with tracked("mlflow", run="screw", settings=settings.model_dump(mode="json"), folder=output, warn=print) as tracker:
        tracker.figures({"image_auroc": 0.98, "per_defect_auroc": {"cut": 0.97}})

What is written where, without an account or a server:
tensorboard: ``folder``/tensorboard/<run>, and <run>-2 for the next one: two runs in one folder would be drawn as one curve.
mlflow: where MLFLOW_TRACKING_URI says, else the files of ``folder``/mlflow.
wandb: online where there is a key (WANDB_API_KEY or netrc), else ``folder``/wandb; WANDB_MODE outranks both.

The libraries are optional, and imported when one is asked for. What they print goes to standard error, because standard
output holds what --json promises. A tracker that fails costs a sentence, never the work that it was to log.
"""

from __future__ import annotations

import json
import math
import netrc
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from itertools import chain, count
from numbers import Real
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from sapatchcore.errors import SAPatchCoreError, SettingsError, did_you_mean
from sapatchcore.show.drawing import UInt8Array

TRACKERS = ("tensorboard", "mlflow", "wandb")
PROJECT = "sapatchcore"

T = TypeVar("T")

# Of each: the module, the name in it that is used (a mere folder of the module's name can be imported too), the package.
_NEEDS = {
    "tensorboard": ("torch.utils.tensorboard", "SummaryWriter", "tensorboard"),
    "mlflow": ("mlflow", "MlflowClient", "mlflow-skinny"),
    "wandb": ("wandb", "init", "wandb"),
}
# Set before the import unless the user has: MLflow asks for a yes to its file store, the only one that needs neither a
# server nor SQLAlchemy; and what is inspected is nobody's business, so no library reports to its makers.
_ENVIRONMENT = {
    "tensorboard": {},
    "mlflow": {"MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_DISABLE_TELEMETRY": "true"},
    "wandb": {
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_SILENT": "true",
        # Seconds, after which a service that does not answer is given up: at the start, and with the work done.
        "WANDB_INIT_TIMEOUT": "30",
        "WANDB_FINISH_TIMEOUT": "300",
        "WANDB_FINISH_TIMEOUT_RAISES": "true",
    },
}


class Library(Protocol):
    """One library's side of a run. values: finite numbers by flat names; pixels: (h, w, 3) uint8."""

    def figures(self, values: dict[str, float], step: int | None) -> None: ...
    def picture(self, name: str, pixels: UInt8Array, step: int | None) -> None: ...
    def close(self, *, failed: bool) -> None: ...


class TensorBoard:
    """``folder``/tensorboard/<run>."""

    def __init__(self, run: str, settings: Mapping[str, Any], folder: Path) -> None:
        writer = import_module("torch.utils.tensorboard").SummaryWriter
        self._writer = writer(log_dir=os.fspath(_free(folder / "tensorboard" / run)))
        rows = [f"| {name} | {_text(value)} |" for name, value in _flat(settings)]
        self._writer.add_text("settings", "\n".join(["| setting | value |", "|---|---|", *rows]))

    def figures(self, values: dict[str, float], step: int | None) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()  # else a full disk shows minutes later, or never

    def picture(self, name: str, pixels: UInt8Array, step: int | None) -> None:
        self._writer.add_image(name, pixels, step, dataformats="HWC")

    def close(self, *, failed: bool) -> None:  # noqa: ARG002  TensorBoard has no failed runs
        self._writer.close()


class MLflow:
    """The server that the environment names, else ``folder``/mlflow."""

    def __init__(self, run: str, settings: Mapping[str, Any], folder: Path, project: str) -> None:
        client = import_module("mlflow").MlflowClient
        self._entities = import_module("mlflow.entities")
        store = os.environ.get("MLFLOW_TRACKING_URI") or (folder / "mlflow").resolve().as_uri()
        self._client = client(tracking_uri=store)
        experiment = self._client.get_experiment_by_name(project)
        number = experiment.experiment_id if experiment else self._client.create_experiment(project)
        self._run = self._client.create_run(number, run_name=run).info.run_id
        params = [self._entities.Param(_allowed(name), _text(value)) for name, value in _flat(settings)]
        self._client.log_batch(self._run, params=params)

    def figures(self, values: dict[str, float], step: int | None) -> None:
        now = time.time_ns() // 1_000_000
        metrics = [self._entities.Metric(_allowed(name), value, now, step or 0) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def picture(self, name: str, pixels: UInt8Array, step: int | None) -> None:
        file = f"{_allowed(name)}.png" if step is None else f"{_allowed(name)}/{step:06d}.png"
        self._client.log_image(self._run, pixels, artifact_file=file)

    def close(self, *, failed: bool) -> None:
        self._client.set_terminated(self._run, "FAILED" if failed else "FINISHED")


class Wandb:
    """wandb's service, or ``folder``/wandb."""

    def __init__(self, run: str, settings: Mapping[str, Any], folder: Path, project: str, key: str | None) -> None:
        self._wandb: Any = import_module("wandb")
        # Where this cannot be made, wandb would take the system's temporary folder, and we would not hear of it.
        (folder / "wandb").mkdir(parents=True, exist_ok=True)
        mode = os.environ.get("WANDB_MODE") if key is None else None
        self._run = self._wandb.init(
            project=project,
            name=run,
            dir=os.fspath(folder),
            mode=mode or ("online" if key or (key is None and _has_key()) else "offline"),
            config=dict(settings),
            reinit="create_new",  # a run that the caller's own program has open stays open
            # Standard output stays ours; a key stays in memory (wandb.login would write it to netrc).
            settings=self._wandb.Settings(console="off", **({"api_key": key} if key else {})),
        )
        self._run.define_metric("*", step_metric="step")

    def figures(self, values: dict[str, float], step: int | None) -> None:
        self._log(dict(values), step)

    def picture(self, name: str, pixels: UInt8Array, step: int | None) -> None:
        self._log({name: self._wandb.Image(pixels)}, step)

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))

    def _log(self, values: dict[str, Any], step: int | None) -> None:
        # As an axis of our own: wandb's step may only grow, and what comes with a smaller one is dropped.
        self._run.log(values if step is None else {**values, "step": step})


class Tracker:
    """Takes figures and pictures until the library fails once; from then on, and without a library, does nothing."""

    def __init__(self, name: str | None, warn: Callable[[str], None]) -> None:
        self._name, self._warn = name, warn
        self._library: Library | None = None
        self._failed = False

    def figures(self, values: Mapping[str, Any], step: int | None = None) -> None:
        """Log the finite numbers in ``values``; nested mappings become "outer/inner".

        All else is skipped, so an ``Evaluation.to_dict()`` can be given as it is. step: the position on a curve's axis.
        """
        numbers = {name: float(value) for name, value in _flat(values) if _is_finite(value)}
        if (library := self._library) and numbers and not self._failed:
            self._attempt(lambda: library.figures(numbers, step))

    def picture(self, name: str, pixels: UInt8Array, step: int | None = None) -> None:
        """Log a picture. pixels: (h, w, 3) uint8 RGB."""
        if (library := self._library) and not self._failed:
            self._attempt(lambda: library.picture(name, pixels, step))

    def _open(self, make: Callable[[], Library]) -> None:
        self._library = self._attempt(make)

    def _close(self, *, failed: bool) -> None:
        if library := self._library:  # after a failure too: a library may have threads or a process of its own
            self._attempt(lambda: library.close(failed=failed))

    def _attempt(self, call: Callable[[], T]) -> T | None:
        try:
            with redirect_stdout(sys.stderr):
                return call()
        except Exception as error:  # whatever a library or its service raises: the work goes on
            if not self._failed:
                self._failed = True
                # The first line alone: further ones may quote what was passed, a key among it.
                text = f"{type(error).__name__}: {str(error).strip()}".splitlines()[0].strip(" .:")
                self._warn(f"{self._name} failed, and nothing more is logged to it: {text}.")
            return None


def check_tracker(name: str) -> None:
    """Raises SettingsError for an unknown tracker, SAPatchCoreError where its library is missing. To call before work."""
    if name not in TRACKERS:
        raise SettingsError(f"log must be one of {', '.join(TRACKERS)}. Got {name!r}.{did_you_mean(name, TRACKERS)}")
    module, attribute, package = _NEEDS[name]
    for variable, value in _ENVIRONMENT[name].items():
        os.environ.setdefault(variable, value)
    try:
        with redirect_stdout(sys.stderr):
            getattr(import_module(module), attribute)
    except (ImportError, AttributeError):
        raise SAPatchCoreError(
            f"{name} is not installed, so nothing can be logged to it. Install it: pip install {package}"
        ) from None
    except Exception as error:
        raise SAPatchCoreError(
            f"{name} is installed but cannot be loaded ({type(error).__name__}). Install it again: pip install {package}"
        ) from error


@contextmanager
def tracked(
    name: str | None,
    *,
    run: str,
    settings: Mapping[str, Any],
    folder: Path,
    warn: Callable[[str], None],
    project: str = PROJECT,
    key: str | None = None,
) -> Iterator[Tracker]:
    """A tracker for the work inside; name None: one that does nothing.

    run: the run's name. settings: JSON-ready. warn: gets one sentence where the tracker fails, at the start, in the middle
    or at the end. project: wandb's project, MLflow's experiment. key: wandb's; given, it alone decides: online, or offline
    where it is empty. An exception of the work goes on, and closes the run as failed where the library knows such a thing.

    Raises what ``check_tracker`` raises.
    """
    tracker = Tracker(name, warn)
    if name is not None:
        check_tracker(name)
        makers: dict[str, Callable[[], Library]] = {
            "tensorboard": lambda: TensorBoard(run, settings, folder),
            "mlflow": lambda: MLflow(run, settings, folder, project),
            "wandb": lambda: Wandb(run, settings, folder, project, key),
        }
        tracker._open(makers[name])
    try:
        yield tracker
    except BaseException:
        tracker._close(failed=True)
        raise
    tracker._close(failed=False)


def _is_finite(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _has_key() -> bool:
    """Whether wandb finds a key for its service without asking."""
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname
    file = Path(os.environ.get("NETRC") or "~/.netrc")
    try:
        return bool(os.environ.get("WANDB_API_KEY")) or host in netrc.netrc(file.expanduser()).hosts
    except (OSError, RuntimeError, ValueError, netrc.NetrcParseError):  # no file, no home, or it cannot be read
        return False


def _free(path: Path) -> Path:
    names = (path.with_name(f"{path.name}-{number}") for number in count(2))
    return next(free for free in chain([path], names) if not free.exists())


def _flat(values: Mapping[str, Any], outer: str = "") -> Iterator[tuple[str, Any]]:
    """("a/b", 1) of {"a": {"b": 1}}."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{outer}{name}/")
        else:
            yield f"{outer}{name}", value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _allowed(name: str) -> str:
    """The name as MLflow takes it; a defect's name is a folder's, and can be anything."""
    return re.sub(r"[^/\w.\- ]", "_", name)
