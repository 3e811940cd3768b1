"""What every request passes before its route: who asks, from which page, how much it may send, and whether there is room.

Nothing of a body is read for a caller without a valid token. Without tokens, the server listens on this machine alone, and two
kinds of foreign pages are kept out: one whose name was made to point here (by the Host header), and one that posts from a
browser on this machine (by Origin and Sec-Fetch-Site).
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections import deque
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sapatchcore.server.options import ServerOptions, is_loopback
from sapatchcore.server.tokens import LOCAL, Caller, Tokens

SMALL_BODY = 65_536  # bytes, of every body that holds no images
_INSPECT = re.compile(r"/v1/models/[^/]+/inspect")
_SAFE = {"GET", "HEAD", "OPTIONS"}
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "media-src 'self' blob:; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_API_POLICY = "default-src 'none'; frame-ancestors 'none'"
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(self), microphone=(), geolocation=()"),
]


class Refused(HTTPException):
    """Ends a request with ``status`` and {"error": ``sentence``}. retry_after: seconds, for the header of that name."""

    def __init__(
        self, status: int, sentence: str, *, retry_after: int | None = None, headers: dict[str, str] | None = None
    ) -> None:
        more = {} if retry_after is None else {"Retry-After": str(retry_after)}
        super().__init__(status, sentence, {**(headers or {}), **more})


class Ticket:
    """What one request takes up of the queue, until it is answered: so many images and bytes."""

    def __init__(self, queue: RequestQueue) -> None:
        self._queue = queue
        self.images = self.bytes = 0

    def grow(self, images: int, size: int) -> None:
        """Take up so much more. Raises Refused (503) where the queue is full."""
        self._queue.take(images, size)
        self.images += images
        self.bytes += size

    def __enter__(self) -> Ticket:
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.give_back(self.images, self.bytes)
        self.images = self.bytes = 0


class RequestQueue:
    """What the server has accepted and not answered yet, bounded in images and bytes. For the event loop's thread alone."""

    _WINDOW = 20.0  # seconds over which the rate is measured

    def __init__(self, images: int, size: int) -> None:
        self.most_images, self.most_bytes = images, size
        self.images = self.bytes = 0
        self._done: deque[tuple[float, int]] = deque()  # when, how many images: of the last seconds
        self._images_done = 0

    def ticket(self, size: int) -> Ticket:
        """For a request of one image or more; size: the bytes that it declares."""
        ticket = Ticket(self)
        ticket.grow(1, size)
        return ticket

    def check(self, images: int, size: int) -> None:
        """Raises Refused (503, with Retry-After) where there is no room for so much more."""
        if self.images + images > self.most_images or self.bytes + size > self.most_bytes:
            raise Refused(503, "The queue is full. Try again later.", retry_after=self.retry_after())

    def take(self, images: int, size: int) -> None:
        """Raises as ``check``."""
        self.check(images, size)
        self.images += images
        self.bytes += size

    def give_back(self, images: int, size: int) -> None:
        """A request is answered."""
        self.images -= images
        self.bytes -= size
        self._done.append((time.monotonic(), images))
        self._images_done += images
        self._drop_old()

    def retry_after(self) -> int:
        """Seconds until what waits now is done, at the rate of the last seconds; 1 to 60."""
        self._drop_old()
        span = time.monotonic() - self._done[0][0] if self._done else 0.0
        if self._images_done < 2 or span <= 0:
            return 1
        return min(60, max(1, math.ceil(self.images * span / self._images_done)))

    def _drop_old(self) -> None:
        since = time.monotonic() - self._WINDOW
        while self._done and self._done[0][0] < since:
            self._images_done -= self._done.popleft()[1]


class RequestMiddleware:
    """ASGI middleware around the whole application."""

    def __init__(
        self,
        app: ASGIApp,
        options: ServerOptions,
        tokens: Tokens | None,
        queue: RequestQueue,
        answered: Callable[[str, int, float], None],
    ) -> None:
        """answered: told of every answer, its route's template, status and seconds."""
        self._app, self._options, self._tokens, self._queue, self._answered = app, options, tokens, queue, answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *_more_headers(scope["path"])]
            await send(message)

        try:
            most = self._admit(scope)
        except Refused as refused:
            answer = JSONResponse({"error": refused.detail}, refused.status_code, refused.headers)
            await answer(scope, receive, sending)
        else:
            await self._app(scope, _limited(receive, most, self._options.timeout), sending)
        finally:
            refused_early = "/v1/models/{name}/inspect" if _INSPECT.fullmatch(scope["path"]) else "other"
            route = getattr(scope.get("route"), "path", refused_early)
            self._answered(route, status, time.perf_counter() - start)

    def _admit(self, scope: Scope) -> int:
        """Bytes that the request may send. Raises Refused."""
        headers, path, method = Headers(scope=scope), scope["path"], scope["method"]
        private = path.startswith("/v1/")
        if self._tokens is None:
            _check_host(headers)
            _check_page(headers, private or method not in _SAFE)
        if private:
            scope.setdefault("state", {})["caller"] = self._caller(headers)
        inspects = _INSPECT.fullmatch(path) is not None
        most = self._options.max_bytes if inspects else SMALL_BODY
        length = headers.get("content-length", "")
        declared = int(length[:19]) if length.isascii() and length.isdigit() else 0
        if declared > most:
            raise _too_long(most)
        if inspects and method == "POST":  # where it would be refused anyway: here that costs least
            self._queue.check(1, declared)
        return most

    def _caller(self, headers: Headers) -> Caller:
        if self._tokens is None:
            return LOCAL
        found = self._tokens.caller(headers.get("authorization", ""))
        if found is None:
            raise Refused(
                401,
                "A known token is needed: send the header Authorization: Bearer TOKEN.",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return found


def _check_host(headers: Headers) -> None:
    # Not starlette's TrustedHostMiddleware: it knows names and *.names, not the network 127.0.0.0/8 or two Host headers, and
    # refuses in plain text with 400.
    host = headers.getlist("host")
    name = re.sub(r":\d*$", "", host[0]) if len(host) == 1 else ""
    if not is_loopback(name):
        raise Refused(
            403,
            "Without tokens this server answers to localhost alone. Open it as http://127.0.0.1, or give it tokens.",
        )


def _check_page(headers: Headers, private: bool) -> None:
    origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
    own = origin is None or origin.partition("://")[2] == headers.get("host")
    if private and not (own and site in ("none", "same-origin")):
        raise Refused(403, "A page from another place may not use this server.")


def _limited(receive: Receive, most: int, seconds: float) -> Receive:
    """``receive`` that ends a body that is too long, or too slow, with Refused."""
    arrived, complete = 0, False
    until = asyncio.get_running_loop().time() + seconds

    async def limited() -> Message:
        nonlocal arrived, complete
        if complete:
            return await receive()
        try:
            async with asyncio.timeout_at(until):
                message = await receive()
        except TimeoutError:
            raise Refused(400, f"The body did not arrive within {seconds:g} s.") from None
        if message["type"] == "http.request":
            arrived += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if arrived > most:
                raise _too_long(most)
        return message

    return limited


def _too_long(most: int) -> Refused:
    return Refused(413, f"The body is longer than {most} bytes. Send fewer or smaller images.")


def _more_headers(path: str) -> list[tuple[bytes, bytes]]:
    is_page = path in ("/", "/docs") or path.startswith("/page/")
    policy = _PAGE_POLICY if is_page else _API_POLICY
    private = [(b"cache-control", b"no-store")] if path.startswith("/v1/") else []
    return [*_HEADERS, (b"content-security-policy", policy.encode()), *private]
