"""From images that were scored to the records of their inspections."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sapatchcore.data.pixels import MEDIA_TYPES, UInt8Array, open_header, rgb_from_bytes
from sapatchcore.errors import SettingsError, did_you_mean
from sapatchcore.records.record import ACCEPT, REJECT, NewRecord, Watched
from sapatchcore.result import Result
from sapatchcore.score.verdict import Verdict

KEEP = ("none", "rejected", "all")  # images to keep with their records


@dataclass(frozen=True, eq=False)
class Arrived:
    """An image as it came in.

    file_name: as text. content: the file's bytes; image_hash: their SHA-256. media_type: "image/png". pixels: (h, w, 3) uint8
    RGB. watched: its state in a watched folder.
    """

    file_name: str
    content: bytes
    image_hash: str
    media_type: str
    pixels: UInt8Array
    watched: Watched | None = None


def arrived(content: bytes, file_name: str, watched: Watched | None = None) -> Arrived:
    """Decode an image file's bytes. Raises DataError where they are no image that can be read."""
    pixels = rgb_from_bytes(content, file_name)
    with open_header(file_name, io.BytesIO(content), len(content)) as image:
        media_type = MEDIA_TYPES.get(image.format or "", "application/octet-stream")
    return Arrived(file_name, content, image_hash(content), media_type, pixels, watched)


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
    images: Sequence[Arrived],
    *,
    model: str,
    model_hash: str,
    false_reject: float | None,
    keep: str,
    source: Literal["api", "watch"],
) -> list[NewRecord]:
    """The record of each image.

    Args:
        result: of ``images``, in their order. verdicts: of it, at ``false_reject``; None where the model is not calibrated.
        keep: "none", "rejected" or "all" images.

    Raises SettingsError for another ``keep``; ValueError where the lengths differ (a defect of the caller's code).
    """
    check_keep(keep)
    columns = zip(
        *(images, verdicts if verdicts is not None else [None] * len(images)),
        *(result.sizes, result.scores, result.local_scores, result.context_scores),
        strict=True,
    )
    records = []
    for image, verdict, (height, width), score, local, context in columns:
        kept = keep == "all" or (keep == "rejected" and verdict is not None and verdict.rejected)
        records.append(
            NewRecord(
                model=model,
                model_hash=model_hash,
                image_hash=image.image_hash,
                file_name=image.file_name,
                width=width,
                height=height,
                score=float(score),
                p_value=None if verdict is None else verdict.p_value,
                threshold=None if verdict is None else verdict.threshold,
                false_reject=None if verdict is None else false_reject,
                verdict=None if verdict is None else REJECT if verdict.rejected else ACCEPT,
                kind=None if verdict is None else verdict.kind or None,
                local=float(local),
                context=float(context),
                image=image.content if kept else None,
                media_type=image.media_type if kept else None,
                source=source,
                watched=image.watched,
            )
        )
    return records
