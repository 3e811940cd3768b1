"""The routes of records: what operators found, the list, one record, its image, and all as a file."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, BinaryIO, Literal

from fastapi import APIRouter, Depends, Path, Query
from fastapi.responses import Response, StreamingResponse
from pydantic import BeforeValidator, Field
from pydantic.json_schema import SkipJsonSchema

from sapatchcore.data.images import MEDIA_TYPES
from sapatchcore.errors import DataError
from sapatchcore.records.record import Filter, Kind, Record
from sapatchcore.server.middleware import Refused
from sapatchcore.server.schemas import (
    LARGEST_RECORD,
    Feedback,
    RecordSeen,
    RecordsSeen,
    refusals,
)
from sapatchcore.server.service import Admin, Inspector, ModelName, Operator, TheService

router = APIRouter(prefix="/v1", tags=["records"])
_CHUNK = 1 << 16
_EXPORTS = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}
_BINARY = {"schema": {"type": "string", "format": "binary"}}

Number = Annotated[int, Path(ge=1, le=LARGEST_RECORD, description="The record's number.")]
Text = Annotated[str, Field(max_length=255, pattern=r"^[^\x00]*$")]
Format = Literal["csv", "parquet"]


def _date_first(value: object) -> object:
    """Not the bare numbers that pydantic takes for seconds since 1970: the description promises none."""
    if isinstance(value, str) and not re.match(r"\d{4}-\d\d-\d\d", value):
        raise ValueError("a time is written as 2026-03-01T06:00:00Z")
    return value


Time = Annotated[datetime, BeforeValidator(_date_first)]


class Wanted:
    """A dependency: which records, as query parameters."""

    def __init__(
        self,
        model: Annotated[Text | SkipJsonSchema[None], Query(description="The model's name.")] = None,
        verdict: Annotated[Literal["accept", "reject"] | SkipJsonSchema[None], Query()] = None,
        kind: Annotated[Kind | SkipJsonSchema[None], Query()] = None,
        feedback: Annotated[
            Literal["good", "defect", "none"] | SkipJsonSchema[None], Query(description="none: records without any.")
        ] = None,
        since: Annotated[
            Time | SkipJsonSchema[None], Query(description="From this time on; UTC without a zone.")
        ] = None,
        until: Annotated[
            Time | SkipJsonSchema[None], Query(description="Before this time; UTC without a zone.")
        ] = None,
        file_name: Annotated[
            Text | SkipJsonSchema[None], Query(description="The whole name; * stands for any characters.")
        ] = None,
    ) -> None:
        self._parts: dict[str, Any] = {
            "model": model,
            "verdict": verdict,
            "kind": kind,
            "feedback": feedback,
            "since": _in_utc(since),
            "until": _in_utc(until),
            "file_name": file_name,
        }

    def filter(self, **more: Any) -> Filter:
        """As a question to the records."""
        return Filter(**self._parts, **more)


def _in_utc(time: datetime | None) -> datetime | None:
    if time is None:
        return None
    try:
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (OverflowError, ValueError):
        raise Refused(422, "A time must be in the years 1 to 9999.") from None


def seen(record: Record) -> RecordSeen:
    """A record as it is answered."""
    return RecordSeen(**record.to_dict())


@router.post(
    "/models/{name}/feedback",
    operation_id="feedback",
    summary="This was good, or a defect",
    responses=refusals(400, 401, 403, 404, 413, 422, 503),
)
def give_feedback(service: TheService, caller: Operator, name: ModelName, said: Feedback) -> RecordSeen:
    """Say of a recorded inspection what the part really was; null takes it back."""
    record = service.records.get(said.record)
    if record is None or record.model != name:
        raise Refused(404, f"There is no record {said.record} of the model {name}.")
    try:
        return seen(service.records.feedback(said.record, said.label, said.note, caller.name))
    except DataError as error:  # pruned between the two
        raise Refused(404, str(error)) from None


@router.get(
    "/records",
    operation_id="records",
    summary="The newest records that match",
    responses=refusals(401, 403, 422, 503),
)
def list_records(
    service: TheService,
    _: Inspector,
    wanted: Annotated[Wanted, Depends()],
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    before: Annotated[
        Annotated[int, Field(ge=1, le=LARGEST_RECORD)] | SkipJsonSchema[None],
        Query(description="Only records with a smaller number."),
    ] = None,
) -> RecordsSeen:
    """Newest first; next is the ``before`` of the page that follows."""
    found = service.records.find(wanted.filter(limit=limit + 1, before=before))
    more = len(found) > limit
    found = found[:limit]
    return RecordsSeen(records=[seen(one) for one in found], next=found[-1].number if more else None)


@router.get(
    "/records/export",
    operation_id="export_records",
    summary="All records that match, as a file",
    response_class=Response,
    responses={
        200: {"content": {"text/csv": {"schema": {"type": "string"}}, "application/vnd.apache.parquet": _BINARY}},
        **refusals(401, 403, 422, 503),
    },
)
def export_records(
    service: TheService,
    _: Admin,
    wanted: Annotated[Wanted, Depends()],
    format: Annotated[Format, Query(description="csv or parquet.")] = "csv",
) -> StreamingResponse:
    """The oldest first."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed after it is sent
    try:
        write = service.records.write_csv if format == "csv" else service.records.write_parquet
        write(file, wanted.filter())
        size = file.tell()
        file.seek(0)
    except BaseException:
        file.close()
        raise
    headers = {"Content-Disposition": f'attachment; filename="records.{format}"', "Content-Length": str(size)}
    return StreamingResponse(_parts(file), media_type=_EXPORTS[format], headers=headers)


def _parts(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while part := file.read(_CHUNK):
            yield part


@router.get(
    "/records/{record}",
    operation_id="record",
    summary="One record",
    responses=refusals(401, 403, 404, 422, 503),
)
def one_record(service: TheService, _: Inspector, record: Number) -> RecordSeen:
    """One inspection as it was recorded."""
    found = service.records.get(record)
    if found is None:
        raise Refused(404, f"There is no record {record}. It may have been pruned.")
    return seen(found)


@router.get(
    "/records/{record}/image",
    operation_id="record_image",
    summary="A record's kept image",
    response_class=Response,
    responses={
        200: {"content": dict.fromkeys(sorted(set(MEDIA_TYPES.values())), _BINARY)},
        **refusals(401, 403, 404, 422, 503),
    },
)
def record_image(service: TheService, _: Inspector, record: Number) -> Response:
    """The image's bytes as they came, where they were kept."""
    found = service.records.image(record)
    if found is None:
        raise Refused(404, f"No image of a record {record} is kept.")
    return Response(found[0], media_type=found[1])
