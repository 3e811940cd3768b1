"""What the server answers and takes, as pydantic models: the OpenAPI description is made from these."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictInt, create_model

from sapatchcore.records.record import ANNOTATIONS, EXPORTED_NAMES, Kind, Label

LARGEST_RECORD = 2**53 - 1  # numbers beyond are not exact in JavaScript
Box = Annotated[list[int], Field(min_length=4, max_length=4, description="Top, left, height, width, in pixels.")]
Rate = Annotated[float, Field(gt=0, lt=1, description="The promised share of good parts that are rejected.")]


def _whole(value: object) -> object:
    """JSON has one kind of number: 17.0 is a whole one."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


RecordNumber = Annotated[StrictInt, Field(ge=1, le=LARGEST_RECORD), BeforeValidator(_whole)]


class Problem(BaseModel):
    """Why a request was refused, as one sentence."""

    error: str


class FoundRegion(BaseModel):
    """A connected part of the image above the pixel threshold."""

    box: Box
    area: int = Field(description="Pixels.")
    peak: float = Field(description="The anomaly map's largest value in it.")


class MapPictures(BaseModel):
    """Anomaly maps as base64 PNG files.

    grey: 16 bits, value / scale · 65535. colour: RGBA, to lay over the image; transparent where the map is low. Of images
    with more than 4 million pixels the maps are smaller than the image, in its proportions. global_part: what each place adds to
    global_score², where it adds and does not lessen it; null where the model has no global part.
    """

    whole: str
    local: str
    context: str
    global_part: str | None
    scale: float = Field(description="The value of full intensity, of whole, local and context.")
    global_scale: float | None = Field(description="The same of global_part.")


class GoodPatchSeen(BaseModel):
    """The nearest good patch: the training image that it came from, and where in it."""

    image: str
    box: Box
    thumbnail: str | None = Field(description="Base64 JPEG of that image, where the model keeps one.")
    thumbnail_box: list[float] = Field(description="Top, left, height, width, as shares of the thumbnail's sides.")
    turned: str | None = Field(
        description="How the copy of that image which the thumbnail shows was turned; null for itself."
    )


class CauseSeen(BaseModel):
    """One region and its worst patch. box: null where the image as a whole is in question."""

    box: Box | None
    score: float
    local: float
    context: float
    good: GoodPatchSeen
    drawn_from: list[list[float]] = Field(description="Each place's share of context², on the coarse grid.")
    network: str | None = Field(
        description="Of several networks, the one that explains; its numbers, in the units of all."
    )


class ExplanationSeen(BaseModel):
    """The largest peaks' causes, the largest first."""

    causes: list[CauseSeen]


class Inspected(BaseModel):
    """One image's result, and the number of its record."""

    record: int
    time: datetime
    file_name: str
    image_hash: str = Field(description="SHA-256 of the bytes received.")
    width: int
    height: int
    score: float
    p_value: float | None
    threshold: float | None
    verdict: Literal["accept", "reject"] | None
    kind: Kind | None
    reason: str | None
    local: float
    context: float
    local_ratio: float | None
    context_ratio: float | None
    global_score: float | None = Field(description="Of the image as a whole; null where the model has no global part.")
    global_ratio: float | None
    notes: list[str] = Field(
        description="What of the image is not as of the training images: size, brightness, … Mostly none."
    )
    product: str | None = Field(description="That the image was taken for; null where the model is of one product.")
    inspected: Box | None = Field(description="What the network saw of the image; null where that is all of it.")
    regions: list[FoundRegion]
    maps: MapPictures | None
    explanation: ExplanationSeen | None


class Inspection(BaseModel):
    """All images of one request, in their order."""

    model_config = ConfigDict(protected_namespaces=())

    model: str
    model_hash: str = Field(description="SHA-256 of the model file.")
    false_reject: float | None
    threshold: float | None
    note: str | None = Field(description="Why there are no verdicts, where there are none.")
    results: list[Inspected]


_RecordFields: Any = create_model(
    "_RecordFields",
    __config__=ConfigDict(protected_namespaces=(), from_attributes=True),
    **{EXPORTED_NAMES.get(name, name): annotation for name, annotation in ANNOTATIONS.items()},
)


class RecordSeen(_RecordFields):  # type: ignore[misc]  # the fields of Record, which mypy cannot follow
    """One inspection as it was recorded."""

    notes: list[str] = Field(description="As of the inspection's answer.")


class RecordsSeen(BaseModel):
    """Newest first. next: ``before`` of the page that follows, null where there is none."""

    records: list[RecordSeen]
    next: int | None


class Feedback(BaseModel):
    """What a person found of a recorded inspection; label null takes it back."""

    model_config = ConfigDict(extra="forbid")

    record: RecordNumber
    label: Label | None
    note: Annotated[str, Field(max_length=1000, pattern=r"^[^\x00]*$")] = ""


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


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """FastAPI's ``responses`` for these statuses, each with its sentence."""
    return {status: {"model": Problem, "description": _MEANINGS[status]} for status in statuses}


_MEANINGS = {
    400: "The request is malformed.",
    401: "A bearer token is missing, or not known.",
    403: "The token's role does not allow this, or the request came from another site.",
    404: "There is no such thing.",
    409: "It is not possible now.",
    413: "More bytes, pixels or images than the server takes.",
    415: "Not a type of body that the server reads.",
    422: "A value is outside of its range, or an image cannot be read.",
    503: "The server is full, stopping, or cannot write its records. Retry-After says when to try again.",
    504: "It was not done within the time limit.",
}
