"""Learning images that operators called good: first a preview of what it changes, then the model file as a whole.

One job at a time, in a thread of low priority that ends with it. A preview keeps the new model in a hidden file beside the old
one; applying it renames that file, and the folder's watch loads it like any other change.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from sapatchcore.atomic import keep_renamed
from sapatchcore.data.pixels import UInt8Array, rgb_from_bytes
from sapatchcore.errors import DataError
from sapatchcore.open_model import Detector
from sapatchcore.records.record import GOOD, Filter, Record
from sapatchcore.records.records import Records
from sapatchcore.result import Result
from sapatchcore.server.middleware import Refused
from sapatchcore.server.models import ModelFolder
from sapatchcore.server.schemas import Change, Judged, Preview, Updated
from sapatchcore.server.served import Served, file_hash, in_own_thread

T = TypeVar("T")
CHECKED = 200  # kept images that a preview scores again, the newest
MOST_PREVIEWS = 4
LIFETIME = 3600.0  # seconds
_SUFFIX = ".preview"
_NICE = 10
_TOGETHER = 8  # images decoded at a time


@dataclass(frozen=True)
class _Kept:
    """A preview that may be applied: the new file, and the version of the model that it was made from."""

    model: str
    base: str
    file: Path
    images: int
    made: float


class UpdateJobs:
    """Previews of updates, and updates, of the models of a folder."""

    def __init__(
        self,
        folder: ModelFolder,
        records: Records,
        rate_for: Callable[[Served], float | None],
        load: dict[str, Any],
    ) -> None:
        """rate_for: the promised rate of a model. load: options of SAPatchCore.load."""
        self._folder, self._records, self._rate_for, self._load = folder, records, rate_for, load
        self._busy = threading.Lock()
        self._stopping = False
        self._kept: dict[str, _Kept] = {}
        for left in folder.folder.glob(f".*{_SUFFIX}*"):  # of a server that was killed, whole or half written
            left.unlink(missing_ok=True)

    def stop(self) -> None:
        """Wait for the job that runs, and give up all previews."""
        self._stopping = True
        with self._busy:
            for name in list(self._kept):
                self._drop(name)

    def preview(self, model: Served, numbers: Sequence[int]) -> Future[Preview]:
        """What learning the records' images would change. Raises Refused: 409 while another job runs."""
        return self._start(lambda: self._preview(model, numbers))

    def apply(self, model: Served, name: str) -> Future[Updated]:
        """Put a preview's model in place. Raises Refused: 409 while another job runs."""
        return self._start(lambda: self._apply(model, name))

    def _start(self, work: Callable[[], T]) -> Future[T]:
        if not self._busy.acquire(blocking=False):
            raise Refused(409, "Another update is being worked on. Wait until it is done.")

        if self._stopping:
            self._busy.release()
            raise Refused(503, "The server is stopping.", retry_after=5)

        def run() -> T:
            try:
                _lower_priority()
                return work()
            finally:
                self._busy.release()

        return in_own_thread("update", run)

    def _preview(self, model: Served, numbers: Sequence[int]) -> Preview:
        from sapatchcore.detector import SAPatchCore
        from sapatchcore.model_file import has_weights

        self._expire()
        chosen = [self._learnable(model, number) for number in dict.fromkeys(numbers)]
        detector = SAPatchCore.load(model.path, **self._load)
        if file_hash(model.path)[0] != model.hash:
            raise Refused(409, f"The model {model.name} changed a moment ago. Try again.")
        before = model.learner
        detector.update([self._pixels(number) for number in chosen])
        name = secrets.token_urlsafe(12)
        file = model.path.with_name(f".{model.path.stem}.{name}{_SUFFIX}")
        detector.save(file, include_weights=has_weights(model.path))
        self._kept[name] = _Kept(model.name, model.hash, file, len(chosen), time.monotonic())
        rate = self._rate_for(model)
        changes, checked = self._changes(model, detector, rate)
        return Preview(
            preview=name,
            images_added=len(chosen),
            rows_before=before.rows,
            rows_after=detector.rows,
            threshold_before=_limit(before, rate),
            threshold_after=_limit(detector, rate),
            false_reject=rate,
            changes=changes,
            checked=checked,
        )

    def _apply(self, model: Served, name: str) -> Updated:
        kept = self._kept.get(name)
        if kept is None or kept.model != model.name or time.monotonic() - kept.made > LIFETIME:
            raise Refused(404, "There is no such preview; it may have expired. Make a new one.")
        if kept.base != model.hash or file_hash(model.path)[0] != kept.base:
            self._drop(name)
            raise Refused(409, f"The model {model.name} changed since the preview. Make a new one.")
        try:
            kept.file.replace(model.path)
            keep_renamed(model.path.parent)
        except OSError as error:
            raise Refused(409, f"The model file cannot be replaced: {error.strerror}. It is as it was.") from None
        del self._kept[name]
        self._folder.look()
        entry = self._folder.find(model.name)
        if entry is None or entry.served is None or entry.error is not None:
            raise Refused(409, f"The updated model could not be loaded: {entry.error if entry else 'its file is gone'}")
        return Updated(model=model.name, model_hash=entry.served.hash, images_added=kept.images)

    def _learnable(self, model: Served, number: int) -> int:
        record = self._records.get(number)
        if record is None or record.model != model.name:
            raise Refused(404, f"There is no record {number} of the model {model.name}.")
        if record.feedback != GOOD:
            raise Refused(409, f"Record {number} was not called good. Only good images can be learned.")
        if not record.has_image:
            raise Refused(409, f"The image of record {number} was not kept, so it cannot be learned.")
        return number

    def _pixels(self, number: int) -> UInt8Array:
        kept = self._records.image(number)
        if kept is None:
            raise Refused(409, f"The image of record {number} is not kept any more.")
        return rgb_from_bytes(kept[0], f"The image of record {number}")

    def _changes(self, model: Served, detector: Detector, rate: float | None) -> tuple[list[Change], int]:
        """Kept images that score otherwise with ``detector``, changed verdicts first; and how many were scored again."""
        changes, checked = [], 0
        for records, images in self._kept_images(model):
            before, after = model.detector.predict(images), detector.predict(images)
            for index, record in enumerate(records):
                old, new = _judged(before.only(index), rate), _judged(after.only(index), rate)
                if old.verdict != new.verdict or not np.isclose(old.score, new.score, rtol=1e-5):
                    changes.append(Change(record=record.number, before=old, after=new))
            checked += len(records)
        return sorted(changes, key=lambda change: change.before.verdict == change.after.verdict), checked

    def _kept_images(self, model: Served) -> Iterator[tuple[list[Record], list[UInt8Array]]]:
        found = self._records.find(Filter(model=model.name, has_image=True, limit=CHECKED))
        for first in range(0, len(found), _TOGETHER):
            records, images = [], []
            for record in found[first : first + _TOGETHER]:
                with contextlib.suppress(Refused, DataError):  # pruned meanwhile
                    images.append(self._pixels(record.number))
                    records.append(record)
            if records:
                yield records, images

    def _expire(self) -> None:
        """Give up previews that are old, and the oldest of too many: there must be room for one more."""
        for name, kept in list(self._kept.items()):  # the oldest first
            if time.monotonic() - kept.made > LIFETIME or len(self._kept) >= MOST_PREVIEWS:
                self._drop(name)

    def _drop(self, name: str) -> None:
        self._kept.pop(name).file.unlink(missing_ok=True)


def _judged(result: Result, rate: float | None) -> Judged:
    """result: of one image."""
    if rate is None:
        return Judged(score=float(result.scores[0]), p_value=None, verdict=None)
    verdict = result.verdicts(rate)[0]
    return Judged(score=verdict.score, p_value=verdict.p_value, verdict="reject" if verdict.rejected else "accept")


def _limit(detector: Detector, rate: float | None) -> float | None:
    return None if rate is None or not detector.is_calibrated else detector.threshold(rate)


def _lower_priority() -> None:
    """The calling thread, and those that it starts, give way to the inspections."""
    with contextlib.suppress(OSError, AttributeError):  # of Linux alone: elsewhere it would be the whole process
        if os.uname().sysname == "Linux":
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
