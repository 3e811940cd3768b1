"""Which files of a folder are images that are complete and were not inspected yet.

A camera, a copy or a network share writes a file over some time. It counts as complete once its size and time have stayed as
they are for ``settle`` seconds and it decodes; one that does not is given ``patience`` seconds, then it is called unreadable.
"""

from __future__ import annotations

import errno
import math
import os
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sapatchcore.data.images import IMAGE_SUFFIXES
from sapatchcore.errors import DataError
from sapatchcore.records.record import ReceivedImage, WatchedFile, image_hash
from sapatchcore.records.records import Records

MOST_BYTES = 1 << 30  # of one image file
STILL_THERE = 86_400.0  # seconds; so often the records are told which processed files are still there
WHOLE_SECONDS = 3.0  # seconds after which a file is looked at again where its file system keeps times to one or two

Stamp = tuple[int, int]  # bytes, mtime_ns


@dataclass(frozen=True)
class UnreadableFile:
    """A file that could not be inspected in the state ``watched``, and why."""

    watched: WatchedFile
    reason: str


@dataclass
class _Pending:
    """A file that waits. changed, next: when it last changed, when to look again, on time.monotonic's clock."""

    stamp: Stamp
    earlier_hash: str  # of its content as it was inspected earlier, or ""
    changed: float
    next: float


class Arrivals:
    """The files of one folder and its sub-folders. Hidden ones, links to folders and links to files elsewhere are left out."""

    def __init__(self, folder: Path, records: Records, *, settle: float, patience: float) -> None:
        self.folder = folder.resolve()
        self.folders = frozenset((self.folder,))
        self._name, self._records = str(self.folder), records
        self._settle, self._patience = settle, patience
        self._done: dict[str, Stamp] = {}
        self._pending: dict[str, _Pending] = {}
        self._told = -math.inf

    @property
    def waiting(self) -> int:
        """How many files are not done."""
        return len(self._pending)

    def scan(self) -> None:
        """Look through the whole folder. Raises OSError where it cannot be listed, RecordsError where Records does."""
        found, folders = {}, set()
        for folder, files in _walk(self.folder):
            folders.add(folder)
            for path in files:
                if (stamp := self._stamp(path)) is not None:
                    found[self._below(path)] = stamp
        self.folders = frozenset(folders)
        self._done = {name: stamp for name, stamp in self._done.items() if name in found}
        self._pending = {name: one for name, one in self._pending.items() if name in found}
        self._take(found)
        now = time.monotonic()
        if self._done and now - self._told >= STILL_THERE:
            self._records.still_there(self._name, list(self._done))
            self._told = now

    def notice(self, paths: Iterable[str]) -> bool:
        """Look at what the system told of; whether there is a folder among it, which takes a scan. Raises RecordsError."""
        found, folders = {}, False
        for path in map(Path, paths):
            if not path.is_relative_to(self.folder):
                continue
            folders = folders or path.is_dir()
            if (stamp := self._stamp(path)) is not None:
                found[self._below(path)] = stamp
        self._take(found)
        return folders

    def ready(self) -> list[str]:
        """The names of those that have settled, in the order in which they were written."""
        now, settled = time.monotonic(), []
        for name, one in list(self._pending.items()):
            if now < one.next:
                continue
            stamp = self._stamp(self.folder / name)
            if stamp is None:
                del self._pending[name]
            elif stamp != one.stamp:
                one.stamp, one.changed, one.next = stamp, now, now + self._settle
            else:
                settled.append((stamp[1], name))
        return [name for _, name in sorted(settled)]

    def read(self, name: str) -> ReceivedImage | UnreadableFile | None:
        """A settled file's image; None where it is gone, is waited for again, or holds what was inspected already.

        Raises RecordsError where Records does.
        """
        one = self._pending[name]
        try:
            content = self._content(self.folder / name, one.stamp)
        except FileNotFoundError:
            del self._pending[name]
            return None
        except OSError as error:
            reason = f"{name} cannot be read: {error.strerror or error}."
            return self._not_yet(one, UnreadableFile(self._watched(name, one, ""), reason))
        if content is None:  # it changed meanwhile
            one.changed = time.monotonic()
            one.next = one.changed + self._settle
            return None
        watched = self._watched(name, one, image_hash(content))
        if watched.image_hash == one.earlier_hash:
            self._records.same_content(watched)
            self.done(watched, again=False)
            return None
        try:
            return ReceivedImage.decode(content, name, watched)
        except DataError as error:
            return self._not_yet(one, UnreadableFile(watched, str(error)))

    def done(self, watched: WatchedFile, *, again: bool = True) -> None:
        """This state of a file is recorded. again: look once more where another could have the same time."""
        stamp = watched.bytes, watched.mtime_ns
        self._done[watched.name] = stamp
        self._pending.pop(watched.name, None)
        if again and watched.mtime_ns % 1_000_000_000 == 0:
            now = time.monotonic()
            self._pending[watched.name] = _Pending(stamp, watched.image_hash, now, now + WHOLE_SECONDS)

    def _take(self, found: dict[str, Stamp]) -> None:
        """What is not done of these files begins to wait."""
        new = [name for name, stamp in found.items() if self._done.get(name) != stamp and name not in self._pending]
        if not new:
            return
        processed, now = self._records.processed_files(self._name, new), time.monotonic()
        for name in new:
            file, stamp = processed.get(name), found[name]
            # Without a hash it could not even be read; that may be otherwise by now.
            if file is not None and file.image_hash and (file.bytes, file.mtime_ns) == stamp:
                self._done[name] = stamp
            else:
                earlier = "" if file is None else file.image_hash
                self._pending[name] = _Pending(stamp, earlier, now, now + self._settle)

    def _not_yet(self, one: _Pending, found: UnreadableFile) -> UnreadableFile | None:
        """None while it may still be written; on a share a writer can pause."""
        now = time.monotonic()
        if now - one.changed >= self._patience:
            return found
        one.next = now + self._settle
        return None

    def _watched(self, name: str, one: _Pending, digest: str) -> WatchedFile:
        return WatchedFile(self._name, name, *one.stamp, digest)

    def _below(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _content(self, path: Path, expected: Stamp) -> bytes | None:
        """The file's bytes in the state ``expected``; None where it has another."""
        if expected[0] > MOST_BYTES:
            raise OSError(errno.EFBIG, f"it has {expected[0]} bytes, and an image file may have {MOST_BYTES}")
        with path.open("rb") as file:
            content = file.read(expected[0] + 1)
            after = os.fstat(file.fileno())
        return content if (len(content), after.st_mtime_ns) == expected == (after.st_size, after.st_mtime_ns) else None

    def _stamp(self, path: Path) -> Stamp | None:
        """The state of an image file that is looked at; None for all else."""
        if path.suffix.lower() not in IMAGE_SUFFIXES or any(
            part.startswith(".") for part in path.relative_to(self.folder).parts
        ):
            return None
        try:
            found = path.lstat()
            if stat.S_ISLNK(found.st_mode):
                if not path.resolve(strict=True).is_relative_to(self.folder):
                    return None
                found = path.stat()
        except (OSError, RuntimeError):  # gone, or links in a circle
            return None
        return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


def _walk(root: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Each folder that is not hidden and no link, with its files. A sub-folder that cannot be listed is passed over."""
    waiting = [root]
    while waiting:
        folder, files = waiting.pop(), []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if not entry.name.startswith("."):
                            waiting.append(Path(entry.path))
                    else:
                        files.append(Path(entry.path))
        except OSError:
            if folder == root:
                raise
            continue
        yield folder, files
