"""The options of settings.py on the command line: names, help and defaults are taken from there."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, cast

import typer

from sapatchcore.settings import Settings, settings_from


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command every option of settings.py; it receives those that were given as ``options``, checked."""
    own = inspect.signature(command, eval_str=True)
    added = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                str | None, typer.Option(help=f"{field.description} Default: {_shown(field.default)}.")
            ],
        )
        for name, field in Settings.model_fields.items()
    ]

    @functools.wraps(command)
    def wrapper(*args: Any, **given: Any) -> None:
        options = {name: given.pop(name) for name in Settings.model_fields}
        chosen = {name: _typed(name, value) for name, value in options.items() if value is not None}
        settings_from(chosen)
        command(*args, **given, options=chosen)

    kept = [parameter for name, parameter in own.parameters.items() if name != "options"]
    wrapper.__signature__ = inspect.Signature([*kept, *added])  # type: ignore[attr-defined]
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in [*kept, *added]}
    return wrapper


def _typed(name: str, text: str) -> object:
    """A number where the option takes one; all else as it was written, for settings.py to read."""
    if isinstance(Settings.model_fields[name].default, int | float):
        for kind in (int, float):
            try:
                return kind(text)
            except ValueError:
                continue
    return int(text) if name == "projection" and text.isdigit() else text


def _shown(default: object) -> str:
    if isinstance(default, tuple):
        parts = cast(tuple[object, ...], default)
        return "x".join(map(str, parts)) if isinstance(parts[0], int) else ",".join(map(str, parts))
    return str(default)
