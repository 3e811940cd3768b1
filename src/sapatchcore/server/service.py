"""All that the server holds while it runs, started and stopped in order; and what hands it, and the caller, to the routes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

from fastapi import Depends, Path, Request

from sapatchcore.errors import SAPatchCoreError
from sapatchcore.records.record import Record
from sapatchcore.records.records import Records
from sapatchcore.score.threshold import possible_rate
from sapatchcore.server.batching import Inference, Recorder
from sapatchcore.server.middleware import Refused, RequestQueue
from sapatchcore.server.models import ModelFolder
from sapatchcore.server.monitoring import DriftWatch, Telemetry
from sapatchcore.server.options import ServerOptions
from sapatchcore.server.served import Served
from sapatchcore.server.tokens import Caller, Role, Tokens
from sapatchcore.server.updates import UpdateJobs
from sapatchcore.server.uploads import MemoryBudget

log = logging.getLogger("sapatchcore.server")
_DECODED = 256_000_000  # bytes of decoded images that wait for the inference thread
_THREADS = 2  # that decode, and as many that draw answers: the network wants the processor
_PRUNE_EVERY = 600.0  # seconds


class Service:
    """The running server's parts."""

    def __init__(self, options: ServerOptions) -> None:
        """Raises SAPatchCoreError where the folder, the records or the tokens cannot be used."""
        self.options = options
        self.tokens = None if options.tokens is None else Tokens(options.tokens)
        self.telemetry = Telemetry()
        self.folder = ModelFolder(options.models, options.load, self._models_changed)
        self.records = Records(options.records)
        self.drift = DriftWatch(self.records, self.rate_for)
        self.inference = Inference(self.telemetry.scored)
        self.recorder = Recorder(self.records, self._recorded)
        self.updates = UpdateJobs(self.folder, self.records, self.rate_for, options.load)
        self.queue = RequestQueue(options.queue, 4 * options.max_bytes)
        self.decoded = MemoryBudget(_DECODED)
        self.decoding = ThreadPoolExecutor(_THREADS, thread_name_prefix="decode")
        self.drawing = ThreadPoolExecutor(_THREADS, thread_name_prefix="draw")
        self.stopping = False
        self._ended = threading.Event()
        self._pruner = threading.Thread(target=self._prune, name="prune", daemon=True)
        watch = self.telemetry.watch
        watch("queue_images", "Images accepted and not answered yet.", lambda: self.queue.images)
        watch("queue_bytes", "Bytes of these.", lambda: self.queue.bytes)
        watch("models_loaded", "Models in service.", lambda: len(self.served()))
        watch("models_failed", "Model files that could not be loaded.", lambda: len(self.failed()))
        watch("records_bytes", "Size of the records, images included.", self._records_size)

    def start(self) -> None:
        """Start all threads; models load meanwhile."""
        self.inference.start()
        self.recorder.start()
        self.drift.start()
        self.folder.start()
        self._pruner.start()

    async def stop(self) -> None:
        """Finish and commit what was accepted, then end all threads."""
        self.stopping = True
        while self.queue.images:
            await asyncio.sleep(0.02)
        await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        self._ended.set()
        self.folder.stop()
        self.inference.stop()
        self.recorder.stop()
        self.drift.stop()
        self.updates.stop()
        self.decoding.shutdown()
        self.drawing.shutdown()
        self._pruner.join()
        self.records.close()

    def served(self) -> list[Served]:
        """The models in service."""
        return [entry.served for entry in self.folder.entries() if entry.served is not None]

    def failed(self) -> list[str]:
        """Names of the model files that could not be loaded as they are now."""
        return [entry.name for entry in self.folder.entries() if entry.error is not None]

    def model(self, name: str) -> Served:
        """The model in service under this name. Raises Refused: 404 for an unknown one, 409 for one that failed to load."""
        entry = self.folder.find(name)
        if entry is None:
            if not self.folder.looked:
                raise Refused(503, "The models are still being loaded.", retry_after=2)
            raise Refused(404, f"There is no model {name!r}. GET /v1/models lists them.")
        if entry.served is None:
            raise Refused(409, f"The model {name!r} could not be loaded: {entry.error}")
        return entry.served

    def rate_for(self, model: Served, asked: float | None = None) -> float | None:
        """The promised rate of a model's verdicts: what was asked for, else the server's, or the smallest possible.

        None for a model without calibration. Raises Refused (422) for a rate that cannot be promised.
        """
        count, least = model.calibration_images, model.smallest_false_reject
        if least is None:
            return None
        if asked is None:
            return possible_rate(count) if self.options.false_reject is None else max(self.options.false_reject, least)
        if asked < least * (1 - 1e-9):
            raise Refused(
                422,
                f"false_reject must be at least {least:.4g} for {model.name}, whose {count} calibration images can promise no "
                f"smaller rate. Got {asked:g}.",
            )
        return asked

    def _models_changed(self) -> None:
        with contextlib.suppress(SAPatchCoreError):  # the records are away: the streams begin without their past
            self.drift.follow(self.served())

    def _recorded(self, records: Sequence[Record], seconds: float) -> None:
        self.telemetry.recorded(records, seconds)
        self.drift.add(records)

    def _records_size(self) -> float:
        try:
            return float(self.records.size())
        except SAPatchCoreError:
            return float("nan")

    def _prune(self) -> None:
        age, size = self.options.retention_age, self.options.retention_size
        if age is None and size is None:
            return
        while True:
            try:
                gone = self.records.prune(older_than=age, max_bytes=size)
                if gone.records or gone.images:
                    log.info("Gave up %d records and %d images by age and size.", gone.records, gone.images)
            except SAPatchCoreError as error:
                log.error("The records could not be pruned: %s", error)
            if self._ended.wait(_PRUNE_EVERY):
                return


ModelName = Annotated[
    str, Path(pattern=r"^[A-Za-z0-9._-]{1,128}$", description="A model's name, as GET /v1/models lists it.")
]


async def service_of(request: Request) -> Service:
    """The running service. A coroutine, as all dependencies here: FastAPI needs no thread for it."""
    found: Service = request.app.state.service
    return found


class RoleNeeded:
    """A dependency: the caller, who must hold ``role``. Raises Refused (403)."""

    def __init__(self, role: Role) -> None:
        self.role = role

    async def __call__(self, request: Request) -> Caller:
        """The caller that the middleware found."""
        caller: Caller = request.state.caller
        if not caller.may(self.role):
            raise Refused(403, f"This needs a token of the role {self.role}. {caller.name} has {caller.role}.")
        return caller


TheService = Annotated[Service, Depends(service_of)]
Inspector = Annotated[Caller, Depends(RoleNeeded("inspect"))]
Operator = Annotated[Caller, Depends(RoleNeeded("feedback"))]
Admin = Annotated[Caller, Depends(RoleNeeded("admin"))]
