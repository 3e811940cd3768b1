"""What several commands share: their options, and the sentence about the promised rate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[Path, typer.Argument(help="A model file.")]
AnyModel = Annotated[Path, typer.Argument(help="A model file, or an exported one (.onnx, .xml).")]
Device = Annotated[str, typer.Option(help="Where to compute.")]
WeightsFile = Annotated[str | None, typer.Option(help="For a model file without weights: where they are.")]
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
        "the layout has one, else every training image against the model less its own patches."
    ),
]
Log = Annotated[str, typer.Option(help="Also log to tensorboard, mlflow or wandb, where it is installed.")]


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
