"""The inspection server: models of a folder behind HTTP, every inspection recorded before it is answered.

    request ─ gate.py ─▶ *_routes.py ─▶ inspection.py: uploads.py ▶ batching.py ▶ recording.py ▶ findings.py ─▶ answer

``create_app`` is the application for any ASGI server; ``serve`` runs it with uvicorn, and stops it gracefully.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from sapatchcore import __version__
from sapatchcore.errors import RecordsError, SettingsError
from sapatchcore.server import inspect_routes, model_routes, page_routes, record_routes
from sapatchcore.server.middleware import Gate
from sapatchcore.server.options import ServerOptions
from sapatchcore.server.page_routes import Page, page_router
from sapatchcore.server.service import Service

log = logging.getLogger("sapatchcore.server")
_ABOUT = 'Visual inspection that learns from good images alone. Errors are {"error": "one sentence"}.'
_OTHERS_WORDS = {  # what the framework says by itself, as sentences
    "Not Found": "There is no such page or route.",
    "Method Not Allowed": "This method is not allowed here.",
    "There was an error parsing the body": "The body is not valid JSON.",
}
_IDLE = 15.0  # seconds that a connection may take to begin a request, or to take none of an answer
_CONNECTIONS = 512


def create_app(options: ServerOptions) -> FastAPI:
    """The application. Raises SAPatchCoreError where the models' folder, the records or the tokens cannot be used."""
    service = Service(options)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await service.stop()

    app = FastAPI(
        title="sapatchcore",
        version=__version__,
        description=_ABOUT,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.service = service
    for routes in (inspect_routes, record_routes, model_routes, page_routes):
        app.include_router(routes.router)
    app.include_router(page_router(Page()))
    app.add_middleware(
        Gate, options=options, tokens=service.tokens, queue=service.queue, answered=service.telemetry.answered
    )
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(RecordsError, _no_records)
    app.add_exception_handler(SettingsError, _settings)
    app.add_exception_handler(Exception, _failed)
    return app


async def _refused(_: Request, error: Any) -> JSONResponse:
    said = _OTHERS_WORDS.get(str(error.detail), str(error.detail))
    return JSONResponse({"error": said}, error.status_code, error.headers)


async def _invalid(_: Request, error: Any) -> JSONResponse:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"][1:] if isinstance(part, str | int)) or "The body"
    return JSONResponse({"error": f"{place}: {first['msg']}."}, 422)


async def _no_records(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": str(error)}, 503, {"Retry-After": "5"})


async def _settings(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": str(error)}, 422)


async def _failed(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse(
        {"error": f"The server failed on this request ({type(error).__name__}). Its log says more."}, 500
    )


class Server(uvicorn.Server):
    """uvicorn that refuses new requests while it finishes the accepted ones, and cuts connections that stand still."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._still: dict[Any, tuple[object, float]] = {}

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """The first signal: stop when all accepted requests are answered. A second one: at once."""
        if self._service.stopping:
            self.should_exit = self.force_exit = True
            return
        log.info("Stopping: %d images are being finished.", self._service.queue.images)
        self._service.stopping = True

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        if self._service.stopping and not self._service.queue.images:
            self.should_exit = True
        if counter % 10 == 0:
            try:
                self._cut_idle()
            except Exception:  # uvicorn's insides may change; inspections go on
                log.exception("Idle connections could not be looked at.")
        return await super().on_tick(counter)

    def _cut_idle(self) -> None:
        """uvicorn waits for ever for the rest of a request's head, and for a client that does not read its answer."""
        now = time.monotonic()
        still: dict[Any, tuple[object, float]] = {}
        connections: list[Any] = list(self.server_state.connections)
        for connection in connections:
            cycle, transport = connection.cycle, connection.transport
            waiting = transport.get_write_buffer_size()  # of an answer that the client does not take
            if cycle is not None and not cycle.response_complete and not waiting:
                continue  # a request is being worked on: it has its own time limits
            state = (cycle, waiting)
            before, since = self._still.get(connection, (None, now))
            if before != state:
                since = now
            if now - since > _IDLE:
                transport.abort()
                continue
            still[connection] = (state, since)
        self._still = still


def serve(options: ServerOptions) -> None:
    """Run the server until SIGTERM or SIGINT; returns when everything accepted is answered and committed.

    Raises SAPatchCoreError where it cannot start.
    """
    warnings.filterwarnings("ignore", module=r"PIL\..*")  # of damaged images, which are refused in words
    app = create_app(options)
    config = uvicorn.Config(
        app,
        host=options.host,
        port=options.port,
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        http="h11",  # whose connections Server looks at
        ws="none",
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=int(options.timeout) + 5,
    )
    server = Server(config, app.state.service)
    try:
        server.run()
    except SystemExit:
        raise SettingsError(
            f"The server cannot listen on {options.host}:{options.port}. Another program may; choose another `port`."
        ) from None
