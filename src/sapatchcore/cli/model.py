"""Model files: what they hold, and the form for other machines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sapatchcore.cli.common import Json, Model


def info(
    model: Model,
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


def export(
    model: Model,
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
