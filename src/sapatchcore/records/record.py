"""What is kept of an inspection: the record, what one is made from, and the question that finds some of them."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from sapatchcore.errors import SettingsError, did_you_mean
from sapatchcore.score.verdict import BOTH, CO_OCCURRENCE, LOCAL

ACCEPT, REJECT = "accept", "reject"
GOOD, DEFECT = "good", "defect"
NONE = "none"  # of a filter: records without feedback
VERDICTS, KINDS, LABELS, SOURCES = (ACCEPT, REJECT), (LOCAL, CO_OCCURRENCE, BOTH), (GOOD, DEFECT), ("api", "watch")
NAME_CHARACTERS = 255  # of a file name that is kept
_NOT_KEPT = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True)
class Watched:
    """One state of a file in a watched folder.

    folder: its path. name: the file's path below it, with "/". bytes, mtime_ns: as the system has them. image_hash: SHA-256
    of its bytes in hexadecimal, "" where they could not be read.
    """

    folder: str
    name: str
    bytes: int
    mtime_ns: int
    image_hash: str


@dataclass(frozen=True)
class WatchError:
    """A file of a watched folder that could not be inspected. time: aware, UTC."""

    folder: str
    name: str
    reason: str
    time: datetime


@dataclass(frozen=True)
class NewRecord:
    """An inspection to be kept.

    Attributes:
        model, model_hash: the model's name, and the SHA-256 of its file. image_hash: of the image's bytes as they came.
        file_name: "" where there is none; of a longer one the last 255 characters are kept.
        width, height: pixels.
        score, local, context: score² = local² + context².
        p_value, threshold, false_reject, verdict: None where the model is not calibrated. kind: None where not rejected.
        image, media_type: the image's bytes where they are kept, and what they are ("image/png").
        source: "api" or "watch". watched: the file's state; kept with the record, so that it is inspected once.

    Raises:
        ValueError: a value that no inspection gives (a defect of the caller's code).
    """

    model: str
    model_hash: str
    image_hash: str
    file_name: str
    width: int
    height: int
    score: float
    p_value: float | None
    threshold: float | None
    false_reject: float | None
    verdict: str | None
    kind: str | None
    local: float
    context: float
    image: bytes | None = None
    media_type: str | None = None
    source: str = "api"
    watched: Watched | None = None

    def __post_init__(self) -> None:
        for name, allowed in (("verdict", VERDICTS), ("kind", KINDS), ("source", SOURCES)):
            value = getattr(self, name)
            if value not in allowed and (value is not None or name == "source"):
                raise ValueError(f"NewRecord.{name} must be one of {', '.join(allowed)}. Got {value!r}.")
        for name in ("score", "local", "context", "p_value", "threshold", "false_reject"):
            value = getattr(self, name)
            if value is None and name in ("score", "local", "context"):
                raise ValueError(f"NewRecord.{name} must be a number. Got None.")
            if value is not None and not math.isfinite(value):
                raise ValueError(f"NewRecord.{name} must be finite. Got {value}.")


@dataclass(frozen=True)
class Record:
    """A kept inspection: NewRecord's values, and what the records add. time, feedback_time: aware, UTC."""

    number: int
    time: datetime
    model: str
    model_hash: str
    image_hash: str
    file_name: str
    width: int
    height: int
    score: float
    p_value: float | None
    threshold: float | None
    false_reject: float | None
    verdict: str | None
    kind: str | None
    local: float
    context: float
    has_image: bool
    feedback: str | None
    feedback_note: str | None
    feedback_time: datetime | None
    feedback_by: str | None
    source: str

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the number as "record", times as "2026-03-01T12:00:00.000000Z"."""
        values = asdict(self)
        values["time"], values["feedback_time"] = as_text(self.time), as_text(self.feedback_time)
        return {"record": values.pop("number"), **values}


@dataclass(frozen=True)
class Filter:
    """Which records; each part that is not None must hold.

    Attributes:
        feedback: "good", "defect" or "none".
        since, until: aware times; since ≤ time < until.
        file_name: the whole name, where * stands for any characters.
        has_image: whether the image is kept.
        before: only records with a smaller number: to go on where an earlier answer ended.
        limit: how many at most. before and limit count for ``Records.find`` alone.

    Raises:
        SettingsError: a value outside its range.
    """

    model: str | None = None
    verdict: str | None = None
    kind: str | None = None
    feedback: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    file_name: str | None = None
    has_image: bool | None = None
    before: int | None = None
    limit: int = 100

    def __post_init__(self) -> None:
        for name, allowed in (("verdict", VERDICTS), ("kind", KINDS), ("feedback", (*LABELS, NONE))):
            value = getattr(self, name)
            if value is not None and value not in allowed:
                hint = did_you_mean(value, allowed)
                raise SettingsError(f"{name} must be one of {', '.join(allowed)}. Got {value!r}.{hint}")
        for name in ("since", "until"):
            value = getattr(self, name)
            if value is not None and value.tzinfo is None:
                raise SettingsError(f"{name} must say its time zone. Got {value.isoformat()}. Add +00:00 for UTC.")
        if self.limit < 1:
            raise SettingsError(f"limit must be 1 or more. Got {self.limit}.")


def as_text(time: datetime | None) -> str | None:
    """An aware time as "2026-03-01T12:00:00.000000Z"."""
    return None if time is None else time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def clean(text: str) -> str:
    """``text`` as every database can keep it: a file name's bytes that are no UTF-8 as \\xff, half characters as \\ud800."""
    return _NOT_KEPT.sub(lambda found: _escaped(ord(found[0])), text)


def _escaped(sign: int) -> str:
    return f"\\x{sign & 0xFF:02x}" if sign == 0 or 0xDC80 <= sign <= 0xDCFF else f"\\u{sign:04x}"


def short_name(name: str) -> str:
    """A file name, cleaned; of a long one its end, which tells more than its beginning."""
    name = clean(name)
    return name if len(name) <= NAME_CHARACTERS else "…" + name[1 - NAME_CHARACTERS :]
