"""Reading TNVision's YAML: nothing in it is skipped.

A key that is unknown is refused with the nearest one, at whatever level; so is one that stands twice. A key
without a value (``API_KEY:``) counts as absent.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Hashable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from sapatchcore.errors import SettingsError, did_you_mean
from sapatchcore.tnvision.config import Config, Section


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that stands twice; PyYAML keeps the last one silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        names = [key.value for key, _ in node.value]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise SettingsError(f"the key {twice} stands twice, last in line {node.end_mark.line}. Keep one of them.")
        return super().construct_mapping(node, deep)


def read_config(path: Path) -> Config:
    """The YAML file ``path``, checked. Raises SettingsError, also where it is missing or no YAML."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        beside = [one.name for one in sorted(path.parent.glob("*.yaml"))] if path.parent.is_dir() else []
        raise SettingsError(
            f"The file {path} does not exist.{did_you_mean(path.name, beside)} Check --yaml_config."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}. Give a YAML file in UTF-8.") from None
    try:
        values = yaml.load(text, _UniqueKeys)
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} is no YAML: {error}. Compare it with a file in configs/.") from None
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None
    return config_from(values, os.fspath(path))


def config_from(values: object, source: str) -> Config:
    """The keys and values of a YAML file, checked; ``source`` begins every message.

    Raises SettingsError for an unknown key (with the nearest one), a missing one, or a value out of range.
    """
    given = _given(values, Config, "", source)
    try:
        return Config(**given)
    except ValidationError as error:
        first = error.errors()[0]
        top, *rest = (str(part) for part in first["loc"])
        section = _section(Config.model_fields[top])
        if section is None or not rest:
            name, field, value = top, Config.model_fields[top], given.get(top)
        else:
            name, field, value = f"{top}.{rest[0]}", section.model_fields[rest[0]], given[top].get(rest[0])
        if value is None:
            needed = f"at least {_required(section)}" if section is not None and not rest else _allowed(field)
            raise SettingsError(f"{source}: {name} is missing. Add it: {needed}.") from None
        got = f"a {type(value).__name__}" if name == "API_KEY" else repr(value)  # a key is never shown
        near = did_you_mean(str(value), get_args(field.annotation)) if _is_choice(field) else ""
        raise SettingsError(f"{source}: {name} must be {_allowed(field)}. Got {got}.{near}") from None


def _given(values: object, model: type[BaseModel], where: str, source: str) -> dict[str, Any]:
    """``values`` without those that are None. Raises SettingsError for a name that ``model`` does not have."""
    fields = model.model_fields
    if not isinstance(values, dict):
        raise SettingsError(
            f"{source}: {where or 'the file'} must hold keys with values: {', '.join(fields)}. Got {values!r}."
        )
    given: dict[str, Any] = {}
    for name, value in values.items():
        if name not in fields:
            near = did_you_mean(str(name), fields) or _elsewhere(str(name))
            raise SettingsError(
                f"{source}: {name!r} is not a key {f'of {where}' if where else 'at the top level'}.{near} "
                f"Allowed there: {', '.join(fields)}."
            )
        section = _section(fields[name])
        if section is not None:
            given[name] = _given({} if value is None else value, section, name, source)
        elif value is not None:
            given[name] = value
    return given


def _elsewhere(name: str) -> str:
    """The nearest key of any section: 'batch_size' at the top means DATALOADER.batch_size."""
    dotted: dict[str, str] = {}
    for top, field in Config.model_fields.items():
        section = _section(field)
        dotted.update({key: f"{top}.{key}" for key in section.model_fields} if section else {top: top})
    near = difflib.get_close_matches(name, dotted, n=1, cutoff=0.6)
    return f" Did you mean {dotted[near[0]]!r}?" if near else ""


def _section(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def _allowed(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    return str(extra["allowed"]) if isinstance(extra, dict) else "keys with values"


def _required(section: type[BaseModel]) -> str:
    return " and ".join(name for name, field in section.model_fields.items() if field.is_required())


def _is_choice(field: FieldInfo) -> bool:
    return get_origin(field.annotation) is Literal
