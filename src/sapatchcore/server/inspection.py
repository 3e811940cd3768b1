"""One request's way through the server: look, decode, score, record; regions, maps and explanation; answer."""

from __future__ import annotations

import asyncio
import base64
import io
import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from sapatchcore.data.pixels import Size, appearance, rgb_from_bytes
from sapatchcore.errors import DataError, SAPatchCoreError
from sapatchcore.records.record import ReceivedImage, Record, image_hash, records_of
from sapatchcore.result import Result
from sapatchcore.score.calibration import NO_CALIBRATION
from sapatchcore.score.fusion import tail
from sapatchcore.score.regions import Box, is_whole, window
from sapatchcore.score.verdict import Verdict
from sapatchcore.server.batching import ScoredImage, WaitingImage
from sapatchcore.server.middleware import Refused
from sapatchcore.server.schemas import (
    CauseSeen,
    ExplanationSeen,
    FoundRegion,
    GoodPatchSeen,
    Inspected,
    Inspection,
    MapPictures,
)
from sapatchcore.server.served import Served, in_own_thread
from sapatchcore.server.service import Service
from sapatchcore.server.uploads import ImageHeader, Upload, look
from sapatchcore.show.drawing import BORDER, colours, ramp

log = logging.getLogger("sapatchcore.server")
Float32 = npt.NDArray[np.float32]
MapKind = Literal["none", "grey", "colour"]
MOST_MAP_PIXELS = 4_000_000  # of an answered map: it is smooth, so a smaller one shows the same
MOST_CAUSES = 3
_STEPS = 1024  # of the colours' table
_COMPRESSION = 1  # of the PNGs, of 9: five times as fast, a tenth larger


@dataclass(frozen=True)
class InspectionRequest:
    """What a request wants beside the verdict. rate: the promised one, None without calibration. keep: the image, where the
    server keeps any."""

    rate: float | None
    maps: MapKind
    explain: bool
    keep: bool


async def inspect(service: Service, model: Served, uploads: Sequence[Upload], ask: InspectionRequest) -> Inspection:
    """All images of a request, scored and recorded together. Raises Refused."""
    loop = asyncio.get_running_loop()
    headers = await loop.run_in_executor(service.decoding, _look, uploads, service.options.max_pixels)
    explain = ask.explain and model.can_learn
    async with service.decoded.room(sum(model.cost(header.width, header.height) for header in headers)):
        reading = [
            loop.run_in_executor(service.decoding, _read, service, model, upload, header, index, explain)
            for index, (upload, header) in enumerate(zip(uploads, headers, strict=True))
        ]
        read = await _all(reading)
        arrived, waiting = [one[0] for one in read], [one[1] for one in read]
        scored = await _scored(service, waiting)
    alone = [image.result for image in scored]
    verdicts = [None if ask.rate is None else result.verdicts(ask.rate)[0] for result in alone]
    keep = service.options.keep_images
    news = [
        record
        for result, verdict, image in zip(alone, verdicts, arrived, strict=True)
        for record in records_of(
            result,
            None if verdict is None else [verdict],
            [image],
            model=model.name,
            model_hash=model.hash,
            false_reject=ask.rate,
            keep="all" if ask.keep and keep != "none" else keep,
            source="api",
        )
    ]
    drawing = [
        loop.run_in_executor(service.drawing, pictures_of, image, ask.rate, ask.maps, explain) for image in scored
    ]
    records, *pictures = await _all([_recorded(service.recorder.add(news)), *drawing])
    results = [_inspected(*row) for row in zip(records, alone, verdicts, pictures, strict=True)]
    return Inspection(
        model=model.name,
        model_hash=model.hash,
        false_reject=ask.rate,
        threshold=results[0].threshold,
        note=None if ask.rate is not None else NO_CALIBRATION,
        results=results,
    )


async def _scored(service: Service, images: Sequence[WaitingImage]) -> list[ScoredImage]:
    service.inference.submit(images)
    try:
        return await _all([asyncio.wrap_future(image.done) for image in images])
    except DataError as error:
        raise Refused(422, str(error)) from None
    except Exception as error:
        log.exception("The model %s failed on an image.", images[0].model.name)
        raise Refused(503, f"The model failed on an image ({type(error).__name__}).", retry_after=5) from None


async def _recorded(done: Future[list[Record]]) -> list[Record]:
    try:
        return await asyncio.wrap_future(done)
    except SAPatchCoreError as error:
        raise Refused(
            503, f"The inspection could not be recorded, so it is not answered. {error}", retry_after=5
        ) from None


async def _all(waiting: Sequence[Any]) -> list[Any]:
    """All results; all are waited for before the first error is raised, so that none is left behind."""
    found = await asyncio.gather(*waiting, return_exceptions=True)
    for one in found:
        if isinstance(one, BaseException):
            raise one
    return found


def _look(uploads: Sequence[Upload], most_pixels: int) -> list[ImageHeader]:
    return [look(upload, index, most_pixels) for index, upload in enumerate(uploads)]


def _read(
    service: Service, model: Served, upload: Upload, header: ImageHeader, index: int, explain: bool
) -> tuple[ReceivedImage, WaitingImage]:
    """An image decoded, and prepared for the network."""
    start, name = time.perf_counter(), upload.called(index)
    try:
        image = rgb_from_bytes(upload.content, name)
        pixels = model.prepare(image)
    except DataError as error:
        raise Refused(422, str(error)) from None
    except MemoryError:
        raise Refused(503, f"There is not enough memory to decode {name} now.", retry_after=5) from None
    arrived = ReceivedImage(upload.file_name, upload.content, image_hash(upload.content), header.media_type, pixels)
    service.telemetry.decode.observe(time.perf_counter() - start)
    return arrived, WaitingImage(model, name, (image.shape[0], image.shape[1]), appearance(image), pixels, explain)


def _inspected(record: Record, result: Result, verdict: Verdict | None, pictures: Pictures) -> Inspected:
    seen = _seen(result)
    return Inspected.model_validate(
        {
            **vars(record),
            "record": record.number,
            "reason": None if verdict is None else verdict.sentence,
            "local_ratio": None if verdict is None else verdict.local_ratio,
            "context_ratio": None if verdict is None else verdict.context_ratio,
            "global_ratio": None if verdict is None else verdict.global_ratio,
            "notes": list(result.notes[0]),
            "inspected": None if seen is None else list(seen),
            "regions": pictures.regions,
            "maps": pictures.maps,
            "explanation": pictures.explanation,
        }
    )


def _seen(result: Result) -> Box | None:
    """What the network saw of the one image of ``result``; None where that is all of it."""
    if is_whole(result.resize, result.crop):
        return None
    rows, columns = window(result.sizes[0], result.resize, result.crop)
    return rows.start, columns.start, rows.stop - rows.start, columns.stop - columns.start


@dataclass(frozen=True)
class Pictures:
    """What an answer shows beside its numbers."""

    regions: list[FoundRegion]
    maps: MapPictures | None
    explanation: ExplanationSeen | None


def pictures_of(image: ScoredImage, rate: float | None, kind: MapKind, explain: bool) -> Pictures:
    """Regions, and what was asked for. explain: only where the waiting image said so, and the model can."""
    result = image.result
    limit = None if rate is None else result.pixel_threshold(rate)
    regions = [] if rate is None else result.regions(0, rate)
    return Pictures(
        [FoundRegion(box=list(one.box), area=one.area, peak=one.peak) for one in regions],
        None if kind == "none" else _maps(result, kind, limit),
        _explained(image, rate) if explain and rate is not None else None,
    )


def _maps(result: Result, kind: MapKind, limit: float | None) -> MapPictures:
    result = replace(result, sizes=(_map_size(result.sizes[0]),))
    whole = result.maps[0]
    largest = float(whole.max())
    scale = max(largest, 1.25 * limit if limit is not None and kind == "colour" else 0.0) or 1.0
    full = limit if limit else scale / 2
    typical = 0.0 if result.calibration is None else min(result.calibration.typical, 0.9 * full)
    pictures: dict[str, Any] = {}
    for name, values in (("whole", whole), ("local", result.local_maps[0]), ("context", result.context_maps[0])):
        picture = _grey(values, scale) if kind == "grey" else _shaded(_colour(values, scale, typical, full), result)
        pictures[name] = _png(picture)
    shares = None if result.global_maps is None else np.maximum(result.global_maps[0], 0)
    if shares is None:
        return MapPictures(**pictures, global_part=None, scale=scale, global_scale=None)
    top = _global_scale(result, shares)
    picture = _grey(shares, top) if kind == "grey" else _shaded(_colour(shares, top, -top / 3, top / 3), result)
    return MapPictures(**pictures, global_part=_png(picture), scale=scale, global_scale=top)


def _global_scale(result: Result, shares: Float32) -> float:
    """The largest share; of an image whose score² is smaller than that of the worst tenth of good ones, so many times more, or
    each good image would have places as bright as a defect's."""
    largest = float(shares.max()) or 1.0
    good = None if result.calibration is None else result.calibration.global_scores
    if good is None or result.global_scores is None:
        return largest
    return largest * max(1.0, tail(good)[0] / max(float(result.global_scores[0]), 1e-6)) ** 2


def _map_size(size: Size) -> Size:
    shrink = (MOST_MAP_PIXELS / (size[0] * size[1])) ** 0.5
    return size if shrink >= 1 else (max(1, int(size[0] * shrink)), max(1, int(size[1] * shrink)))


def _grey(values: Float32, scale: float) -> Image.Image:
    return Image.fromarray((values * (65535 / scale) + 0.5).astype(np.uint16))  # no value is negative, or beyond scale


def _colour(values: Float32, scale: float, typical: float, full: float) -> Image.Image:
    """As opaque as in the report's overlays."""
    steps = np.linspace(0, scale, _STEPS, dtype=np.float32)
    opacity = ramp(steps, typical, full)
    table = np.concatenate((colours(steps, (0.0, scale)), 255 * opacity[:, None]), axis=1)
    table[opacity == 0] = 0  # what nobody sees need not be stored
    rows = (values * ((_STEPS - 1) / scale) + 0.5).astype(np.uint16)
    return Image.fromarray(np.rint(table).astype(np.uint8)[rows], "RGBA")


def _shaded(picture: Image.Image, result: Result) -> Image.Image:
    """With a dark veil over what was not inspected, as in the report's overlays."""
    seen = _seen(result)
    if seen is None:
        return picture
    top, left, height, width = seen
    veiled = Image.new("RGBA", picture.size, (0, 0, 0, round(255 * (1 - BORDER))))
    veiled.paste(picture.crop((left, top, left + width, top + height)), (left, top))
    return veiled


def _png(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=_COMPRESSION)
    return base64.b64encode(file.getvalue()).decode("ascii")


def _explained(image: ScoredImage, rate: float) -> ExplanationSeen:
    assert image.explain is not None  # it was asked for
    found = in_own_thread("explain", partial(image.explain, image.index, false_reject=rate, most=MOST_CAUSES)).result()
    causes = []
    for cause in found.causes:
        good = cause.good
        seen = GoodPatchSeen(
            image=good.image,
            box=list(good.box),
            thumbnail=base64.b64encode(good.thumbnail).decode("ascii") or None,
            thumbnail_box=list(good.thumbnail_box),
            turned=good.turned or None,
        )
        causes.append(
            CauseSeen(
                box=list(cause.region.box) if cause.region is not None else None,
                score=cause.score,
                local=cause.local,
                context=cause.context,
                good=seen,
                drawn_from=cause.drawn_from.tolist(),
                network=cause.network or None,
            )
        )
    return ExplanationSeen(causes=causes)
