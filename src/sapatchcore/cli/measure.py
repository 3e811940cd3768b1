"""Made data sets to try things on, and how good a model is: on one category, and on all of a data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sapatchcore import __version__
from sapatchcore.cli.options import (
    FalseReject,
    Json,
    Layout,
    Log,
    Product,
    Quiet,
    progress_bars,
    promised_rate,
    warn,
    with_settings,
)
from sapatchcore.cli.ray import Ray, RayWorkers, require_ray
from sapatchcore.errors import SettingsError
from sapatchcore.settings import settings_from

if TYPE_CHECKING:
    from sapatchcore.datasets.samples import Dataset
    from sapatchcore.show.trackers import Tracker
    from sapatchcore.verify.evaluate import Evaluation
    from sapatchcore.verify.tables import Run

Out = Annotated[Path, typer.Argument(help="The folder to make, new or empty.")]
Side = Annotated[int | None, typer.Option(help="Pixels a side. Default: the scene's own.")]
Train = Annotated[int | None, typer.Option(help="Good images to learn from. Default: the scene's own number.")]
Test = Annotated[int | None, typer.Option(help="Test images of each kind. Default: the scene's own numbers.")]
MadeLayout = Annotated[str, typer.Option(help="mvtec (MVTec AD's folders, PNG) or cad_sd (CAD-SD's, JPEG).")]
Seed = Annotated[int, typer.Option(help="Same seed, same images.")]

synth = typer.Typer(no_args_is_help=True, help="Make a data set to try things on.")


@synth.command()
def screws(
    out: Out,
    side: Side = None,
    train: Train = None,
    test: Test = None,
    layout: MadeLayout = "mvtec",
    seed: Seed = 0,
    quiet: Quiet = False,
    json_output: Json = False,
) -> None:
    """Draw screws after CAD-SD: scratch, paint, a nut too many, no nut."""
    _draw("screws", out, side, train, test, layout, seed, quiet=quiet, json_output=json_output)


@synth.command()
def kits(
    out: Out,
    side: Side = None,
    train: Train = None,
    test: Test = None,
    layout: MadeLayout = "mvtec",
    seed: Seed = 0,
    quiet: Quiet = False,
    json_output: Json = False,
) -> None:
    """Draw trays of parts: one missing, one too many, two swapped, a wrong pair."""
    _draw("kits", out, side, train, test, layout, seed, quiet=quiet, json_output=json_output)


def _draw(
    scene: str,
    out: Path,
    side: int | None,
    train: int | None,
    test: int | None,
    layout: str,
    seed: int,
    *,
    quiet: bool,
    json_output: bool,
) -> None:
    from sapatchcore.synth.write import find_scene, write_dataset

    counts = None if test is None else dict.fromkeys(find_scene(scene).KINDS, test)
    with progress_bars(quiet=quiet) as progress:
        made = write_dataset(
            out, scene, side=side, train=train, test=counts, layout=layout, seed=seed, progress=progress
        )
    facts = {"scene": made.scene, "version": made.version, "layout": made.layout, "side": made.side}
    size = f"{made.side}×{made.side} pixels ({made.scene}, version {made.version})"
    _say_what_was_made(made.folder, made.train, made.test, facts, f", {size}.", json_output=json_output)


@synth.command()
def defects(
    good: Annotated[Path, typer.Argument(help="Good images: a folder of them, or a data set's category.")],
    out: Out,
    test: Annotated[
        int | None, typer.Option(help="Images of each kind. Default: one an image held out, up to 40.")
    ] = None,
    seed: Seed = 0,
    layout: Layout = "auto",
    quiet: Quiet = False,
    json_output: Json = False,
) -> None:
    """Make defects on your own good images: local ones and wrong combinations, with masks and a sheet of examples."""
    from sapatchcore.datasets.folders import training_images
    from sapatchcore.synth.write_defects import write_defects

    with progress_bars(quiet=quiet) as progress:
        made = write_defects(out, training_images(good, layout), count=test, seed=seed, progress=progress)
    facts = {"version": made.version, "left_out": list(made.left_out), "sheet": str(made.sheet)}
    left = f" Left out, as these images do not allow them: {', '.join(made.left_out)}." if made.left_out else ""
    _say_what_was_made(
        made.folder, made.train, made.test, facts, f".{left} Examples: {made.sheet}.", json_output=json_output
    )


def _say_what_was_made(
    folder: Path, train: int, test: dict[str, int], facts: dict[str, Any], more: str, *, json_output: bool
) -> None:
    kinds = ", ".join(f"{count} {kind}" for kind, count in test.items())
    typer.echo(
        json.dumps({"folder": str(folder), **facts, "train": train, "test": test})
        if json_output
        else f"{folder}: {train} good images to learn from, {sum(test.values())} to test ({kinds}){more} "
        f"Next:\n  sapatchcore evaluate {folder}"
    )


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the images, models and figures.")] = Path(
        "demo"
    ),
    quiet: Quiet = False,
) -> None:
    """Show three models on made images of screws: a table and a picture."""
    from sapatchcore.demo import run_demo

    with progress_bars(quiet=quiet) as progress:
        text = run_demo(output, progress)
    typer.echo(text)


@with_settings
def evaluate(
    data: Annotated[Path, typer.Argument(help="A data set's category, with good and defective test images.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="JSON file. Default: results/<category>.json.")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="Score with this model file; nothing is fitted.")] = None,
    product: Product = None,
    false_reject: FalseReject = None,
    layout: Layout = "auto",
    log: Log = "",
    json_output: Json = False,
    quiet: Quiet = False,
    *,
    options: dict[str, Any],
) -> None:
    """Fit on a category's good images, score its test images, print and save all figures."""
    from sapatchcore.atomic import write_json
    from sapatchcore.datasets.folders import open_dataset
    from sapatchcore.detector import SAPatchCore
    from sapatchcore.open_model import of_product
    from sapatchcore.show.trackers import tracked
    from sapatchcore.verify.benchmark import fit_on
    from sapatchcore.verify.evaluate import evaluate as evaluate_detector
    from sapatchcore.verify.tables import evaluation_text

    dataset = open_dataset(data, layout)
    if dataset.note:
        warn(dataset.note)
    detector = (
        SAPatchCore(**options) if model is None else of_product(SAPatchCore.load(model, **options), product, model)
    )
    path = output or Path("results") / f"{dataset.name}.json"
    settings = detector.settings.model_dump(mode="json")
    with (
        tracked(log or None, run=dataset.name, settings=settings, folder=path.parent, warn=warn) as tracker,
        progress_bars(quiet=quiet) as progress,
    ):
        if model is None:
            fit_on(detector, dataset, progress)
        evaluation = evaluate_detector(detector, dataset, progress)
        rate = promised_rate(false_reject, len(detector.calibration), quiet=quiet) if detector.is_calibrated else None
        figures = {**evaluation.to_dict(rate), "settings": settings, "version": __version__}
        write_json(path, figures)
        if log:
            tracker.figures(figures)
            _log_pictures(tracker, dataset, evaluation, rate, prefix="")
    typer.echo(json.dumps(figures) if json_output else f"{evaluation_text(evaluation, rate)}\nSaved to {path}.")


@with_settings
def benchmark(
    root: Annotated[Path, typer.Argument(help="A data set: one folder for each category.")],
    categories: Annotated[str, typer.Option(help="Only these, separated by commas.")] = "",
    seeds: Annotated[str, typer.Option(help="Seeds to run, separated by commas.")] = "0",
    compare: Annotated[str, typer.Option(help="A second attention beside the chosen one: none gives PatchCore.")] = "",
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the tables and all figures.")] = Path(
        "results/benchmark"
    ),
    table_format: Annotated[str, typer.Option("--format", help="Printed: text, markdown, csv or json.")] = "text",
    gifs: Annotated[bool, typer.Option("--gifs", help="Also a GIF a category, with the first seed.")] = False,
    ray: Ray = "",
    ray_workers: RayWorkers = None,
    layout: Layout = "auto",
    log: Log = "",
    quiet: Quiet = False,
    *,
    options: dict[str, Any],
) -> None:
    """Run all categories and print the three result tables."""
    from sapatchcore.show.gif import choose, frames_of, write_gif
    from sapatchcore.show.maps import scale_for
    from sapatchcore.show.trackers import tracked
    from sapatchcore.verify.benchmark import Jobs, benchmark_to_folder, one_by_one
    from sapatchcore.verify.tables import MODELS

    require_ray(ray, ray_workers=ray_workers)
    run_all: Jobs = one_by_one
    if ray:
        from sapatchcore.scale.benchmark import side_by_side

        run_all = side_by_side(ray, ray_workers)
    numbers = [part.strip() for part in seeds.split(",")]
    if not all(part.isdigit() for part in numbers):
        raise SettingsError(f"seeds must be whole numbers separated by commas. Got {seeds!r}. For example 0,1,2.")
    settings = settings_from(options)
    with (
        tracked(
            log or None, run=output.name, settings=settings.model_dump(mode="json"), folder=output, warn=warn
        ) as tracker,
        progress_bars(quiet=quiet) as progress,
    ):

        def scored(run: Run, dataset: Dataset, evaluation: Evaluation) -> None:
            first = run.seed == int(numbers[0])
            if log:
                tracker.figures({run.model: {run.category: run.figures}}, step=run.seed)
                if first:
                    prefix = f"{run.model}/{run.category}/"
                    _log_pictures(tracker, dataset, evaluation, evaluation.rate(), prefix=prefix)
            if gifs and first and run.model == MODELS[settings.attention]:
                result, rate = evaluation.result, evaluation.rate()
                frames = frames_of(result, dataset, choose(evaluation.labels, 40), rate)
                write_gif(frames, output / "gifs" / f"{run.category}.gif", scale_for(result, rate), title=run.category)

        text = benchmark_to_folder(
            root,
            output,
            settings,
            wanted=[name.strip() for name in categories.split(",") if name.strip()],
            seeds=[int(part) for part in numbers],
            compare=compare or None,
            layout=layout,
            table_format=table_format,
            scored=scored,
            progress=progress,
            run_all=run_all,
        )
    typer.echo(text, nl=False)


def _log_pictures(
    tracker: Tracker, dataset: Dataset, evaluation: Evaluation, rate: float | None, *, prefix: str
) -> None:
    """The first test image of each kind, with its map and verdict."""
    from sapatchcore.show.gif import choose, frames_of, pages
    from sapatchcore.show.maps import scale_for

    result = evaluation.result
    indices = choose(evaluation.labels, len(set(evaluation.labels)))
    for label, pixels in pages(frames_of(result, dataset, indices, rate), scale_for(result, rate), title=dataset.name):
        tracker.picture(f"{prefix}{label}", pixels)
