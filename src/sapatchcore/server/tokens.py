"""Bearer tokens from a file: who a caller is, and what the role allows.

The file holds no token, only each one's SHA-256: a list of entries ``{name, role, sha256}``, YAML or JSON. It is read anew
when it changes, so that a token can be given and taken back while the server runs.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
import stat
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from sapatchcore.atomic import atomic_write
from sapatchcore.errors import SettingsError

log = logging.getLogger("sapatchcore.server")
Role = Literal["inspect", "feedback", "admin"]  # each may do what those before it may
ROLES: tuple[Role, ...] = get_args(Role)
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LOOK_EVERY = 1.0  # seconds between looks at the file's date


@dataclass(frozen=True)
class Caller:
    """Who asks."""

    name: str
    role: Role

    def may(self, role: Role) -> bool:
        """Whether this caller's role holds ``role``."""
        return ROLES.index(self.role) >= ROLES.index(role)


LOCAL = Caller("local", "admin")  # everybody, where no tokens are asked for


@dataclass(frozen=True)
class _Entry:
    name: str
    role: Role
    sha256: str


class Tokens:
    """The tokens of one file."""

    def __init__(self, path: Path) -> None:
        """Raises SettingsError where the file cannot be read or holds something else than tokens."""
        self.path = path
        self._lock = threading.Lock()
        self._seen = _stamp(path)
        self._entries = _read(path)
        self._next_look = time.monotonic() + _LOOK_EVERY

    def caller(self, authorization: str) -> Caller | None:
        """Whose token the Authorization header's value ``Bearer …`` holds; None where it is nobody's."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return None
        given = hashlib.sha256(token.strip().encode("utf-8", "surrogateescape")).hexdigest()
        found = None
        for entry in self._current():  # all of them, so that the time says nothing about which one fits
            if hmac.compare_digest(entry.sha256, given):
                found = Caller(entry.name, entry.role)
        return found

    def _current(self) -> tuple[_Entry, ...]:
        with self._lock:
            if time.monotonic() < self._next_look:
                return self._entries
            self._next_look = time.monotonic() + _LOOK_EVERY
            try:
                stamp = _stamp(self.path)
                if stamp != self._seen:
                    self._seen = stamp
                    self._entries = _read(self.path)
                    log.info("Read %d tokens from %s.", len(self._entries), self.path)
            except SettingsError as error:
                log.error("The tokens read before stay in force: %s", error)
            return self._entries


def make_token(name: str, role: str, path: Path) -> str:
    """Add a new token to the file, and return it: it is stored nowhere.

    Raises SettingsError for a name or role that is not possible, a name that is taken, or a file that cannot be used.
    """
    if not _NAME.fullmatch(name):
        raise SettingsError(f"A token's name must be 1 to 64 letters, digits, '.', '_' or '-'. Got {name!r}.")
    if role not in ROLES:
        raise SettingsError(f"A token's role must be {', '.join(ROLES)}. Got {role!r}.")
    entries = list(_read(path)) if path.exists() else []
    if any(entry.name == name for entry in entries):
        raise SettingsError(
            f"{path} has a token named {name!r} already. Choose another name, or delete that entry first."
        )
    token = secrets.token_urlsafe(32)
    entries.append(_Entry(name, role, hashlib.sha256(token.encode()).hexdigest()))
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o600
    text = yaml.safe_dump([asdict(entry) for entry in entries], sort_keys=False)
    with atomic_write(path, SettingsError, lambda error: f"{path} cannot be written: {error}.", durable=True) as part:
        part.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return token


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        seen = path.stat()
    except OSError as error:
        raise SettingsError(
            f"The token file {path} cannot be read: {error.strerror}. Make one with `sapatchcore token`."
        ) from None
    return seen.st_mtime_ns, seen.st_size, seen.st_ino


def _read(path: Path) -> tuple[_Entry, ...]:
    try:
        found: Any = yaml.safe_load(path.read_bytes())
        mode = path.stat().st_mode
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise SettingsError(
            f"The token file {path} cannot be read: {reason}. Make one with `sapatchcore token`."
        ) from None
    if os.name == "posix" and mode & 0o077:
        log.warning("The token file %s can be read or changed by others than its owner: chmod 600 it.", path)
    if not isinstance(found, list):
        raise SettingsError(f"The token file {path} must hold a list of entries with name, role and sha256.")
    entries = []
    for number, entry in enumerate(found, start=1):
        if not (isinstance(entry, dict) and set(entry) == {"name", "role", "sha256"}):
            raise SettingsError(
                f"Entry {number} of the token file {path} must have name, role and sha256, and no more."
            )
        name, role, digest = str(entry["name"]), entry["role"], str(entry["sha256"])
        if not _NAME.fullmatch(name) or role not in ROLES or not _DIGEST.fullmatch(digest):
            raise SettingsError(
                f"Entry {number} of the token file {path} must have a name of 1 to 64 letters, digits, '.', '_' or '-', one of "
                f"the roles {', '.join(ROLES)}, and 64 hexadecimal digits as sha256."
            )
        entries.append(_Entry(name, role, digest))
    return tuple(entries)
