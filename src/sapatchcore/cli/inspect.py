"""Inspecting images with a model file: scores and verdicts, a report, a GIF."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from sapatchcore.cli.options import (
    AnyModel,
    Device,
    FalseReject,
    Json,
    Layout,
    Model,
    Product,
    Quiet,
    WeightsFile,
    progress_bars,
    promised_rate,
    warn,
)
from sapatchcore.cli.ray import Ray, RayWorkers, predict_on_ray, require_ray
from sapatchcore.open_model import load_model, open_model

Data = Annotated[Path, typer.Argument(help="A data set's category, with test images.")]


def predict(
    model: AnyModel,
    images: Annotated[list[str], typer.Argument(help="Image files, folders of them, or addresses (s3://…).")],
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="With --ray: folder for the tables of scores.")
    ] = None,
    false_reject: FalseReject = None,
    ray: Ray = "",
    ray_workers: RayWorkers = None,
    maps: Annotated[
        str | None, typer.Option(help="Folder for the anomaly maps; with --ray also an address (s3://…).")
    ] = None,
    map_format: Annotated[
        str | None,
        typer.Option(help="png (16-bit, one scale for all), tiff or npy (float32). Default: png; with --ray tiff."),
    ] = None,
    device: Device = "auto",
    precision: Annotated[str | None, typer.Option(help="Number format of the network.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images that go through the network at a time.")] = None,
    workers: Annotated[int | None, typer.Option(help="Threads that decode images.")] = None,
    weights: WeightsFile = None,
    search: Annotated[
        str | None, typer.Option(help="How the nearest patch is found: exact, float16, int8, faiss.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="One JSON object a line, one line an image.")] = False,
    quiet: Quiet = False,
) -> None:
    """Score images with a model file or an exported one, and say which to reject; higher = more anomalous."""
    from sapatchcore.data.images import files_of
    from sapatchcore.products.result import products_of
    from sapatchcore.score.calibration import NO_CALIBRATION
    from sapatchcore.show.maps import check_format, write_maps

    require_ray(ray, output=output, ray_workers=ray_workers)
    options: dict[str, Any] = {
        "device": device,
        "precision": precision,
        "batch_size": batch_size,
        "workers": workers,
        "weights": weights,
        "search": search,
    }
    if ray:
        predict_on_ray(
            *(model, images, output, options),
            ray=ray,
            workers=ray_workers,
            false_reject=false_reject,
            maps=maps,
            map_format=map_format or "tiff",
            json_output=json_output,
            quiet=quiet,
        )
        return
    check_format(map_format := map_format or "png")
    sources = [file for path in images for file in files_of(path)]
    detector = open_model(model, **options)
    rate = None
    if detector.is_calibrated or false_reject is not None:
        rate = promised_rate(false_reject, len(detector.calibration), quiet=quiet)
    elif not quiet:
        warn(f"No verdicts. {NO_CALIBRATION}")
    with progress_bars(quiet=quiet) as progress:
        result = detector.predict(sources, progress)
        written = write_maps(result, Path(maps), map_format, progress) if maps is not None else [None] * len(result)
    verdicts = [None] * len(result) if rate is None else result.verdicts(rate)
    products = [name for name in products_of(result) if name is not None]
    parts = {"score": result.scores, "local": result.local_scores, "context": result.context_scores}
    if result.global_scores is not None:
        parts["global"] = result.global_scores
    if not json_output:
        typer.echo("\t".join(("verdict", "p", *parts, "kind", *(["product"] if products else []), "path", "notes")))
    columns = zip(result.paths, verdicts, written, result.notes, strict=True)
    for i, (path, verdict, file, notes) in enumerate(columns):
        values = {name: float(part[i]) for name, part in parts.items()}
        if not json_output:
            word, p, kind = "–", "–", "–"
            if verdict is not None:
                word, p = "REJECT" if verdict.rejected else "accept", f"{verdict.p_value:.4f}"
                kind = verdict.kind or "–"
            numbers = (f"{value:.6g}" for value in values.values())
            typer.echo("\t".join((word, p, *numbers, kind, *products[i : i + 1], path, " ".join(notes) or "–")))
            continue
        line = {"path": path, **({"product": products[i]} if products else {}), **values, "notes": notes}
        if verdict is not None:
            line |= {
                "rejected": verdict.rejected,
                "p_value": verdict.p_value,
                "threshold": verdict.threshold,
                "false_reject": rate,
                "kind": verdict.kind or None,
                "local_ratio": verdict.local_ratio,
                "context_ratio": verdict.context_ratio,
                **({} if verdict.global_ratio is None else {"global_ratio": verdict.global_ratio}),
                "reason": verdict.sentence,
                "regions": [
                    {"box": list(region.box), "area": region.area, "peak": region.peak}
                    for region in result.regions(i, rate)
                ],
            }
        typer.echo(json.dumps(line if file is None else {**line, "map": str(file)}))


def report(
    model: Model,
    data: Data,
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write (.html).")],
    product: Product = None,
    false_reject: FalseReject = None,
    csv: Annotated[Path | None, typer.Option(help="Also a table, one row an image.")] = None,
    layout: Layout = "auto",
    device: Device = "auto",
    weights: WeightsFile = None,
    json_output: Annotated[
        bool, typer.Option("--json", help="For machines: all figures and verdicts as JSON on standard output.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Test a model file and write one page that opens without a network: figures, plots, every image with its reasons."""
    from sapatchcore.datasets.folders import open_dataset
    from sapatchcore.show.plots import require_packages
    from sapatchcore.show.report import write_report
    from sapatchcore.show.report_rows import explained, report_rows, write_rows
    from sapatchcore.verify.evaluate import evaluate

    require_packages()
    dataset = open_dataset(data, layout)
    start = time.perf_counter()
    detector = load_model(model, product, device=device, weights=weights)
    rate = promised_rate(false_reject, len(detector.calibration), quiet=quiet) if detector.is_calibrated else None
    loaded = time.perf_counter()
    with progress_bars(quiet=quiet) as progress:
        evaluation = evaluate(detector, dataset, progress)
        seconds = {"load": loaded - start, "evaluate": time.perf_counter() - loaded}
        found = None
        if rate is not None and (csv or json_output):  # the page alone may not need every image
            found = explained(detector, evaluation.result, range(len(evaluation.labels)), rate, progress)
        summary = write_report(
            output,
            detector,
            dataset,
            evaluation,
            false_reject=rate,
            seconds=seconds,
            explanations=found,
            progress=progress,
        )
        if csv is not None:
            write_rows(detector, dataset, evaluation, false_reject=rate, csv_file=csv, explanations=found)
        rows = report_rows(detector, dataset, evaluation, false_reject=rate, explanations=found) if json_output else []
    if json_output:
        figures = evaluation.to_dict(rate)
        figures.pop("scores")
        typer.echo(json.dumps({**figures, "verdicts": rows}, allow_nan=False))
        return
    typer.echo(f"{output}: {summary.images} images, {summary.bytes / 1e6:.1f} MB.")


def gif(
    model: Model,
    data: Data,
    output: Annotated[Path, typer.Option("--output", "-o", help="The GIF to write.")],
    most: Annotated[int, typer.Option(help="Test images at most, evenly over the kinds.", min=1)] = 40,
    most_bytes: Annotated[int, typer.Option(help="Bytes at most.", min=1)] = 8_000_000,
    milliseconds: Annotated[int, typer.Option(help="How long each image is shown.", min=20)] = 900,
    product: Product = None,
    false_reject: FalseReject = None,
    layout: Layout = "auto",
    device: Device = "auto",
    weights: WeightsFile = None,
    json_output: Json = False,
    quiet: Quiet = False,
) -> None:
    """Cycle through test images: image, ground truth, anomaly map, overlay and verdict."""
    from sapatchcore.datasets.folders import open_dataset
    from sapatchcore.errors import DataError
    from sapatchcore.show.gif import choose, frames_of, write_gif
    from sapatchcore.show.maps import scale_for

    dataset = open_dataset(data, layout)
    if not dataset.test:
        raise DataError(f"{dataset.name} has no test images to show: its layout is {dataset.layout}.")
    detector = load_model(model, product, device=device, weights=weights)
    rate = promised_rate(false_reject, len(detector.calibration), quiet=quiet) if detector.is_calibrated else None
    with progress_bars(quiet=quiet) as progress:
        # All are scored, so that the colours' scale does not hang on which are shown.
        result = detector.predict([sample.path for sample in dataset.test], progress)
    indices = choose([sample.label for sample in dataset.test], most)
    summary = write_gif(
        frames_of(result, dataset, indices, rate),
        output,
        scale_for(result, rate),
        title=dataset.name,
        milliseconds=milliseconds,
        most_bytes=most_bytes,
    )
    if json_output:
        typer.echo(
            json.dumps({"gif": str(output), "frames": summary.frames, "bytes": summary.bytes, "width": summary.width})
        )
        return
    dropped = f", {summary.dropped} left out to stay below {most_bytes / 1e6:g} MB" if summary.dropped else ""
    typer.echo(f"{output}: {summary.frames} images{dropped}, {summary.bytes / 1e6:.1f} MB.")
