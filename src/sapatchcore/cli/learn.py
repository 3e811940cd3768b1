"""Learning from good images: at first, more of them later, and giving one up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sapatchcore.cli.options import (
    Calibrate,
    Device,
    Json,
    Layout,
    Log,
    Model,
    Product,
    Quiet,
    WeightsFile,
    border_line,
    progress_bars,
    warn,
    with_settings,
)
from sapatchcore.cli.ray import Ray, Shares, require_ray
from sapatchcore.errors import SettingsError
from sapatchcore.open_model import load_whole, of_product
from sapatchcore.score.threshold import promise_sentence
from sapatchcore.settings import settings_from

if TYPE_CHECKING:
    from sapatchcore.data.sources import Progress
    from sapatchcore.detector import SAPatchCore
    from sapatchcore.learning.images import Updatable
    from sapatchcore.products.products import Products

Thumbnails = Annotated[
    bool,
    typer.Option("--thumbnails/--no-thumbnails", help="Keep small pictures of the training images, for explanations."),
]
Weights = Annotated[
    bool, typer.Option("--weights-inside/--no-weights", help="Keep the network's weights in the model file.")
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="The model file to write. Default: MODEL itself, replaced as a whole."),
]


@with_settings
def fit(
    data: Annotated[
        str, typer.Argument(help="Good images: a data set's category, a folder of images, or an address (s3://…).")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The model file to write (.safetensors).")],
    calibrate: Calibrate = None,
    ray: Ray = "",
    shares: Shares = None,
    products: Annotated[
        bool, typer.Option("--products", help="DATA has a folder for each product: one model that tells them apart.")
    ] = False,
    layout: Layout = "auto",
    include_weights: Weights = True,
    include_thumbnails: Thumbnails = True,
    log: Log = "",
    json_output: Json = False,
    quiet: Quiet = False,
    *,
    options: dict[str, Any],
) -> None:
    """Learn from good images and write a model file."""
    from sapatchcore.show.trackers import tracked

    _require_folder(output)
    require_ray(ray, shares=shares)
    if products:
        _require_products_alone(ray, calibrate)
    checked = settings_from(options)
    settings = checked.model_dump(mode="json")
    with (
        tracked(log or None, run=output.stem, settings=settings, folder=output.parent, warn=warn) as tracker,
        progress_bars(quiet=quiet) as progress,
    ):
        if ray:
            from sapatchcore.scale.fit import fit as fit_on_ray

            found = fit_on_ray(
                data,
                output,
                options,
                address=ray,
                shares=shares,
                layout=layout,
                calibrate=calibrate,
                include_weights=include_weights,
                include_thumbnails=include_thumbnails,
                progress=progress,
            )
            used = checked.model_copy(update={"resize": found.pop("resize")})
            summary = {"model": str(output), **found, "bytes": output.stat().st_size}
        elif products:
            found_products = _fitted_products(data, layout, options, progress)
            found_products.save(output, include_weights=include_weights, include_thumbnails=include_thumbnails)
            used, summary = found_products.settings, _summary_of_products(found_products, output)
        else:
            detector = _fitted(data, layout, calibrate, options, progress)
            detector.save(output, include_weights=include_weights, include_thumbnails=include_thumbnails)
            used, summary = detector.settings, _summary(detector, output)
        summary["not_inspected"] = used.not_inspected  # as images are resized, which `keep_aspect` says last
        tracker.figures({"fit": summary})
    if products and not json_output:
        for name, one in summary["products"].items():
            _say({**one, "model": f"{output}, {name}"}, json_output, "learned from")
    else:
        _say(summary, json_output, "learned from")
    if not products and not json_output and used.global_part != checked.global_part:
        typer.echo(
            "Too few images to know how good ones differ as a whole: every score is of patches alone. Three images have a "
            "global part, or fewer with --augment rotate."
        )
    if not json_output and (line := border_line(used)):
        typer.echo(line)


def _fitted(
    data: str, layout: str, calibrate: str | None, options: dict[str, Any], progress: Progress | None
) -> SAPatchCore:
    """A detector that has learned what ``data`` holds."""
    from sapatchcore.data.images import all_images
    from sapatchcore.data.remote import is_address
    from sapatchcore.data.sources import as_sources
    from sapatchcore.datasets.folders import training_images, validation_images
    from sapatchcore.detector import SAPatchCore

    detector = SAPatchCore(**options)
    apart = [] if calibrate is None else list(as_sources(calibrate, all_images)[0])
    if is_address(data):
        return detector.fit(data, progress, calibrate=apart or None)
    train = training_images(Path(data), layout)
    if calibrate is None:
        apart = list(validation_images(Path(data), layout))
    return detector.fit(train, progress, calibrate=apart or None)


def _require_products_alone(ray: str, calibrate: str | None) -> None:
    """Raises SettingsError for options that are about one product."""
    if ray or calibrate is not None:
        raise SettingsError(
            "`products` goes with neither --ray nor `calibrate`: learn each product by itself, or calibrate it from Python."
        )


def _fitted_products(data: str, layout: str, options: dict[str, Any], progress: Progress | None) -> Products:
    """A model of the products whose folders ``data`` holds."""
    from sapatchcore.datasets.folders import training_images, validation_images
    from sapatchcore.detector import SAPatchCore
    from sapatchcore.errors import DataError

    root = Path(data)
    if not root.is_dir():
        raise DataError(
            f"{data} is no folder on this machine. With `products`, name one that holds a folder for each product."
        )
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    apart = {path.name: validation_images(path, layout) for path in folders}
    return SAPatchCore.fit_products(
        {path.name: training_images(path, layout) for path in folders},
        progress,
        calibrate={name: images for name, images in apart.items() if images},
        **options,
    )


def update(
    model: Model,
    images: Annotated[Path, typer.Argument(help="More good images: one, a folder, or a data set's category.")],
    output: Output = None,
    calibrate: Calibrate = None,
    rescore: Annotated[
        bool,
        typer.Option(
            help="Score separate calibration images anew where their files are at hand; else their scores stay."
        ),
    ] = True,
    include_thumbnails: Thumbnails = True,
    product: Product = None,
    device: Device = "auto",
    weights: WeightsFile = None,
    json_output: Json = False,
    quiet: Quiet = False,
) -> None:
    """Add good images to a model: only what it does not know yet joins its memory bank; nothing is fitted anew."""

    def change(detector: SAPatchCore, progress: Progress | None) -> None:
        detector.update(images, progress, calibrate=calibrate, rescore=rescore)

    more, summary = _changed(model, product, output, device, weights, change, include_thumbnails, quiet)
    _say({**summary, "added": more}, json_output, "now learned from")


def forget(
    model: Model,
    images: Annotated[list[str], typer.Argument(help="Training images to give up, named as they were learned from.")],
    output: Output = None,
    product: Product = None,
    device: Device = "auto",
    weights: WeightsFile = None,
    json_output: Json = False,
    quiet: Quiet = False,
) -> None:
    """Remove training images' patches from a model, as when a bad image got in."""

    def change(detector: SAPatchCore, progress: Progress | None) -> None:
        for image in images:
            detector.forget(image, progress)

    more, summary = _changed(model, product, output, device, weights, change, True, quiet)
    _say({**summary, "removed": -more}, json_output, "now learned from")


def _changed(
    model: Path,
    product: str | None,
    output: Path | None,
    device: str,
    weights: str | None,
    change: Callable[[SAPatchCore, Progress | None], None],
    include_thumbnails: bool,
    quiet: bool,
) -> tuple[int, dict[str, Any]]:
    """Load, change and write a model, its weights inside where they were: (more rows than before, the summary)."""
    from sapatchcore.model_file import has_weights

    target = output or model
    _require_folder(target)
    whole = load_whole(model, {"device": device, "weights": weights})
    detector = of_product(whole, product, model)
    before, inside = detector.rows, has_weights(model)
    with progress_bars(quiet=quiet) as progress:
        change(detector, progress)
        whole.save(target, include_weights=inside, include_thumbnails=include_thumbnails)
    return detector.rows - before, _summary(detector, target)


def _summary_of_products(products: Products, path: Path) -> dict[str, Any]:
    each = {name: _summary(products.product(name), path) for name in products.names}
    return {"model": str(path), "products": each, "bytes": path.stat().st_size}


def _summary(detector: Updatable, path: Path) -> dict[str, Any]:
    """bank: [rows, numbers of each]; of several networks a list of these."""
    copies = sum(map(bool, detector.turns))
    banks = [list(one.bank.rows.shape) for one in detector.networks]
    return {
        "model": str(path),
        "training_images": len(detector.turns) - copies,
        **({"turned_copies": copies} if copies else {}),
        "bank": banks if len(banks) > 1 else banks[0],
        "calibration_images": len(detector.calibration) if detector.is_calibrated else 0,
        "bytes": path.stat().st_size,
    }


def _say(summary: dict[str, Any], json_output: bool, verb: str) -> None:
    from sapatchcore.data.copies import learned_from

    if json_output:
        typer.echo(json.dumps(summary))
        return
    changed = "".join(f", {summary[word]} {word}" for word in ("added", "removed") if word in summary)
    banks = summary["bank"] if isinstance(summary["bank"][0], list) else [summary["bank"]]
    learned = learned_from([""] * summary["training_images"] + ["turned"] * summary.get("turned_copies", 0))
    kept = " and ".join(f"{rows} patches of {numbers} numbers" for rows, numbers in banks)
    typer.echo(
        f"{summary['model']}: {verb} {learned}, {'kept' if not changed else 'keeps'} {kept}{changed} "
        f"({summary['bytes'] / 1e6:.1f} MB)."
    )
    count = summary["calibration_images"]
    typer.echo(
        promise_sentence(count)
        if count
        else "No calibration: one image alone cannot be scored by others. Verdicts need --calibrate FOLDER."
    )


def _require_folder(path: Path) -> None:
    if not path.parent.is_dir():
        raise SettingsError(f"The folder {path.parent} for the model file does not exist. Make it first.")
