"""The inspection server: models of a folder behind HTTP, every inspection recorded before it is answered.

    request ─ middleware.py ─▶ routes.py ─▶ inspection.py: uploads.py ▶ batching.py ▶ records ─▶ answer

``create_app`` is the application for any ASGI server; ``serve`` runs it with uvicorn, and stops it gracefully.
"""

from __future__ import annotations

import asyncio
import logging
import time
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from sapatchcore import __version__
from sapatchcore.errors import RecordsError, SettingsError
from sapatchcore.server import record_routes, routes
from sapatchcore.server.middleware import RequestMiddleware
from sapatchcore.server.options import ServerOptions
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
    for router in (routes.inspecting, record_routes.router, routes.models, routes.health, routes.page):
        app.include_router(router)
    app.add_middleware(
        RequestMiddleware,
        options=options,
        tokens=service.tokens,
        queue=service.queue,
        answered=service.telemetry.answered,
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
    name = ".".join(str(part) for part in first["loc"][1:] if isinstance(part, str | int)) or "The body"
    return JSONResponse({"error": f"{name}: {first['msg']}."}, 422)


async def _no_records(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": str(error)}, 503, {"Retry-After": "5"})


async def _settings(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": str(error)}, 422)


async def _failed(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse(
        {"error": f"The server failed on this request ({type(error).__name__}). Its log says more."}, 500
    )


@dataclass(eq=False)
class _Connection:
    """since: when it last began or ended a request, or took a part of its answer. waiting: bytes that it has not taken."""

    transport: asyncio.Transport
    since: float
    in_request: bool = False
    waiting: int = 0


class Connections:
    """Cuts connections that stand still: uvicorn waits for ever for the rest of a request's head, and for a client that does not
    read its answer.

    It is told of connections by asyncio's own callbacks (``protocol``, for uvicorn's option ``http``), and of requests by ASGI
    (``around``); the client's address says which belong together.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._open: dict[tuple[str, int], _Connection] = {}

    def protocol(self) -> type[asyncio.Protocol]:
        """HTTP/1.1, whose connections are known here."""
        connections = self._open

        class Watched(H11Protocol):
            def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
                self.address = (transport.get_extra_info("peername") or ("", 0))[:2]
                connections[self.address] = _Connection(transport, time.monotonic())
                super().connection_made(transport)

            def connection_lost(self, exc: Exception | None) -> None:
                connections.pop(self.address, None)
                super().connection_lost(exc)

        return Watched

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application, for uvicorn."""
        connection = self._open.get(tuple(scope.get("client") or ("", 0)))
        if connection is None:
            await self._app(scope, receive, send)
            return
        connection.in_request = True
        try:
            await self._app(scope, receive, send)
        finally:
            connection.in_request, connection.since = False, time.monotonic()

    def cut(self) -> None:
        """Those that stood still for too long."""
        now = time.monotonic()
        for connection in list(self._open.values()):
            waiting = connection.transport.get_write_buffer_size()
            if (connection.in_request and not waiting) or waiting != connection.waiting:
                connection.waiting, connection.since = waiting, now  # a request that is worked on has its own limits
            elif now - connection.since > _IDLE:
                connection.transport.abort()


class Server(uvicorn.Server):
    """uvicorn that refuses new requests while it finishes the accepted ones, and cuts connections that stand still."""

    def __init__(self, config: uvicorn.Config, service: Service, connections: Connections) -> None:
        super().__init__(config)
        self.service, self._connections = service, connections

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """The first signal: stop when all accepted requests are answered. A second one: at once."""
        if self.service.stopping:
            self.should_exit = self.force_exit = True
            return
        log.info("Stopping: %d images are being finished.", self.service.queue.images)
        self.service.stopping = True

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        if self.service.stopping and not self.service.queue.images:
            self.should_exit = True
        if counter % 10 == 0:
            self._connections.cut()
        return await super().on_tick(counter)


def server_of(options: ServerOptions) -> Server:
    """uvicorn with the application, ready to run. Raises SAPatchCoreError as ``create_app``."""
    app = create_app(options)
    connections = Connections(app)
    config = uvicorn.Config(
        connections,
        host=options.host,
        port=options.port,
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        http=connections.protocol(),
        ws="none",
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=int(options.timeout) + 5,
    )
    return Server(config, app.state.service, connections)


def serve(options: ServerOptions) -> None:
    """Run the server until SIGTERM or SIGINT; returns when everything accepted is answered and committed.

    Raises SAPatchCoreError where it cannot start.
    """
    warnings.filterwarnings("ignore", module=r"PIL\..*")  # of damaged images, which are refused in words
    server = server_of(options)
    try:
        server.run()
    except SystemExit:
        raise SettingsError(
            f"The server cannot listen on {options.host}:{options.port}. Another program may; choose another `port`."
        ) from None
