"""The route that inspects images."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic.json_schema import SkipJsonSchema

from sapatchcore.server.findings import MapKind
from sapatchcore.server.inspection import Ask, inspect
from sapatchcore.server.refusals import Refused
from sapatchcore.server.routes import Inspector, ModelName, TheService
from sapatchcore.server.schemas import Inspection, Rate, refusals
from sapatchcore.server.uploads import FIELD, declared_length, read_uploads

router = APIRouter(prefix="/v1/models", tags=["inspect"])
_FILE = {"type": "string", "format": "binary"}
_FORM = {
    "type": "object",
    "required": [FIELD],
    "properties": {FIELD: {"type": "array", "minItems": 1, "items": _FILE}},
    "additionalProperties": False,
}
_BODY: dict[str, Any] = {
    "required": True,
    "description": "One or more image files (PNG, JPEG, BMP, TIFF or WebP) in fields named images, or one as the body.",
    "content": {
        "multipart/form-data": {"schema": _FORM},
        "image/*": {"schema": _FILE},
        "application/octet-stream": {"schema": _FILE},
    },
}


@router.post(
    "/{name}/inspect",
    operation_id="inspect",
    summary="Inspect one or more images",
    responses=refusals(400, 401, 403, 404, 409, 413, 415, 422, 503, 504),
    openapi_extra={"requestBody": _BODY},
)
async def inspect_images(
    request: Request,
    service: TheService,
    _: Inspector,
    name: ModelName,
    false_reject: Annotated[
        Rate | SkipJsonSchema[None],
        Query(description="The promised share of good parts that are rejected. Default: the server's."),
    ] = None,
    map: Annotated[MapKind, Query(description="Anomaly maps in the answer.")] = "none",
    explain: Annotated[bool, Query(description="Explain the highest regions, where the model can.")] = False,
    keep: Annotated[
        bool, Query(description="Keep these images with their records, where the server keeps rejected ones.")
    ] = False,
) -> Inspection:
    """Score, p-value, verdict, kind and regions of each image. All images are recorded before this answers, or none."""
    model = service.model(name)
    ask = Ask(service.rate_for(model, false_reject), map, explain, keep)
    if service.stopping:
        raise Refused(503, "The server is stopping.", retry_after=5)
    options = service.options
    with service.queue.ticket(declared_length(request)) as ticket:
        uploads = await read_uploads(request, ticket, most_images=options.max_images, most_bytes=options.max_bytes)
        try:
            async with asyncio.timeout(options.timeout):
                return await inspect(service, model, uploads, ask)
        except TimeoutError:
            raise Refused(504, f"The inspection was not done within {options.timeout:g} s. Try again later.") from None
