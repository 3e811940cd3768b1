"""Model files: what they hold, and the form for other machines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from sapatchcore.cli.options import AnyModel, Json, Model, Product, Quiet, border_line, progress_bars, warn
from sapatchcore.open_model import load_model
from sapatchcore.score.threshold import promise_sentence
from sapatchcore.settings import settings_from


def info(
    model: AnyModel,
    json_output: Json = False,
) -> None:
    """Print what a model file or an exported one holds."""
    from sapatchcore.export.metadata import is_exported

    if is_exported(model):
        from sapatchcore.export.runtime import describe_exported

        summary = describe_exported(model)
    else:
        from sapatchcore.model_file import read_model
        from sapatchcore.products.model_file import describe_file

        summary = describe_file(model, read_model(model))
    stored = summary["settings"]
    settings = settings_from({name: stored[name] for name in ("resize", "crop")})
    summary["not_inspected"] = settings.not_inspected if json_output else border_line(settings) or "nothing: no crop"
    if json_output:
        typer.echo(json.dumps(summary))
        return
    summary |= summary.pop("networks", {})
    for name, one in summary.pop("products", {}).items():
        promise = {} if one["calibration"] is None else {"promise": promise_sentence(one["calibration"]["images"])}
        summary[f"product {name}"] = {**one, **promise}
    if "tuning" in summary:
        from sapatchcore.tuning.tuning import Tuning

        summary["tuning"] = Tuning.from_dict(summary["tuning"]).paragraph()
    if summary["calibration"] is not None:
        summary["promise"] = promise_sentence(summary["calibration"]["images"])
    for name, value in summary.items():
        typer.echo(f"{name:20} {value if not isinstance(value, dict) else ''}".rstrip())
        for key, inner in value.items() if isinstance(value, dict) else ():
            typer.echo(f"  {key:18} {inner}")


def export(
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write: .onnx, or .xml for OpenVINO.")],
    kind: Annotated[
        str | None, typer.Option("--format", help="onnx or openvino. Default: what the file's name says.")
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(help="Folder of images to compare file and model on. Default: the thumbnails in the model."),
    ] = None,
    precision: Annotated[
        str, typer.Option(help="Number format of the network in the file: float32, float16, bfloat16 or int8.")
    ] = "float32",
    product: Product = None,
    bank_precision: Annotated[str, typer.Option(help="The same of the memory bank.")] = "float32",
    opset: Annotated[int, typer.Option(help="Opset of the ONNX form, 17 to 25.")] = 18,
    json_output: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a model for machines without PyTorch: one artefact from raw image to verdict, once it gives the same scores."""
    from sapatchcore.export.export import export_model, kind_of
    from sapatchcore.server.served import file_hash

    kind_of(output, kind)  # wrong use is said before the model is loaded
    detector = load_model(model, product, device="cpu")
    source, _ = file_hash(model)
    with progress_bars(quiet=quiet) as progress:
        summary = export_model(
            detector,
            output,
            kind=kind,
            check=check,
            precision=precision,
            bank_precision=bank_precision,
            opset=opset,
            source_sha256=source,
            progress=progress,
        )
    if json_output:
        typer.echo(json.dumps({"file": str(output), "precision": summary["precision"], "check": summary["check"]}))
        return
    _say(output, summary, quiet)


def _say(output: Path, summary: dict[str, Any], quiet: bool) -> None:
    from sapatchcore.export.metadata import files_of

    found, exact = summary["check"], set(summary["precision"].values()) == {"float32"}
    files = files_of(output)
    size = sum(file.stat().st_size for file in files) / 1e6
    typer.echo(f"{' and '.join(map(str, files))}: {size:.1f} MB. Checked with {found['runtime']} on {found['source']}:")
    typer.echo(
        f"  scores differ by {found['different']['score']:.1g} at most, relative; maps by {found['different']['map']:.1g}"
    )
    if found["verdicts"]:
        other = found["other_verdicts"] + found["other_kinds"]
        typer.echo(f"  {found['verdicts']} verdicts compared, {other or 'none'} of them another")
    if not exact and not quiet:
        warn(
            f"The file's scores are not the model's. Its thresholds come from scores that are {summary['calibration_scores']}."
        )
