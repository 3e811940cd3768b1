"""An inspection record, declared once: its table, rows, CSV, Parquet and the server's answer are derived from ``Record``.

Beside it what a record is made from, and the question that finds some of them.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, cast, get_args, get_origin, get_type_hints

from sapatchcore.data.images import MEDIA_TYPES
from sapatchcore.data.pixels import UInt8Array, open_header, rgb_from_bytes
from sapatchcore.errors import SettingsError, did_you_mean
from sapatchcore.products.result import products_of
from sapatchcore.result import Result
from sapatchcore.score.verdict import Verdict

Decision = Literal["accept", "reject"]
Kind = Literal["local", "co-occurrence", "unclear", "both"]  # "both": of records of earlier versions
Label = Literal["good", "defect"]
Source = Literal["api", "watch"]
VERDICTS, KINDS, LABELS, SOURCES = (get_args(one) for one in (Decision, Kind, Label, Source))
ACCEPT: Final = "accept"
REJECT: Final = "reject"
GOOD: Final = "good"
NONE = "none"  # of a filter: records without feedback
KEEP = ("none", "rejected", "all")  # images to keep with their records
Sha256 = Annotated[str, 64]  # in hexadecimal; the number of its characters


@dataclass(frozen=True)
class WatchedFile:
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
class InspectionValues:
    """What an inspection found.

    Attributes:
        model, model_hash: the model's name, and the SHA-256 of its file. image_hash: of the image's bytes as they came.
        file_name: "" where there is none; of a longer one the last 255 characters are kept. width, height: pixels.
        score, local, context: score² = local² + context² without a global part. global_score: None without one.
        p_value, threshold, false_reject, verdict: None where the model is not calibrated. kind: None where not rejected.
        notes: as of Result, a sentence a line; None where there is none. product: that it was taken for; None of a model of one.
    """

    model: str
    model_hash: Sha256
    image_hash: Sha256
    file_name: str
    width: int
    height: int
    score: float
    p_value: float | None
    threshold: float | None
    false_reject: float | None
    verdict: Decision | None
    kind: Kind | None
    local: float
    context: float
    global_score: float | None
    notes: str | None
    product: str | None


@dataclass(frozen=True)
class NewRecord(InspectionValues):
    """An inspection to be kept.

    Attributes:
        image, media_type: the image's bytes where they are kept, and what they are ("image/png").
        source: who handed the image in. watched: the file's state; kept with the record, so that it is inspected once.

    Raises ValueError for a value that no inspection gives (a defect of the caller's code).
    """

    image: bytes | None = None
    media_type: str | None = None
    source: Source = "api"
    watched: WatchedFile | None = None

    def __post_init__(self) -> None:
        for name, allowed in (("verdict", VERDICTS), ("kind", KINDS), ("source", SOURCES)):
            value = getattr(self, name)
            if value not in allowed and (value is not None or not FIELDS[name].nullable):
                raise ValueError(f"NewRecord.{name} must be one of {', '.join(allowed)}. Got {value!r}.")
        for name, value in ((name, getattr(self, name)) for name, field in FIELDS.items() if field.type is float):
            if value is None and not FIELDS[name].nullable:
                raise ValueError(f"NewRecord.{name} must be a number. Got None.")
            if value is not None and not math.isfinite(value):
                raise ValueError(f"NewRecord.{name} must be finite. Got {value}.")


@dataclass(frozen=True)
class _Numbered:
    number: int
    time: datetime


@dataclass(frozen=True)
class Record(InspectionValues, _Numbered):
    """A kept inspection: number and time, what was found, then the rest. time, feedback_time: aware, UTC.

    A field that is added here is a column of the table, whose ``VERSION`` then changes (tables.py's ``ADDED`` brings it to the
    databases of before), and of everything that is exported.
    """

    has_image: bool
    feedback: Label | None
    feedback_note: str | None
    feedback_time: datetime | None
    feedback_by: str | None
    source: Source

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the number as "record", times as "2026-03-01T12:00:00.000000Z", notes as a list of sentences."""
        times = {"time": as_text(self.time), "feedback_time": as_text(self.feedback_time)}
        values = {**asdict(self), **times, "notes": (self.notes or "").splitlines()}
        return {EXPORTED_NAMES.get(name, name): value for name, value in values.items()}


@dataclass(frozen=True)
class FieldType:
    """What a field of Record holds: type is bool, int, float, str or datetime. length: of a text, where that is fixed."""

    type: type
    nullable: bool
    length: int | None

    @classmethod
    def of(cls, annotation: Any) -> FieldType:
        nullable = type(None) in get_args(annotation)
        if nullable:
            (annotation,) = (one for one in get_args(annotation) if one is not type(None))
        if get_origin(annotation) is Annotated:
            return cls(get_args(annotation)[0], nullable, get_args(annotation)[1])
        return cls(str if get_origin(annotation) is Literal else annotation, nullable, None)


ANNOTATIONS: dict[str, Any] = get_type_hints(Record, include_extras=True)
FIELDS = {name: FieldType.of(annotation) for name, annotation in ANNOTATIONS.items()}
EXPORTED_NAMES = {"number": "record"}  # all other fields keep their names in JSON, CSV and Parquet


@dataclass(frozen=True)
class Filter:
    """Which records; each part that is not None must hold.

    Attributes:
        feedback: "good", "defect" or "none".
        since, until: aware times; since ≤ time < until. file_name: the whole name, where * stands for any characters.
        has_image: whether the image is kept. before: only records with a smaller number: to go on where an earlier answer ended.
        limit: how many at most. before and limit count for ``Records.find`` alone.

    Raises SettingsError for a value outside its range.
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


@dataclass(frozen=True, eq=False)
class ReceivedImage:
    """An image as it came in.

    file_name: as text. content: the file's bytes; image_hash: their SHA-256. media_type: "image/png". pixels: (h, w, 3) uint8
    RGB. watched: its state in a watched folder.
    """

    file_name: str
    content: bytes
    image_hash: str
    media_type: str
    pixels: UInt8Array
    watched: WatchedFile | None = None

    @classmethod
    def decode(cls, content: bytes, file_name: str, watched: WatchedFile | None = None) -> ReceivedImage:
        """From an image file's bytes. Raises DataError where they are no image that can be read."""
        pixels = rgb_from_bytes(content, file_name)
        with open_header(file_name, io.BytesIO(content), len(content)) as image:
            media_type = MEDIA_TYPES.get(image.format or "", "application/octet-stream")
        return cls(file_name, content, image_hash(content), media_type, pixels, watched)


def image_hash(content: bytes) -> str:
    """SHA-256 of an image file's bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def check_keep(keep: str) -> None:
    """Raises SettingsError where ``keep`` is none of KEEP."""
    if keep not in KEEP:
        raise SettingsError(f"keep must be one of {', '.join(KEEP)}. Got {keep!r}.{did_you_mean(keep, KEEP)}")


def records_of(
    result: Result,
    verdicts: Sequence[Verdict] | None,
    images: Sequence[ReceivedImage],
    *,
    model: str,
    model_hash: str,
    false_reject: float | None,
    keep: str,
    source: Source,
) -> list[NewRecord]:
    """The record of each image.

    Args:
        result: of ``images``, in their order. verdicts: of it, at ``false_reject``; None where the model is not calibrated.
        keep: "none", "rejected" or "all" images.

    Raises SettingsError for another ``keep``; ValueError where the lengths differ (a defect of the caller's code).
    """
    check_keep(keep)
    said = [None] * len(images) if verdicts is None else verdicts
    columns = zip(images, said, result.sizes, result.notes, products_of(result), strict=True)
    records = []
    for i, (image, verdict, (height, width), notes, product) in enumerate(columns):
        kept = keep == "all" or (keep == "rejected" and verdict is not None and verdict.rejected)
        records.append(
            NewRecord(
                model=model,
                model_hash=model_hash,
                image_hash=image.image_hash,
                file_name=image.file_name,
                width=width,
                height=height,
                score=float(result.scores[i]),
                p_value=None if verdict is None else verdict.p_value,
                threshold=None if verdict is None else verdict.threshold,
                false_reject=None if verdict is None else false_reject,
                verdict=None if verdict is None else REJECT if verdict.rejected else ACCEPT,
                kind=None if verdict is None else cast(Kind | None, verdict.kind or None),
                local=float(result.local_scores[i]),
                context=float(result.context_scores[i]),
                global_score=None if result.global_scores is None else float(result.global_scores[i]),
                notes="\n".join(notes) or None,
                product=product,
                image=image.content if kept else None,
                media_type=image.media_type if kept else None,
                source=source,
                watched=image.watched,
            )
        )
    return records


def as_text(time: datetime | None) -> str | None:
    """An aware time as "2026-03-01T12:00:00.000000Z"."""
    return None if time is None else time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
