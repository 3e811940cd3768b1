"""What the server says and takes about models: drift, the list, updates; and who asks. As answers.py."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from sapatchcore.server.schemas import RecordNumber


class DriftState(BaseModel):
    """parts: how many accepted parts the watch has seen. since: the record from which on about it drifted."""

    parts: int
    alarm: bool
    since: int | None
    false_alarm: float


class DriftPoint(BaseModel):
    """One accepted part and the evidence after it."""

    record: int
    time: datetime
    p_value: float
    log_capital: float


class DriftSeen(BaseModel):
    """limit: the log capital that raises the alarm. alarm: the record that did. since: the first changed, about."""

    points: list[DriftPoint]
    limit: float
    alarm: int | None
    since: int | None


class ModelSeen(BaseModel):
    """A model of the folder. error beside "ready": a newer file could not be loaded, the earlier one is in service."""

    name: str
    hash: str | None
    file: str
    bytes: int
    state: Literal["ready", "failed"]
    error: str | None
    loaded_at: datetime | None
    format: Literal["model", "onnx", "openvino"]
    backbone: str | None
    attention: str | None
    calibration_images: int | None
    smallest_false_reject: float | None
    can_explain: bool
    can_update: bool
    drift: DriftState | None


class ModelsSeen(BaseModel):
    """All models of the folder, by name."""

    models: list[ModelSeen]


class PreviewWanted(BaseModel):
    """The records whose kept images would be learned."""

    model_config = ConfigDict(extra="forbid")

    records: Annotated[list[RecordNumber], Field(min_length=1, max_length=500)]


class Judged(BaseModel):
    """One image's score with one version of the model."""

    score: float
    p_value: float | None
    verdict: Literal["accept", "reject"] | None


class Change(BaseModel):
    """A kept image whose verdict or score changes."""

    record: int
    before: Judged
    after: Judged


class Preview(BaseModel):
    """What an update would change. checked: how many kept images were scored again; changes: those that differ."""

    preview: str
    images_added: int
    rows_before: int
    rows_after: int
    threshold_before: float | None
    threshold_after: float | None
    false_reject: float | None
    changes: list[Change]
    checked: int


class UpdateWanted(BaseModel):
    """The preview that an admin saw and wants."""

    model_config = ConfigDict(extra="forbid")

    preview: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class Updated(BaseModel):
    """The model after an update."""

    model_config = ConfigDict(protected_namespaces=())

    model: str
    model_hash: str
    images_added: int


class Me(BaseModel):
    """Who the server takes the caller for."""

    name: str
    role: Literal["inspect", "feedback", "admin"]
    token_needed: bool
