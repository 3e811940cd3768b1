"""The models of a folder, loaded again when their files change; a request sees one whole model, the old or the new.

Only names found in the folder are ever looked up: a request's text never becomes a path.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sapatchcore.errors import DataError, SAPatchCoreError
from sapatchcore.export.metadata import files_of
from sapatchcore.server.served import FORMATS, Served, in_own_thread, load

log = logging.getLogger("sapatchcore.server")
NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
EVERY = 0.5  # seconds between looks at the folder

Stamp = tuple[tuple[int, int, int], ...]  # (mtime in ns, size, inode) of each of a model's files


@dataclass(frozen=True)
class ModelEntry:
    """One model of the folder.

    served: the model in service, None where none ever was. error: why the file as it is now could not be loaded. stamp: its
    state then.
    """

    name: str
    path: Path
    bytes: int
    served: Served | None
    error: str | None
    stamp: Stamp


class ModelFolder:
    """The models of one folder, kept up to date by a thread."""

    def __init__(
        self,
        folder: Path,
        options: dict[str, Any] | None = None,
        changed: Callable[[], None] | None = None,
        every: float = EVERY,
    ) -> None:
        """options: of SAPatchCore.load. changed: called after a model came, changed or went. every: seconds between looks.

        Raises DataError where the folder does not exist.
        """
        if not folder.is_dir():
            raise DataError(f"The folder of models {folder} does not exist. Make it, and put model files into it.")
        self.folder = folder
        self._options, self._changed, self._every = options or {}, changed, every
        self._entries: dict[Path, ModelEntry] = {}  # replaced as a whole, never changed
        self._by_name: dict[str, ModelEntry] = {}
        self._last: dict[Path, Stamp] = {}
        self._looking = threading.Lock()
        self._stop = threading.Event()
        self.looked = False  # whether every file has been tried once
        self._thread = threading.Thread(target=self._run, name="models", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; a model that is being loaded is finished first."""
        self._stop.set()
        self._thread.join()

    def entries(self) -> list[ModelEntry]:
        """All model files of the folder, by name."""
        return sorted(self._entries.values(), key=lambda entry: (entry.name, entry.path.name))

    def find(self, name: str) -> ModelEntry | None:
        """The model of this name."""
        return self._by_name.get(name)

    def look(self, *, wait: bool = False) -> None:
        """Bring the models up to date with the folder.

        wait: a file that is new or has changed is loaded at the next look only, once it has stayed as it is: it may still be
        being copied. Without, at once.
        """
        with self._looking:
            entries, changed = dict(self._entries), False
            present = self._present()
            for path in [path for path in entries if path not in present]:
                log.info("The model %s is gone: %s was deleted.", entries[path].name, path.name)
                name = entries.pop(path).name
                for other in [one for one in entries.values() if one.name == name and one.served is None]:
                    del entries[other.path]  # its name is free now: it is tried again
                changed = True
            for path, stamp in present.items():
                before = entries.get(path)
                if before is not None and before.stamp == stamp:
                    continue
                if wait and self._last.get(path) != stamp:
                    continue
                # One file after the other, so that the first models serve while others load.
                entries = {**entries, path: self._tried(path, stamp, before, entries)}
                self._publish(entries)
                changed = True
            self._last = present
            self._publish(entries)
        if changed and self._changed is not None:
            self._changed()

    def _publish(self, entries: dict[Path, ModelEntry]) -> None:
        by_name: dict[str, ModelEntry] = {}
        for path in sorted(entries):
            entry = entries[path]
            if entry.name not in by_name or by_name[entry.name].served is None:
                by_name[entry.name] = entry
        self._entries, self._by_name = entries, by_name

    def _tried(
        self, path: Path, stamp: Stamp, before: ModelEntry | None, entries: dict[Path, ModelEntry]
    ) -> ModelEntry:
        name, size = path.stem, sum(one[1] for one in stamp)
        old = before.served if before is not None else None
        refused = ModelEntry(name, path, size, old, None, stamp)
        if not NAME.fullmatch(name):
            return replace(
                refused,
                error=f"{path.name} cannot be served by its name: use letters, digits, '.', '_' and '-' alone. Rename it.",
            )
        other = next((one for one in entries.values() if one.name == name and one.path != path and one.served), None)
        if other is not None:
            return replace(refused, error=f"{other.path.name} is served as {name!r} already. Rename one of the two.")
        try:
            served = in_own_thread("load", lambda: load(name, path, self._options)).result()
        except SAPatchCoreError as error:
            reason = str(error).replace(f"{self.folder}/", "")
        except Exception as error:  # a file of others may break a runtime in any way; the server goes on
            reason = f"{path.name} cannot be loaded: {' '.join(str(error).split())[:240] or type(error).__name__}."
        else:
            if _stamp(path) == stamp:
                log.info("Serving the model %s (%s, %.1f MB).", name, path.name, served.bytes / 1e6)
                return ModelEntry(name, path, served.bytes, served, None, stamp)
            reason = f"{path.name} changed while it was read. It is read again."
        log.warning("%s%s", reason, " The model before it stays in service." if old else "")
        return replace(refused, error=reason)

    def _present(self) -> dict[Path, Stamp]:
        try:
            found = [path for path in self.folder.iterdir() if path.suffix.lower() in FORMATS]
        except OSError as error:  # a share that is away for a moment: the models stay
            log.error("The folder of models %s cannot be read: %s.", self.folder, error.strerror)
            return {path: entry.stamp for path, entry in self._entries.items()}
        order = list(FORMATS)  # of two that share a name, the model file comes first
        found.sort(key=lambda path: (path.stem, order.index(path.suffix.lower())))
        stamps = {path: _stamp(path) for path in found if not path.name.startswith(".")}
        return {path: stamp for path, stamp in stamps.items() if stamp}

    def _run(self) -> None:
        self.look()
        self.looked = True
        while not self._stop.wait(self._every):
            try:
                self.look(wait=True)
            except Exception:
                log.exception("Looking at the folder of models failed.")


def _stamp(path: Path) -> Stamp:
    """Empty where one of the model's files is missing or is no file."""
    seen = []
    for one in files_of(path):
        try:
            stat = one.stat()
        except OSError:
            return ()
        if not one.is_file():
            return ()
        seen.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
    return tuple(seen)
