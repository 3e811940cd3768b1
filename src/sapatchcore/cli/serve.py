"""The inspection server, and the tokens of those who may use it."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo

from sapatchcore.cli.options import warn
from sapatchcore.server.options import ServerOptions

TokensFile = Annotated[Path, typer.Option("--file", "-f", help="The token file; made where there is none.")]


def _with_server_options(command: Callable[[dict[str, Any]], None]) -> Callable[..., None]:
    """Give a command every option of server/options.py; it receives their values by name, to be checked there."""

    @functools.wraps(command)
    def wrapper(**given: Any) -> None:
        command(given)

    parameters = [_parameter(name, field) for name, field in ServerOptions.model_fields.items()]
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapper


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    """An argument where the field has no default, else an option; sizes, ages and choices are text that the field reads."""
    more: Any = field.json_schema_extra
    kind: Any = next((one for one in (int, float, Path) if field.annotation in (one, one | None)), str)
    if field.is_required():
        about: Any = typer.Argument(help=field.description)
        default = inspect.Parameter.empty
    else:
        about = typer.Option(help=field.description, envvar=more.get("envvar"))
        default = field.default
        kind = kind | None if default is None else kind
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, about])


@_with_server_options
def serve(given: dict[str, Any]) -> None:
    """Serve a folder of models over HTTP, with a page for people; SIGTERM or Ctrl+C finishes what was accepted."""
    try:
        from sapatchcore.server.app import serve as run

        options = ServerOptions(**given)
    except ModuleNotFoundError as error:
        from sapatchcore.errors import SAPatchCoreError, install

        raise SAPatchCoreError(f"The server needs {error.name}: {install('serve')}") from None

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("sapatchcore").setLevel(logging.INFO)
    logging.getLogger("uvicorn").setLevel(logging.ERROR)  # a malformed request is its sender's matter
    where = str(options.records).rpartition("@")[2]
    warn(f"Serving {options.models} at http://{options.host}:{options.port}; records in {where}.")
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
