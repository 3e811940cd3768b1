"""The command line: parse, call, print. Exit codes: 0 done, 1 the work failed, 2 wrong use."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sapatchcore import __version__
from sapatchcore.errors import SAPatchCoreError, SettingsError
from sapatchcore.options import with_settings
from sapatchcore.progress import progress_bars
from sapatchcore.settings import settings_from
from sapatchcore.synth_cli import synth

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None, help=__doc__
)
app.command(no_args_is_help=True)(synth)

Layout = Annotated[str, typer.Option(help="The data set's layout: auto, mvtec, loco, cad_sd, visa, btad or plain.")]
Json = Annotated[bool, typer.Option("--json", help="For machines: JSON on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
@with_settings
def fit(
    data: Annotated[Path, typer.Argument(help="Good images: a data set's category, or a folder of images.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The model file to write (.safetensors).")],
    layout: Layout = "auto",
    include_weights: Annotated[
        bool, typer.Option("--weights-inside/--no-weights", help="Keep the network's weights in the model file.")
    ] = True,
    json_output: Json = False,
    quiet: Quiet = False,
    *,
    options: dict[str, Any],
) -> None:
    """Learn from good images and write a model file."""
    from sapatchcore.data.folders import training_images
    from sapatchcore.detector import SAPatchCore

    if not output.parent.is_dir():
        raise SettingsError(f"The folder {output.parent} for the model file does not exist. Make it first.")
    detector = SAPatchCore(**options)
    with progress_bars(quiet=quiet) as progress:
        detector.fit(training_images(data, layout), progress)
    detector.save(output, include_weights=include_weights)
    bank, names = detector.memory_bank, detector.provenance[0]
    facts = {
        "model": str(output),
        "training_images": len(names),
        "bank": list(bank.shape),
        "bytes": output.stat().st_size,
    }
    typer.echo(
        json.dumps(facts)
        if json_output
        else f"{output}: learned from {len(names)} images, kept {bank.shape[0]} patches of {bank.shape[1]} numbers "
        f"({output.stat().st_size / 1e6:.1f} MB)."
    )


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A model file.")],
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    maps: Annotated[Path | None, typer.Option(help="Folder for the anomaly maps.")] = None,
    map_format: Annotated[str, typer.Option(help="png (16-bit, one scale for all), tiff or npy (float32).")] = "png",
    device: Annotated[str, typer.Option(help="Where to compute.")] = "auto",
    precision: Annotated[str | None, typer.Option(help="Number format of the network.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images that go through the network at a time.")] = None,
    workers: Annotated[int | None, typer.Option(help="Threads that decode images.")] = None,
    weights: Annotated[str | None, typer.Option(help="For a model file without weights: where they are.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="One JSON object a line, one line an image.")] = False,
    quiet: Quiet = False,
) -> None:
    """Score images with a model file; higher = more anomalous."""
    from sapatchcore.data.images import list_images
    from sapatchcore.detector import SAPatchCore
    from sapatchcore.show.maps import check_format, write_maps

    check_format(map_format)
    given = {"precision": precision, "batch_size": batch_size, "workers": workers, "weights": weights}
    sources = [p for path in images for p in (list_images(path, recursive=True) if path.is_dir() else [path])]
    detector = SAPatchCore.load(
        model, device=device, **{name: value for name, value in given.items() if value is not None}
    )
    with progress_bars(quiet=quiet) as progress:
        result = detector.predict(sources, progress)
        written = write_maps(result, maps, map_format, progress) if maps is not None else [None] * len(result)
    columns = (
        result.paths,
        result.scores.tolist(),
        result.local_scores.tolist(),
        result.context_scores.tolist(),
        written,
    )
    if not json_output:
        typer.echo("score\tlocal\tcontext\tpath")
    for path, score, local, context, file in zip(*columns, strict=True):
        line = {"path": path, "score": score, "local": local, "context": context}
        if json_output:
            typer.echo(json.dumps(line if file is None else {**line, "map": str(file)}))
        else:
            typer.echo(f"{score:.6g}\t{local:.6g}\t{context:.6g}\t{path}")


@app.command()
@with_settings
def evaluate(
    data: Annotated[Path, typer.Argument(help="A data set's category, with good and defective test images.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="JSON file. Default: results/<category>.json.")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="Score with this model file; nothing is fitted.")] = None,
    layout: Layout = "auto",
    json_output: Json = False,
    quiet: Quiet = False,
    *,
    options: dict[str, Any],
) -> None:
    """Fit on a category's good images, score its test images, print and save all figures."""
    from sapatchcore.data.folders import open_dataset
    from sapatchcore.detector import SAPatchCore
    from sapatchcore.verify.evaluate import evaluate as evaluate_detector
    from sapatchcore.verify.files import write_json
    from sapatchcore.verify.tables import evaluation_text

    dataset = open_dataset(data, layout)
    if dataset.note:
        typer.echo(dataset.note, err=True)
    detector = SAPatchCore(**options) if model is None else SAPatchCore.load(model, **options)
    with progress_bars(quiet=quiet) as progress:
        if model is None:
            detector.fit([sample.path for sample in dataset.train], progress)
        evaluation = evaluate_detector(detector, dataset, progress)
    figures = {**evaluation.to_dict(), "settings": detector.settings.model_dump(mode="json"), "version": __version__}
    path = output or Path("results") / f"{dataset.name}.json"
    write_json(path, figures)
    typer.echo(json.dumps(figures) if json_output else f"{evaluation_text(evaluation)}\nSaved to {path}.")


@app.command()
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
    layout: Layout = "auto",
    quiet: Quiet = False,
    *,
    options: dict[str, Any],
) -> None:
    """Run all categories and print the three result tables."""
    from sapatchcore.verify.benchmark import benchmark_to_folder

    numbers = [part.strip() for part in seeds.split(",")]
    if not all(part.isdigit() for part in numbers):
        raise SettingsError(f"seeds must be whole numbers separated by commas. Got {seeds!r}. For example 0,1,2.")
    with progress_bars(quiet=quiet) as progress:
        text = benchmark_to_folder(
            root,
            output,
            settings_from(options),
            wanted=[name.strip() for name in categories.split(",") if name.strip()],
            seeds=[int(part) for part in numbers],
            compare=compare or None,
            layout=layout,
            table_format=table_format,
            progress=progress,
        )
    typer.echo(text, nl=False)


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="A model file.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The ONNX file to write.")],
    opset: Annotated[int, typer.Option(help="Opset of the ONNX file, 17 to 25.")] = 18,
) -> None:
    """Write a model as one ONNX file, checked against the model's own scores."""
    from sapatchcore.deploy.export import export_onnx
    from sapatchcore.detector import SAPatchCore

    export_onnx(SAPatchCore.load(model, device="cpu"), output, opset=opset)
    typer.echo(
        f"{output}: opset {opset}, {output.stat().st_size / 1e6:.1f} MB; ONNX Runtime gives the model's own scores."
    )


@app.command()
def info(
    model: Annotated[Path, typer.Argument(help="A model file.")],
    json_output: Json = False,
) -> None:
    """Print what a model file holds."""
    from sapatchcore.memory.store import describe, read_model

    facts = describe(model, read_model(model))
    if json_output:
        typer.echo(json.dumps(facts))
        return
    for name, value in facts.items():
        typer.echo(f"{name:20} {value if not isinstance(value, dict) else ''}".rstrip())
        for key, inner in value.items() if isinstance(value, dict) else ():
            typer.echo(f"  {key:18} {inner}")


@app.command()
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


def main() -> int:
    """Run the command line; what is known to go wrong is one sentence on standard error."""
    try:
        app()
    except SAPatchCoreError as error:
        typer.echo(f"sapatchcore: {error}", err=True)
        return error.exit_code
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # PyTorch's, which is not imported for a name
            raise
        typer.echo("sapatchcore: The device has not enough memory for this. Use a smaller --batch-size.", err=True)
        return 1
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        sys.stderr.close()
        return 1
    except MemoryError as error:
        typer.echo(f"sapatchcore: Not enough memory: {error}. Use a smaller --batch-size.", err=True)
        return 1
    except OSError as error:
        typer.echo(f"sapatchcore: {error.filename or 'A file'}: {error.strerror or error}.", err=True)
        return 1
    return 0
