"""Choosing settings from good images alone."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sapatchcore.cli.options import Json, Layout, Quiet, progress_bars, with_settings
from sapatchcore.errors import DataError, SettingsError

if TYPE_CHECKING:
    from sapatchcore.tuning.judge import Candidate

CHOSEN = ("backbone", "resize")  # of the settings, those that are no option here


@partial(with_settings, without=CHOSEN)
def tune(
    data: Annotated[
        Path, typer.Argument(help="Good images, ten or more: a data set's category, or a folder of images.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The model file to write (.safetensors).")],
    minutes: Annotated[float, typer.Option(help="Time for the comparison; the last fit comes on top.")] = 20,
    budget_ms: Annotated[
        float | None, typer.Option(help="Milliseconds that one image may take on this machine. Default: any.")
    ] = None,
    backbones: Annotated[
        str,
        typer.Option(
            help="Networks to choose among, separated by commas. Default: builtin, and what is installed of the extra imagenet."
        ),
    ] = "",
    layout: Layout = "auto",
    json_output: Json = False,
    quiet: Quiet = False,
    *,
    options: dict[str, Any],
) -> None:
    """Choose network, input size and parts by defects made on the good images, and write the model.

    Beside the model: a sheet of the made defects (.defects.png) and a plot of all candidates (.tuning.svg). Ctrl-C ends the
    comparison; the best so far is then taken.
    """
    from sapatchcore.atomic import write_bytes, write_text
    from sapatchcore.datasets.folders import training_images
    from sapatchcore.detector import SAPatchCore
    from sapatchcore.show.plots import candidates_plot
    from sapatchcore.show.sheet import Example, sheet_png
    from sapatchcore.tuning.tuning import called

    if not output.parent.is_dir():
        raise DataError(f"The folder {output.parent} does not exist. Make it first, or choose another --output.")
    names = [name.strip() for name in backbones.split(",") if name.strip()]
    if backbones and not names:
        raise SettingsError("--backbones needs a network's name. Got none. For example builtin,efficientnet_lite2.")

    def said(one: Candidate) -> None:
        if not quiet:
            areas = ", ".join(f"{group} {area:.3f}" for group, area in one.groups.items())
            typer.echo(f"{called(one.options)}: {areas}, {one.milliseconds:.0f} ms", err=True)

    with progress_bars(quiet=quiet) as progress:
        detector = SAPatchCore.tune(
            training_images(data, layout),
            minutes=minutes,
            budget_ms=budget_ms,
            backbones=names or None,
            progress=progress,
            report=said,
            **options,
        )
    detector.save(output)
    tuning = detector.tuning
    assert tuning is not None  # as the detector comes from tune
    sheet, plot = output.with_suffix(".defects.png"), output.with_suffix(".tuning.svg")
    shown = [Example(good, made.image, made.mask, made.kind) for good, made in tuning.examples]
    write_bytes(sheet, sheet_png(shown))
    points = {called(one.options): (one.milliseconds, one.quality) for one in tuning.candidates}
    write_text(plot, candidates_plot(points, called(tuning.best.options), budget_ms))
    if json_output:
        typer.echo(json.dumps({"model": str(output), "sheet": str(sheet), "plot": str(plot), **tuning.to_dict()}))
        return
    rows = tuning.rows()
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        typer.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    typer.echo(
        f"{tuning.paragraph()}\n{output}: {called(tuning.best.options)}. The made defects: {sheet}. The candidates: {plot}."
    )
