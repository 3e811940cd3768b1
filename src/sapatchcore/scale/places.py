"""A folder of results, on a disk or behind an address: files whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sapatchcore.atomic import atomic_write
from sapatchcore.data.remote import filesystem, is_address, reason
from sapatchcore.errors import DataError


class Place:
    """Files below one folder, by names with slashes."""

    def __init__(self, folder: str) -> None:
        """folder: a path or an address. Raises as data/remote.py's ``filesystem``."""
        self.folder = folder.rstrip("/") or "/"
        self._files: Any
        self._files, self._root = filesystem(self.folder)

    def read(self, name: str) -> bytes | None:
        """A file's bytes, None where there is none. Raises DataError where it cannot be read."""
        try:
            return bytes(self._files.cat_file(f"{self._root}/{name}"))
        except FileNotFoundError:
            return None
        except Exception as error:  # each kind of storage has errors of its own
            raise DataError(f"{self.folder}/{name} cannot be read: {reason(error)}.") from None

    def write(self, name: str, content: bytes) -> None:
        """Write a file, in place of one of before. Raises DataError where it cannot be written; then that is as it was."""
        if not is_address(self.folder):
            path = Path(self.folder) / name
            with atomic_write(path, DataError, lambda error: _refused(str(path), error), make_folder=True) as part:
                part.write_bytes(content)
            return
        try:  # storage behind an address shows an object when all of it is there
            self._files.pipe_file(f"{self._root}/{name}", content)
        except Exception as error:
            raise DataError(_refused(f"{self.folder}/{name}", error)) from None

    def names(self, folder: str) -> list[str]:
        """The files directly in one of its folders, sorted; none where there is no such folder."""
        try:
            found = self._files.ls(f"{self._root}/{folder}", detail=True, refresh=True)
        except FileNotFoundError:
            return []
        except Exception as error:
            raise DataError(f"{self.folder}/{folder} cannot be listed: {reason(error)}.") from None
        names = (one["name"].rstrip("/").rsplit("/", 1)[-1] for one in found if one["type"] == "file")
        return sorted(name for name in names if not name.startswith("."))


def _refused(name: str, error: Exception) -> str:
    return f"{name} cannot be written: {reason(error)}. Free space, or name another folder; what was finished stays."
