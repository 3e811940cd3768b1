"""One request's way through the server: look, decode, score, record, answer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from sapatchcore.data.pixels import rgb_from_bytes
from sapatchcore.errors import DataError, SAPatchCoreError
from sapatchcore.records.record import ReceivedImage, Record, image_hash, records_of
from sapatchcore.score.calibration import NO_CALIBRATION
from sapatchcore.score.verdict import Verdict
from sapatchcore.server.batching import Job, Place
from sapatchcore.server.findings import MapKind, Pictures, pictures_of
from sapatchcore.server.refusals import Refused
from sapatchcore.server.schemas import Inspected, Inspection
from sapatchcore.server.served import Served
from sapatchcore.server.service import Service
from sapatchcore.server.uploads import Header, Upload, look

log = logging.getLogger("sapatchcore.server")


@dataclass(frozen=True)
class Ask:
    """What a request wants beside the verdict. rate: the promised one, None without calibration. keep: the image, where the
    server keeps any."""

    rate: float | None
    maps: MapKind
    explain: bool
    keep: bool


async def inspect(service: Service, model: Served, uploads: Sequence[Upload], ask: Ask) -> Inspection:
    """All images of a request, scored and recorded together. Raises Refused."""
    loop = asyncio.get_running_loop()
    headers = await loop.run_in_executor(service.decoding, _look, uploads, service.options.max_pixels)
    explain = ask.explain and model.can_explain
    async with service.decoded.room(sum(model.cost(header.width, header.height) for header in headers)):
        reading = [
            loop.run_in_executor(service.decoding, _read, service, model, upload, header, place, explain)
            for place, (upload, header) in enumerate(zip(uploads, headers, strict=True))
        ]
        read = await _all(reading)
        images, jobs = [one[0] for one in read], [one[1] for one in read]
        places = await _scored(service, jobs)
    alone = [place.result for place in places]
    verdicts = [None if ask.rate is None else result.verdicts(ask.rate)[0] for result in alone]
    keep = service.options.keep_images
    news = [
        record
        for result, verdict, image in zip(alone, verdicts, images, strict=True)
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
        loop.run_in_executor(service.drawing, pictures_of, place, ask.rate, ask.maps, explain) for place in places
    ]
    records, *pictures = await _all([_recorded(service.recorder.add(news)), *drawing])
    results = [_inspected(*row) for row in zip(records, verdicts, pictures, strict=True)]
    return Inspection(
        model=model.name,
        model_hash=model.hash,
        false_reject=ask.rate,
        threshold=results[0].threshold,
        note=None if ask.rate is not None else NO_CALIBRATION,
        results=results,
    )


async def _scored(service: Service, jobs: Sequence[Job]) -> list[Place]:
    service.scorer.submit(jobs)
    try:
        return await _all([asyncio.wrap_future(job.done) for job in jobs])
    except DataError as error:
        raise Refused(422, str(error)) from None
    except Exception as error:
        log.exception("The model %s failed on an image.", jobs[0].model.name)
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


def _look(uploads: Sequence[Upload], most_pixels: int) -> list[Header]:
    return [look(upload, place, most_pixels) for place, upload in enumerate(uploads)]


def _read(
    service: Service, model: Served, upload: Upload, header: Header, place: int, explain: bool
) -> tuple[ReceivedImage, Job]:
    """An image decoded, and prepared for the network."""
    start, name = time.perf_counter(), upload.called(place)
    try:
        image = rgb_from_bytes(upload.content, name)
        pixels = model.prepare(image)
    except DataError as error:
        raise Refused(422, str(error)) from None
    except MemoryError:
        raise Refused(503, f"There is not enough memory to decode {name} now.", retry_after=5) from None
    arrived = ReceivedImage(upload.file_name, upload.content, image_hash(upload.content), header.media_type, pixels)
    service.telemetry.decode.observe(time.perf_counter() - start)
    return arrived, Job(model, name, (image.shape[0], image.shape[1]), pixels, explain)


def _inspected(record: Record, verdict: Verdict | None, pictures: Pictures) -> Inspected:
    return Inspected.model_validate(
        {
            **vars(record),
            "record": record.number,
            "reason": None if verdict is None else verdict.sentence,
            "local_ratio": None if verdict is None else verdict.local_ratio,
            "context_ratio": None if verdict is None else verdict.context_ratio,
            "regions": pictures.regions,
            "maps": pictures.maps,
            "explanation": pictures.explanation,
        }
    )
