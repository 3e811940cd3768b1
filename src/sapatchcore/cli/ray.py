"""The options of commands that can use many machines, and what is said of their work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sapatchcore.cli.options import progress_bars, warn
from sapatchcore.errors import SettingsError

if TYPE_CHECKING:
    from sapatchcore.scale.ledger import Sum

Ray = Annotated[
    str,
    typer.Option(
        help="Use a Ray cluster: its address, auto for the one that runs here, or local for this machine alone."
    ),
]
Shares = Annotated[
    int | None,
    typer.Option(
        help="With --ray: in how many shares the images are learned, a worker each. Default: what the cluster has room for."
    ),
]
RayWorkers = Annotated[
    int | None,
    typer.Option(help="With --ray: how many workers. Default: what the cluster has room for."),
]


def require_ray(ray: str, **given: object) -> None:
    """Raises SettingsError where one of the options ``given`` is there without --ray."""
    wrong = [f"--{name.replace('_', '-')}" for name, value in given.items() if value not in (None, "")]
    if not ray and wrong:
        raise SettingsError(
            f"{' and '.join(wrong)} {'needs' if len(wrong) == 1 else 'need'} --ray, for example --ray local."
        )


def predict_on_ray(
    model: Path,
    images: list[str],
    output: str | None,
    options: dict[str, Any],
    *,
    ray: str,
    workers: int | None,
    false_reject: float | None,
    maps: str | None,
    map_format: str,
    json_output: bool,
    quiet: bool,
) -> None:
    """Score into tables, and say what these hold."""
    from sapatchcore.scale.predict import predict

    if output is None:
        raise SettingsError("predict --ray needs --output FOLDER: a folder or an address for the tables of scores.")
    with progress_bars(quiet=quiet) as progress:
        found = predict(
            model,
            images,
            output,
            options,
            address=ray,
            workers=workers,
            false_reject=false_reject,
            maps=maps,
            map_format=map_format,
            progress=progress,
        )
    if json_output:
        typer.echo(
            json.dumps(
                {
                    "output": output,
                    "images": found.images,
                    "errors": found.errors,
                    "parts": found.parts,
                    "rejected": found.rejected,
                    "false_reject": found.rate,
                }
            )
        )
        return
    _say(found, output)


def _say(found: Sum, output: str) -> None:
    verdict = (
        "no verdicts" if found.rate is None else f"{found.rejected} rejected at a promised rate of {found.rate:.2%}"
    )
    typer.echo(
        f"{output}: {found.images} images scored, {verdict}, {found.errors} could not be read ({found.parts} parts)."
    )
    for reason in found.first_errors:
        warn(reason)
    if found.errors > len(found.first_errors):
        warn(f"The other {found.errors - len(found.first_errors)} are in {output}/errors.")
