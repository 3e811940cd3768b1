"""Every option of the server, once: its type, default, range and meaning. The command line derives its flags from the fields."""

from __future__ import annotations

import ipaddress
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ByteSize, ConfigDict, Field, ValidationError, model_validator

from sapatchcore.errors import SettingsError, did_you_mean

Keep = Literal["none", "rejected", "all"]


def _bytes(value: object) -> object:
    """ "32MB" → 32000000, by the same rule as ``records prune``: ByteSize alone would take "5GB?" and "5bit", too."""
    from sapatchcore.records.retention import as_bytes

    return as_bytes(value) if isinstance(value, str) else value


def _age(value: object) -> object:
    from sapatchcore.records.retention import as_age

    return as_age(value) if isinstance(value, str) else value


def _option(default: object, meaning: str, allowed: str = "", remedy: str = "", **more: Any) -> Any:
    return Field(default, description=meaning, json_schema_extra={"allowed": allowed, "remedy": remedy, **more})


class ServerOptions(BaseModel):
    """What ``sapatchcore serve`` is told.

    Raises:
        SettingsError: a value outside its range; a host that others reach, without tokens.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    models: Path = _option(..., "Folder of model files, loaded anew whenever they change.", "a folder")
    records: str | Path = _option(
        "records.sqlite",
        "Where inspections are recorded: a SQLite file, or postgresql://user@host/database.",
        "a file or a database's URL",
        envvar="SAPATCHCORE_RECORDS",
    )
    tokens: Path | None = _option(None, "File of bearer tokens. Without one only this machine can connect.", "a file")
    host: str = _option("127.0.0.1", "Address to listen on.", "an address")
    port: Annotated[int, Field(ge=0, le=65535)] = _option(8000, "Port to listen on.", "from 0 to 65535")
    keep_images: Keep = _option(
        "rejected",
        "Inspected images to keep with their records: none, rejected or all.",
        f"one of {', '.join(get_args(Keep))}",
    )
    false_reject: Annotated[float | None, Field(gt=0, lt=1)] = _option(
        None,
        "The promised share of good parts that are rejected, where a request names none. Default: 0.01, or a model's smallest "
        "possible.",
        "in (0, 1)",
        "Use 0.01 for 1 %.",
    )
    max_bytes: Annotated[ByteSize, Field(ge=1024), BeforeValidator(_bytes)] = _option(
        "32MB", "A request's body at most.", "at least 1024"
    )
    max_pixels: Annotated[int, Field(ge=1)] = _option(30_000_000, "An image's pixels at most.", "at least 1")
    max_images: Annotated[int, Field(ge=1)] = _option(16, "A request's images at most.", "at least 1")
    queue: Annotated[int, Field(ge=1)] = _option(
        64, "Images accepted and not answered yet at most; beyond, clients get 503.", "at least 1"
    )
    timeout: Annotated[float, Field(ge=0.1, allow_inf_nan=False)] = _option(
        30.0, "Seconds for a request's body to arrive, and for its answer.", "at least 0.1"
    )
    retention_age: Annotated[timedelta | None, BeforeValidator(_age)] = _option(
        None, "Give up records older than this: 90d, 12h. Default: never.", "a time span"
    )
    retention_size: Annotated[Annotated[ByteSize, Field(ge=0)] | None, BeforeValidator(_bytes)] = _option(
        None,
        "Give up the oldest images, then records, beyond this size: 50GB. Default: never.",
        "at least 0",
    )
    device: str = _option("auto", "Where to compute.", "a device")
    precision: str | None = _option(None, "Number format of the networks.", "a number format")
    batch_size: int | None = _option(None, "Images that go through a network together at most.", "a whole number")

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _in_words(error) from None

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.max_images > self.queue:
            raise SettingsError(
                f"max_images must not exceed queue, else such a request is never taken. Got {self.max_images} and {self.queue}."
            )
        if self.tokens is None and not is_loopback(self.host):
            raise SettingsError(
                f"Others can reach {self.host}, so the server needs tokens. Make a file of them with `sapatchcore token` and "
                "name it with `tokens`, or use `host` 127.0.0.1."
            )
        return self

    @property
    def load(self) -> dict[str, Any]:
        """Options of SAPatchCore.load for every model: those that were given, all others are the model's own."""
        given = self.model_dump(include={"device", "precision", "batch_size"}, exclude_unset=True)
        return {name: value for name, value in given.items() if value is not None}


def _in_words(error: ValidationError) -> SettingsError:
    first = error.errors()[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, SettingsError):
        return cause
    name, value = str(first["loc"][0]), first["input"]
    if name not in ServerOptions.model_fields:
        return SettingsError(
            f"{name!r} is not an option of the server.{did_you_mean(name, ServerOptions.model_fields)}"
        )
    about: Any = ServerOptions.model_fields[name].json_schema_extra
    near = did_you_mean(value, get_args(Keep)) if name == "keep_images" and isinstance(value, str) else ""
    remedy = f" {about['remedy']}" if about["remedy"] else ""
    return SettingsError(f"{name} must be {about['allowed']}. Got {value!r}.{near}{remedy}")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``: localhost, 127.0.0.0/8 or ::1."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False
