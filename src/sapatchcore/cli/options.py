"""What several commands share: their options, those of settings.py, progress bars, and the sentence about the promised rate."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from sapatchcore.settings import Settings, settings_from

Model = Annotated[Path, typer.Argument(help="A model file.")]
AnyModel = Annotated[Path, typer.Argument(help="A model file, or an exported one (.onnx, .xml).")]
Device = Annotated[str, typer.Option(help="Where to compute.")]
WeightsFile = Annotated[str | None, typer.Option(help="For a model file without weights: where they are.")]
Product = Annotated[str | None, typer.Option(help="Of a model of several products: the one in question.")]
Layout = Annotated[str, typer.Option(help="The data set's layout: auto, mvtec, loco, cad_sd, visa, btad or plain.")]
Json = Annotated[bool, typer.Option("--json", help="For machines: JSON on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]
FalseReject = Annotated[
    float | None,
    typer.Option(help="The promised share of good parts that are rejected. Default: 0.01, or the smallest possible."),
]
Calibrate = Annotated[
    str | None,
    typer.Option(
        help="Folder or address of good images that are not learned from, for the thresholds. Default: a validation set where "
        "the layout has one, else every training image by a bank that was chosen without it."
    ),
]
Log = Annotated[str, typer.Option(help="Also log to tensorboard, mlflow or wandb, where it is installed.")]

_STAGES = {
    "embed": "Reading good images",
    "coreset": "Choosing patches",
    "calibrate": "Scoring good images",
    "predict": "Scoring",
    "check": "Checking the file",
    "explain": "Explaining",
    "report": "Drawing",
    "metrics": "Metrics",
    "maps": "Maps",
    "images": "Making images",
    "benchmark": "Categories and seeds",
}


def with_settings(command: Callable[..., None], without: Sequence[str] = ()) -> Callable[..., None]:
    """Give a command every option of settings.py but ``without``; it receives those that were given as ``options``, checked."""
    names = [name for name in Settings.model_fields if name not in without]
    own = inspect.signature(command, eval_str=True)
    added = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                str | None, typer.Option(help=f"{field.description} Default: {_shown(field.default)}.")
            ],
        )
        for name in names
        for field in [Settings.model_fields[name]]
    ]

    @functools.wraps(command)
    def wrapper(*args: Any, **given: Any) -> None:
        options = {name: given.pop(name) for name in names}
        chosen = {name: _typed(name, value) for name, value in options.items() if value is not None}
        settings_from(chosen)
        command(*args, **given, options=chosen)

    kept = [parameter for name, parameter in own.parameters.items() if name != "options"]
    wrapper.__signature__ = inspect.Signature([*kept, *added])  # type: ignore[attr-defined]
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in [*kept, *added]}
    return wrapper


def _typed(name: str, text: str) -> object:
    """A number where the option takes one; all else as it was written, for settings.py to read."""
    if isinstance(Settings.model_fields[name].default, int | float):
        for kind in (int, float):
            try:
                return kind(text)
            except ValueError:
                continue
    return int(text) if name == "projection" and text.isdigit() else text


def _shown(default: object) -> str:
    if isinstance(default, tuple):
        parts = cast(tuple[object, ...], default)
        return "x".join(map(str, parts)) if isinstance(parts[0], int) else ",".join(map(str, parts))
    return "none" if default is None else str(default)


@contextmanager
def progress_bars(*, quiet: bool) -> Iterator[Callable[[str, int, int | None], None] | None]:
    """A callback ``(stage, done, total)`` that draws one bar a stage on standard error, with the time left.

    None where nothing is drawn: with ``quiet``, and where standard error is no terminal.
    """
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield None
        return
    bars: dict[str, TaskID] = {}
    columns = (
        TextColumn("{task.description:20}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as drawn:

        def show(stage: str, done: int, total: int | None) -> None:
            if stage not in bars or drawn.tasks[bars[stage]].completed > done:  # the same stage again: a new bar
                bars[stage] = drawn.add_task(_STAGES.get(stage, stage), total=total)
            drawn.update(bars[stage], completed=done, total=total)

        yield show


def border_line(settings: Settings) -> str:
    """What share of each image is not inspected, and what to do about it; "" where that is none."""
    if not settings.not_inspected:
        return ""
    seen, whole = (f"{height}x{width}" for height, width in (settings.input_size, settings.resize))
    return (
        f"{settings.not_inspected:.0%} of each image, its border, is not inspected: crop {seen} of {whole}. Use --crop none to "
        "inspect all of it."
    )


def promised_rate(false_reject: float | None, calibration: int, *, quiet: bool) -> float:
    """The rate that verdicts promise, said on standard error where it is not the usual one."""
    from sapatchcore.score.threshold import FALSE_REJECT, check_rate, possible_rate

    if false_reject is not None:
        check_rate(false_reject, calibration)
        return false_reject
    rate = possible_rate(calibration)
    if rate > FALSE_REJECT and not quiet:
        warn(
            f"{calibration} calibration images can promise no smaller false-reject rate than {rate:.2%}: that is used."
        )
    return rate


def warn(sentence: str) -> None:
    """Say it on standard error."""
    typer.echo(sentence, err=True)
