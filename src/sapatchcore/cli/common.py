"""What several commands share: their options, and the sentence about the promised rate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sapatchcore.errors import ModelFileError, SettingsError

if TYPE_CHECKING:
    from sapatchcore.deploy.runtime import Exported
    from sapatchcore.detector import SAPatchCore

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
    Path | None,
    typer.Option(
        help="Folder of good images that are not learned from, for the thresholds. Default: a validation set where the layout "
        "has one, else every training image against the model less its own patches."
    ),
]
Log = Annotated[str, typer.Option(help="Also log to tensorboard, mlflow or wandb, where it is installed.")]


def load_model(model: Path, **options: str | int | None) -> SAPatchCore:
    """The detector in a model file; options: as of SAPatchCore.load, None where not given.

    Raises ModelFileError for an exported one.
    """
    from sapatchcore.deploy.facts import is_exported

    if is_exported(model):
        raise ModelFileError(
            f"{model} is an exported model, which predict and info take. For all else name the model file that it came from."
        )
    from sapatchcore.detector import SAPatchCore

    return SAPatchCore.load(model, **{name: value for name, value in options.items() if value is not None})


def open_model(
    model: Path,
    *,
    device: str,
    precision: str | None,
    batch_size: int | None,
    workers: int | None,
    weights: str | None,
) -> SAPatchCore | Exported:
    """What scores images: the detector in a model file, or an exported model, which needs no PyTorch.

    Raises SettingsError where an option is given that an exported model cannot follow.
    """
    from sapatchcore.deploy.facts import is_exported

    if not is_exported(model):
        return load_model(
            model, device=device, precision=precision, batch_size=batch_size, workers=workers, weights=weights
        )
    from sapatchcore.deploy.runtime import open_exported

    refused = {
        "--precision": precision,
        "--weights": weights,
        "--device": device if device not in ("auto", "cpu") else None,
    }
    if wrong := [f"{name} {value}" for name, value in refused.items() if value is not None]:
        raise SettingsError(
            f"{', '.join(wrong)} cannot be had with an exported model: its network is in the file as it was exported, and "
            f"computes on the CPU. Leave it out, or name a model file. Got {model}."
        )
    return open_exported(model, batch_size=batch_size, workers=workers)


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
