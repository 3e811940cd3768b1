"""The routes of models: the list, drift, and updates by an admin."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query

from sapatchcore.server.drift_watch import WINDOW
from sapatchcore.server.model_schemas import (
    DriftPoint,
    DriftSeen,
    DriftState,
    Me,
    ModelSeen,
    ModelsSeen,
    Preview,
    PreviewWanted,
    Updated,
    UpdateWanted,
)
from sapatchcore.server.models import Entry
from sapatchcore.server.refusals import Refused
from sapatchcore.server.routes import Admin, Inspector, ModelName, TheService
from sapatchcore.server.schemas import refusals
from sapatchcore.server.served import FORMATS, Served
from sapatchcore.server.service import Service

router = APIRouter(prefix="/v1", tags=["models"])


@router.get("/me", operation_id="me", summary="Who asks", responses=refusals(401, 403))
async def me(service: TheService, caller: Inspector) -> Me:
    """The name and role of the token, and whether one is needed at all."""
    return Me(name=caller.name, role=caller.role, token_needed=service.tokens is not None)


@router.get("/models", operation_id="models", summary="All models", responses=refusals(401, 403))
async def list_models(service: TheService, _: Inspector) -> ModelsSeen:
    """All model files of the folder, those that could not be loaded with the reason."""
    return ModelsSeen(models=[_seen(service, entry) for entry in service.folder.entries()])


@router.get(
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


@router.post(
    "/models/{name}/update/preview",
    operation_id="preview_update",
    summary="What learning images that were called good would change",
    responses=refusals(400, 401, 403, 404, 409, 413, 422, 503),
)
async def preview_update(service: TheService, _: Admin, name: ModelName, wanted: PreviewWanted) -> Preview:
    """Learns the records' kept images on the side, and scores the newest kept images again with both models."""
    model = _updatable(service, name)
    return await asyncio.wrap_future(service.updates.preview(model, wanted.records))


@router.post(
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
    if not model.can_explain:
        raise Refused(
            409, f"The model {name} is an exported one, which cannot learn. Update the model it was made from."
        )
    return model


def _seen(service: Service, entry: Entry) -> ModelSeen:
    model = entry.served
    settings = None if model is None else model.engine.settings
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
        can_explain=model is not None and model.can_explain,
        can_update=model is not None and model.can_explain,
        drift=state,
    )
