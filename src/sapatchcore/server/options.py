"""Every option of the server once: its default and range."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from sapatchcore.errors import SettingsError
from sapatchcore.records.record import check_keep

Keep = Literal["none", "rejected", "all"]
_LEAST: dict[str, float] = {
    "max_bytes": 1024,
    "max_pixels": 1,
    "max_images": 1,
    "queue": 1,
    "timeout": 0.1,
    "retention_size": 0,
}


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """What ``sapatchcore serve`` is told.

    Attributes:
        models: folder of model files. records: a file's path or a database's URL. tokens: file of bearer tokens; None for
            none, which is possible on a loopback address alone.
        keep_images: which inspected images the records keep.
        max_bytes: of a request's body. max_pixels: of an image. max_images: of a request. queue: images that are accepted
            and not answered yet. timeout: seconds for a body to arrive, and then for its answer.
        false_reject: the promised rate; None for 0.01, or a model's smallest possible where that is larger.
        retention_age, retention_size: records beyond are given up, images first; None keeps all.
        load: options of SAPatchCore.load for every model.

    Raises:
        SettingsError: a value outside its range; a host that others reach, without tokens.
    """

    models: Path
    records: str | Path
    host: str = "127.0.0.1"
    port: int = 8000
    tokens: Path | None = None
    keep_images: Keep = "rejected"
    max_bytes: int = 32_000_000
    max_pixels: int = 30_000_000
    max_images: int = 16
    queue: int = 64
    timeout: float = 30.0
    false_reject: float | None = None
    retention_age: timedelta | None = None
    retention_size: int | None = None
    load: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise SettingsError(f"{name} must be at least {least:g}. Got {value:g}.")
        if self.max_images > self.queue:
            raise SettingsError(
                f"max_images must not exceed queue, else such a request is never taken. Got {self.max_images} and {self.queue}."
            )
        if self.false_reject is not None and not 0 < self.false_reject < 1:
            raise SettingsError(f"false_reject must be in (0, 1). Got {self.false_reject}. Use 0.01 for 1 %.")
        check_keep(self.keep_images)
        if not 0 <= self.port <= 65535:
            raise SettingsError(f"port must be from 0 to 65535. Got {self.port}.")
        if self.tokens is None and not is_loopback(self.host):
            raise SettingsError(
                f"Others can reach {self.host}, so the server needs tokens. Make a file of them with `sapatchcore token` and "
                "name it with `tokens`, or use `host` 127.0.0.1."
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``: localhost, 127.0.0.0/8 or ::1."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False
