"""Files whole or not at all: written under a temporary name beside the target, then renamed.

Renaming inside one folder is one step for the system: a reader sees the old file or the new one, never a part. Where
anything fails, the old file is as it was and nothing is left beside it.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sapatchcore.errors import DataError, SAPatchCoreError

_ADVICE = "Name another file with `output`."


@contextlib.contextmanager
def atomic_write(
    path: Path,
    kind: type[SAPatchCoreError],
    sentence: Callable[[OSError], str],
    *,
    make_folder: bool = False,
    durable: bool = False,
) -> Iterator[Path]:
    """A temporary path beside ``path``, an empty file at first, which becomes ``path`` when the block ends well.

    Args:
        path: The file to write. Its new mode is that of any new file: as the umask says.
        kind: What to raise where the system refuses; any other exception of the block goes on as it is.
        sentence: What to say then.
        make_folder: Make the target's folder. Otherwise it must exist, and there is a sentence for that here.
        durable: Wait until the disk has it, so that not even a power cut leaves a part. It costs milliseconds a file.
    """
    part = path.parent / f".{path.name}.{secrets.token_hex(4)}.part"
    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        part.open("xb").close()  # "x": never a file that somebody else is writing
        mode = stat.S_IMODE(part.stat().st_mode)
    except OSError as error:
        if make_folder:
            raise kind(sentence(error)) from None
        raise kind(f"{path} cannot be written: {error.strerror}. Choose a folder that exists and is yours.") from None
    try:
        yield part
        part.chmod(mode)  # a library may have put a private file of its own there
        if durable:
            with part.open("rb+") as file:
                os.fsync(file.fileno())
        part.replace(path)
        if durable:
            keep_renamed(path.parent)
    except OSError as error:
        raise kind(sentence(error)) from None
    finally:
        with contextlib.suppress(OSError):  # after the renaming it is gone; and a failure has its sentence already
            part.unlink()


def keep_renamed(folder: Path) -> None:
    """Wait until the disk has what was renamed in ``folder``: a renaming outlives a power cut once the folder itself is there."""
    with contextlib.suppress(OSError):  # not every system opens folders
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def write_bytes(path: Path, content: bytes, advice: str = _ADVICE) -> None:
    """Write ``content``, in a folder that is made where it is missing.

    Raises DataError where that cannot be done; advice: its last sentence, what to do then.
    """

    def sentence(error: OSError) -> str:
        return f"{path} cannot be written: {error.strerror}. {advice}"

    with atomic_write(path, DataError, sentence, make_folder=True) as part:
        part.write_bytes(content)


def write_text(path: Path, text: str, advice: str = _ADVICE) -> None:
    """``text`` in UTF-8; as ``write_bytes``."""
    write_bytes(path, text.encode(), advice)


def write_json(path: Path, value: Any, advice: str = _ADVICE) -> None:
    """``value`` as indented JSON, by its standard: without NaN; as ``write_bytes``."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n", advice)
