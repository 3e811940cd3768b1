"""The inspection server, and the tokens of those who may use it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, cast

import typer

from sapatchcore.cli.options import Device, warn

TokensFile = Annotated[Path, typer.Option("--file", "-f", help="The token file; made where there is none.")]


def serve(
    models: Annotated[Path, typer.Argument(help="Folder of model files, loaded anew whenever they change.")],
    records: Annotated[
        str,
        typer.Option(
            help="Where inspections are recorded: a SQLite file, or postgresql://user@host/database.",
            envvar="SAPATCHCORE_RECORDS",
        ),
    ] = "records.sqlite",
    tokens: Annotated[
        Path | None, typer.Option(help="File of bearer tokens. Without one only this machine can connect.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
    keep_images: Annotated[
        str, typer.Option(help="Inspected images to keep with their records: none, rejected or all.")
    ] = "rejected",
    false_reject: Annotated[
        float | None,
        typer.Option(
            help="The promised share of good parts that are rejected, where a request names none. Default: 0.01, or a model's "
            "smallest possible."
        ),
    ] = None,
    max_bytes: Annotated[str, typer.Option(help="A request's body at most.")] = "32MB",
    max_pixels: Annotated[int, typer.Option(help="An image's pixels at most.")] = 30_000_000,
    max_images: Annotated[int, typer.Option(help="A request's images at most.")] = 16,
    queue: Annotated[
        int, typer.Option(help="Images accepted and not answered yet at most; beyond, clients get 503.")
    ] = 64,
    timeout: Annotated[float, typer.Option(help="Seconds for a request's body to arrive, and for its answer.")] = 30.0,
    retention_age: Annotated[
        str | None, typer.Option(help="Give up records older than this: 90d, 12h. Default: never.")
    ] = None,
    retention_size: Annotated[
        str | None,
        typer.Option(help="Give up the oldest images, then records, beyond this size: 50GB. Default: never."),
    ] = None,
    device: Device = "auto",
    precision: Annotated[str | None, typer.Option(help="Number format of the networks.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images that go through a network together at most.")] = None,
) -> None:
    """Serve a folder of models over HTTP, with a page for people; SIGTERM or Ctrl+C finishes what was accepted."""
    try:
        from sapatchcore.records.retention import as_age, as_bytes
        from sapatchcore.server.app import serve as run
        from sapatchcore.server.options import Keep, ServerOptions
    except ModuleNotFoundError as error:
        from sapatchcore.errors import SAPatchCoreError, install

        raise SAPatchCoreError(f"The server needs {error.name}: {install('serve')}") from None

    load = {"device": device, "precision": precision, "batch_size": batch_size}
    options = ServerOptions(
        models=models,
        records=records,
        host=host,
        port=port,
        tokens=tokens,
        keep_images=cast(Keep, keep_images),
        max_bytes=as_bytes(max_bytes),
        max_pixels=max_pixels,
        max_images=max_images,
        queue=queue,
        timeout=timeout,
        false_reject=false_reject,
        retention_age=None if retention_age is None else as_age(retention_age),
        retention_size=None if retention_size is None else as_bytes(retention_size),
        load={name: value for name, value in load.items() if value is not None},
    )
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("sapatchcore").setLevel(logging.INFO)
    logging.getLogger("uvicorn").setLevel(logging.ERROR)  # a malformed request is its sender's matter
    warn(f"Serving {models} at http://{host}:{port}; records in {records.rpartition('@')[2]}.")
    run(options)


def token(
    name: Annotated[str, typer.Argument(help="Whose token it is: a line, a person.")],
    role: Annotated[str, typer.Option(help="inspect, feedback or admin; each may do what those before it may.")],
    file: TokensFile,
) -> None:
    """Make a bearer token: printed once, and stored as its SHA-256 only."""
    from sapatchcore.server.tokens import make_token

    typer.echo(make_token(name, role, file))
    warn(f"Added {name} ({role}) to {file}. This is the only time the token is shown.")
