"""What each tracker's library is told: one class a library, alike from outside."""

from __future__ import annotations

import json
import netrc
import os
import re
import time
from collections.abc import Iterator, Mapping
from importlib import import_module
from itertools import chain, count
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]


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
        rows = [f"| {name} | {_text(value)} |" for name, value in flat(settings)]
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
        place = os.environ.get("MLFLOW_TRACKING_URI") or (folder / "mlflow").resolve().as_uri()
        self._client = client(tracking_uri=place)
        experiment = self._client.get_experiment_by_name(project)
        number = experiment.experiment_id if experiment else self._client.create_experiment(project)
        self._run = self._client.create_run(number, run_name=run).info.run_id
        params = [self._entities.Param(_allowed(name), _text(value)) for name, value in flat(settings)]
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


def flat(values: Mapping[str, Any], outer: str = "") -> Iterator[tuple[str, Any]]:
    """("a/b", 1) of {"a": {"b": 1}}."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{outer}{name}/")
        else:
            yield f"{outer}{name}", value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _allowed(name: str) -> str:
    """The name as MLflow takes it; a defect's name is a folder's, and can be anything."""
    return re.sub(r"[^/\w.\- ]", "_", name)
