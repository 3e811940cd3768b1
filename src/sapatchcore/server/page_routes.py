"""The routes for people and for the machines that watch the server: the page, its files, health and figures.

Every file that can be had is read when the server starts: a request picks one of these by name, and opens nothing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Annotated

from fastapi import APIRouter, Header
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from sapatchcore.errors import SAPatchCoreError
from sapatchcore.server.refusals import Refused
from sapatchcore.server.routes import TheService
from sapatchcore.server.schemas import refusals
from sapatchcore.server.telemetry import CONTENT_TYPE

router = APIRouter(tags=["health"])
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".woff2": "font/woff2",
}
_FOLDER = "page"


@dataclass(frozen=True)
class _File:
    content: bytes
    media_type: str
    tag: str


def _files() -> dict[str, _File]:
    """Every file of the page's folder by its path below it, with "/"."""
    found: dict[str, _File] = {}

    def gather(folder: Traversable, below: str) -> None:
        for one in sorted(folder.iterdir(), key=lambda entry: entry.name):
            if one.is_dir():
                gather(one, f"{below}{one.name}/")
                continue
            content = one.read_bytes()
            kind = next((kind for end, kind in _TYPES.items() if one.name.endswith(end)), "text/plain; charset=utf-8")
            found[below + one.name] = _File(content, kind, f'"{hashlib.sha256(content).hexdigest()[:32]}"')

    gather(files("sapatchcore.server") / _FOLDER, "")
    return found


class Page:
    """The page's files, in memory."""

    def __init__(self) -> None:
        self._files = _files()

    def answer(self, name: str, known: str | None) -> Response:
        """One file. known: the tag that the browser has; then only the word that nothing changed. Raises Refused (404)."""
        file = self._files.get(name)
        if file is None:
            raise Refused(404, "There is no such page.")
        headers = {"ETag": file.tag, "Cache-Control": "no-cache"}
        if known == file.tag:
            return Response(status_code=304, headers=headers)
        return Response(file.content, media_type=file.media_type, headers=headers)


Known = Annotated[str | None, Header(alias="If-None-Match")]


def page_router(page: Page) -> APIRouter:
    """The page at /, the API's description for people at /docs, and their files below /page/."""
    pages = APIRouter(include_in_schema=False)

    @pages.get("/")
    async def index(known: Known = None) -> Response:
        return page.answer("index.html", known)

    @pages.get("/docs")
    async def docs(known: Known = None) -> Response:
        return page.answer("docs.html", known)

    @pages.get("/page/{name:path}")
    async def page_file(name: str, known: Known = None) -> Response:
        return page.answer(name, known)

    return pages


@router.get("/healthz", operation_id="health", summary="Whether the server lives")
async def health() -> JSONResponse:
    """Always the same answer."""
    return JSONResponse({"status": "alive"})


@router.get("/readyz", operation_id="ready", summary="Whether it takes inspections", responses=refusals(503))
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


@router.get(
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
