"""Images that lie behind an address (s3://, gs://, …): told from paths, listed, read. Needs fsspec and the address's own package.

Where a command takes a folder or an image file, an address does as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from sapatchcore.errors import DataError, MissingPackageError, SettingsError, install

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://")
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}  # what to install for an address, by its first part


def is_address(source: object) -> bool:
    """Whether ``source`` is a text such as "s3://bucket/folder", and no path."""
    return isinstance(source, str) and _ADDRESS.match(source) is not None


def filesystem(where: str) -> tuple[Any, str]:
    """(the file system of fsspec, ``where`` as it calls it) of an address or a local path.

    Raises MissingPackageError where fsspec, or what it needs for this address, is not installed; SettingsError for an address
    that it does not know.
    """
    kind = where.split("://")[0] if is_address(where) else "file"
    try:
        import fsspec

        found, path = fsspec.core.url_to_fs(where)
    except ImportError as error:
        extra = install(_EXTRAS.get(kind, "scale"))
        raise MissingPackageError(f"{where} needs {error.name or 'a package of its own'}: {extra}") from None
    except ValueError:
        raise SettingsError(f"{where} is no address that is known. Allowed: a path, s3://…, gs://….") from None
    return found, str(path)


def read_bytes(address: str) -> bytes:
    """What lies at ``address``. Raises DataError where it cannot be read, with the reason."""
    files, path = filesystem(address)
    try:
        return bytes(files.cat_file(path))
    except FileNotFoundError:
        raise DataError(f"{address} does not exist. Check the address.") from None
    except Exception as error:  # each kind of storage has errors of its own
        raise DataError(f"{address} cannot be read: {reason(error)}") from None


def below(where: str) -> Iterator[str]:
    """Every file in the folder ``where`` and below it, a path or an address like ``where``, in the order of these texts.

    One folder at a time is held. What is hidden (``.x``) is left out. Raises DataError where the folder cannot be listed.
    """
    files, root = filesystem(where)
    start = where.rstrip("/")
    try:
        if not files.isdir(root):
            raise DataError(f"{where} is no folder that can be listed. Check the address.")
        for path in _walk(files, root.rstrip("/")):
            yield f"{start}/{path}"
    except (DataError, MissingPackageError):
        raise
    except Exception as error:  # each kind of storage has errors of its own
        raise DataError(f"{where} cannot be listed: {reason(error)}") from None


def _walk(files: Any, root: str, inside: str = "") -> Iterator[str]:
    """Paths below ``root``, in the order of the whole texts: a folder's name counts with the slash behind it."""
    found = [
        (one["name"].rstrip("/").rsplit("/", 1)[-1], one["type"]) for one in files.ls(f"{root}/{inside}", detail=True)
    ]
    for name, kind in sorted((f"{name}/", kind) if kind == "directory" else (name, kind) for name, kind in found):
        if name.startswith(".") or name in ("", "/"):
            continue
        if kind == "directory":
            yield from _walk(files, root, f"{inside}{name}")
        else:
            yield f"{inside}{name}"


def reason(error: Exception) -> str:
    """What storage, local or behind an address, says of itself; without a full stop."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
