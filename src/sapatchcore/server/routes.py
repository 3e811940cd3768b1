"""All routes but those of records: inspection, models and their updates, health and figures, the page.

The page's files are those of page/, for people; the description below /docs is drawn from /openapi.json.
"""

from __future__ import annotations

import asyncio
from os import PathLike, stat_result
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from pydantic.json_schema import SkipJsonSchema
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from sapatchcore.errors import SAPatchCoreError
from sapatchcore.server.inspection import InspectionRequest, MapKind, inspect
from sapatchcore.server.middleware import Refused
from sapatchcore.server.models import ModelEntry
from sapatchcore.server.monitoring import CONTENT_TYPE, WINDOW
from sapatchcore.server.schemas import (
    DriftPoint,
    DriftSeen,
    DriftState,
    Inspection,
    Me,
    ModelSeen,
    ModelsSeen,
    Preview,
    PreviewWanted,
    Rate,
    Updated,
    UpdateWanted,
    refusals,
)
from sapatchcore.server.served import FORMATS, Served
from sapatchcore.server.service import Admin, Inspector, ModelName, Service, TheService
from sapatchcore.server.uploads import FIELD, declared_length, read_uploads

inspecting = APIRouter(prefix="/v1/models", tags=["inspect"])
models = APIRouter(prefix="/v1", tags=["models"])
health = APIRouter(tags=["health"])
page = APIRouter(include_in_schema=False)

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


@inspecting.post(
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
    ask = InspectionRequest(service.rate_for(model, false_reject), map, explain, keep)
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


@models.get("/me", operation_id="me", summary="Who asks", responses=refusals(401, 403))
async def me(service: TheService, caller: Inspector) -> Me:
    """The name and role of the token, and whether one is needed at all."""
    return Me(name=caller.name, role=caller.role, token_needed=service.tokens is not None)


@models.get("/models", operation_id="models", summary="All models", responses=refusals(401, 403))
async def list_models(service: TheService, _: Inspector) -> ModelsSeen:
    """All model files of the folder, those that could not be loaded with the reason."""
    return ModelsSeen(models=[_seen(service, entry) for entry in service.folder.entries()])


@models.get(
    "/models/{name}/drift",
    operation_id="drift",
    summary="The p-values of accepted parts, and whether they drift",
    responses=refusals(401, 403, 404, 409, 422, 503),
)
async def drift_of(
    service: TheService,
    _: Inspector,
    name: ModelName,
    last: Annotated[int, Query(ge=1, le=WINDOW, description="Points at most, the newest.")] = WINDOW,
) -> DriftSeen:
    """Points of the window that is watched, the oldest first. Some seconds behind the records."""
    found = service.drift.finding(service.model(name))
    if found is None:
        raise Refused(409, f"The model {name} has no calibration, so there are no p-values to watch.")
    rows = list(zip(found.parts, found.log_capital, strict=True))[-last:]
    points = [
        DriftPoint(record=part.record, time=part.time, p_value=part.p_value, log_capital=capital)
        for part, capital in rows
    ]
    return DriftSeen(points=points, limit=found.limit, alarm=found.alarm, since=found.since)


@models.post(
    "/models/{name}/update/preview",
    operation_id="preview_update",
    summary="What learning images that were called good would change",
    responses=refusals(400, 401, 403, 404, 409, 413, 422, 503),
)
async def preview_update(service: TheService, _: Admin, name: ModelName, wanted: PreviewWanted) -> Preview:
    """Learns the records' kept images on the side, and scores the newest kept images again with both models."""
    model = _updatable(service, name)
    return await asyncio.wrap_future(service.updates.preview(model, wanted.records))


@models.post(
    "/models/{name}/update",
    operation_id="update",
    summary="Put a preview's model in place",
    responses=refusals(400, 401, 403, 404, 409, 413, 422, 503),
)
async def update(service: TheService, _: Admin, name: ModelName, wanted: UpdateWanted) -> Updated:
    """Replaces the model file as a whole; answers when the new model is in service."""
    model = _updatable(service, name)
    return await asyncio.wrap_future(service.updates.apply(model, wanted.preview))


def _updatable(service: Service, name: str) -> Served:
    model = service.model(name)
    if not model.can_learn:
        raise Refused(
            409,
            f"The model {name} cannot learn here: it is an exported one, or one of several products. Update the model that it "
            "was made from, or with `sapatchcore update`.",
        )
    return model


def _seen(service: Service, entry: ModelEntry) -> ModelSeen:
    model = entry.served
    settings = None if model is None else model.detector.settings
    found = None if model is None else service.drift.finding(model)
    state = None
    if found is not None:
        state = DriftState(
            parts=len(found.parts), alarm=found.alarm is not None, since=found.since, false_alarm=found.false_alarm
        )
    return ModelSeen(
        name=entry.name,
        hash=None if model is None else model.hash,
        file=entry.path.name,
        bytes=entry.bytes if model is None else model.bytes,
        state="failed" if model is None else "ready",
        error=entry.error,
        loaded_at=None if model is None else model.loaded_at,
        format=FORMATS[entry.path.suffix.lower()],
        backbone=None if settings is None else settings.backbone,
        attention=None if settings is None else settings.attention,
        calibration_images=None if model is None else model.calibration_images,
        smallest_false_reject=None if model is None else model.smallest_false_reject,
        can_explain=model is not None and model.can_learn,
        can_update=model is not None and model.can_learn,
        drift=state,
    )


@health.get("/healthz", operation_id="health", summary="Whether the server lives")
async def alive() -> JSONResponse:
    """Always the same answer."""
    return JSONResponse({"status": "alive"})


@health.get("/readyz", operation_id="ready", summary="Whether it takes inspections", responses=refusals(503))
def ready(service: TheService) -> JSONResponse:
    """503 while models are first loaded, while the server stops, and where its records cannot be read."""
    if service.stopping:
        raise Refused(503, "The server is stopping.", retry_after=5)
    if not service.folder.looked:
        raise Refused(503, "The models are still being loaded.", retry_after=2)
    try:
        service.records.get(1)
    except SAPatchCoreError as error:
        raise Refused(503, str(error), retry_after=5) from None
    models = {entry.name: "ready" if entry.served else "failed" for entry in service.folder.entries()}
    return JSONResponse({"status": "ready", "models": models})


@health.get(
    "/metrics",
    operation_id="metrics",
    summary="Figures for Prometheus",
    response_class=PlainTextResponse,
)
def metrics(service: TheService) -> Response:
    """Prometheus's text format."""
    states = {}
    for model in service.served():
        found = service.drift.finding(model)
        if found is not None:
            states[model.name] = (found.alarm is not None, found.log_capital[-1] if found.log_capital else 0.0)
    service.telemetry.drifted(states)
    return Response(service.telemetry.text(), media_type=CONTENT_TYPE)


_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}


class _PageFiles(StaticFiles):
    """The files of page/, asked for anew each time (304 where nothing changed), with types that no system's list decides."""

    def file_response(
        self, full_path: str | PathLike[str], stat_result: stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """Whole files only: a Range would be refused in another form than every refusal here has."""
        scope["headers"] = [header for header in scope["headers"] if header[0] not in (b"range", b"if-range")]
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers["cache-control"] = "no-cache"
        if response.status_code != 304:
            kind = _TYPES.get(Path(full_path).suffix, "text/plain; charset=utf-8")
            response.headers["content-type"] = kind
            del response.headers["accept-ranges"]
        return response


_FILES = _PageFiles(packages=[("sapatchcore.server", "page")])


@page.get("/")
@page.get("/docs")
@page.get("/page/{name:path}")
async def page_file(request: Request, name: str = "") -> Response:
    """One file of the page."""
    file = {"/": "index.html", "/docs": "docs.html"}.get(request.url.path, name)
    try:
        return await _FILES.get_response(file, request.scope)
    except HTTPException:
        raise Refused(404, "There is no such page.") from None
