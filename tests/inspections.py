"""Made inspections, and a plain list that does what the records do: slow, short, and without a database."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from sapatchcore.records.record import Filter, NewRecord, Record


def inspection(**values: Any) -> NewRecord:
    """An accepted image; any value may be another."""
    usual: dict[str, Any] = {
        "model": "screws",
        "model_hash": "a" * 64,
        "image_hash": "b" * 64,
        "file_name": "000.png",
        "width": 64,
        "height": 48,
        "score": 1.25,
        "p_value": 0.5,
        "threshold": 2.0,
        "false_reject": 0.01,
        "verdict": "accept",
        "kind": None,
        "local": 0.75,
        "context": 1.0,
        "global_score": None,
        "notes": None,
        "product": None,
    }
    return NewRecord(**{**usual, **values})


@dataclass
class PlainRecords:
    """The oracle. Every answer goes through all records. now: the clock."""

    now: Callable[[], datetime]
    kept: list[Record] = field(default_factory=list)
    images: dict[int, tuple[bytes, str]] = field(default_factory=dict)

    def add(self, numbers: list[int], new: list[NewRecord]) -> list[Record]:
        records = []
        for number, one in zip(numbers, new, strict=True):
            shared = {
                name: getattr(one, name)
                for name in NewRecord.__dataclass_fields__
                if name in Record.__dataclass_fields__
            }
            nothing = dict.fromkeys(("feedback", "feedback_note", "feedback_time", "feedback_by"))
            records.append(Record(number=number, time=self.now(), has_image=bool(one.image), **shared, **nothing))
            if one.image:
                self.images[number] = one.image, one.media_type or ""
        self.kept += records
        return records

    def feedback(self, number: int, label: str | None, note: str, by: str) -> Record | None:
        for place, one in enumerate(self.kept):
            if one.number == number:
                said = (label, note, self.now(), by) if label else (None, None, None, None)
                names = ("feedback", "feedback_note", "feedback_time", "feedback_by")
                self.kept[place] = replace(one, **dict(zip(names, said, strict=True)))
                return self.kept[place]
        return None

    def find(self, asked: Filter) -> list[Record]:
        newest = sorted(self.kept, key=lambda one: -one.number)
        return [one for one in newest if matches(one, asked) and (asked.before is None or one.number < asked.before)][
            : asked.limit
        ]

    def prune_by_age(self, age: timedelta) -> int:
        gone = {one.number for one in self.kept if one.time < self.now() - age}
        self.kept = [one for one in self.kept if one.number not in gone]
        self.images = {number: image for number, image in self.images.items() if number not in gone}
        return len(gone)


def matches(record: Record, asked: Filter) -> bool:
    """Whether all that the filter asks holds of the record, its page left aside."""
    for name in ("model", "verdict", "kind"):
        if getattr(asked, name) not in (None, getattr(record, name)):
            return False
    if asked.feedback is not None and (record.feedback or "none") != asked.feedback:
        return False
    if (asked.since is not None and record.time < asked.since) or (
        asked.until is not None and record.time >= asked.until
    ):
        return False
    if asked.file_name is not None:
        parts = map(re.escape, asked.file_name.split("*"))
        if not re.fullmatch(".*".join(parts), record.file_name, re.DOTALL):
            return False
    return asked.has_image in (None, record.has_image)
