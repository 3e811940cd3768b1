"""Made images: data sets to try things on, and a first run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sapatchcore.cli.common import Json, Quiet
from sapatchcore.cli.progress import progress_bars

Scene = Annotated[
    str,
    typer.Argument(
        help="screws (after CAD-SD: scratch, paint, a nut too many, no nut) or kits (trays of parts: one missing, one too many, "
        "two swapped, a wrong pair)."
    ),
]
Out = Annotated[Path, typer.Argument(help="The folder to make, new or empty.")]
Side = Annotated[int | None, typer.Option(help="Pixels a side. Default: the scene's own.")]
Train = Annotated[int | None, typer.Option(help="Good images to learn from. Default: the scene's own number.")]
Test = Annotated[int | None, typer.Option(help="Test images of each kind. Default: the scene's own numbers.")]
Layout = Annotated[str, typer.Option(help="mvtec (MVTec AD's folders, PNG) or cad_sd (CAD-SD's, JPEG).")]
Seed = Annotated[int, typer.Option(help="Same seed, same images.")]


def synth(
    scene: Scene,
    out: Out,
    side: Side = None,
    train: Train = None,
    test: Test = None,
    layout: Layout = "mvtec",
    seed: Seed = 0,
    quiet: Quiet = False,
    json_output: Json = False,
) -> None:
    """Make a data set to try things on."""
    from sapatchcore.synth.write import find_scene, write_dataset

    counts = None if test is None else dict.fromkeys(find_scene(scene).KINDS, test)
    with progress_bars(quiet=quiet) as progress:
        made = write_dataset(
            out, scene, side=side, train=train, test=counts, layout=layout, seed=seed, progress=progress
        )
    facts = {
        "folder": str(made.folder),
        "layout": made.layout,
        "side": made.side,
        "train": made.train,
        "test": made.test,
    }
    kinds = ", ".join(f"{count} {kind}" for kind, count in made.test.items())
    typer.echo(
        json.dumps(facts)
        if json_output
        else f"{made.folder}: {made.train} good images to learn from, {sum(made.test.values())} to test ({kinds}), "
        f"{made.side}×{made.side} pixels. Next:\n  sapatchcore evaluate {made.folder}"
    )


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the images, models and figures.")] = Path(
        "demo"
    ),
    quiet: Quiet = False,
) -> None:
    """Show both models on made images of screws: a table and a picture."""
    from sapatchcore.demo import run_demo

    with progress_bars(quiet=quiet) as progress:
        text = run_demo(output, progress)
    typer.echo(text)
