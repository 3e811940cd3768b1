"""Images from a request's body, within limits: counted while they arrive, looked at before they are decoded; and the memory for
those that are decoded.
"""

from __future__ import annotations

import asyncio
import io
import re
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from sapatchcore.data.images import MEDIA_TYPES
from sapatchcore.data.pixels import FORMATS_IN_WORDS, open_header
from sapatchcore.errors import DataError
from sapatchcore.server.middleware import Refused, Ticket

FIELD = "images"
MOST_SCANS = 100  # of a JPEG: each is a pass over all pixels, and a file of kilobytes can ask for thousands
_NOT_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_LONGEST_NAME = 255


@dataclass(frozen=True)
class Upload:
    """One image as it came. file_name: as text, never a path; "" where the request gave none."""

    file_name: str
    content: bytes

    def called(self, index: int) -> str:
        """What sentences call the image at this index of its request."""
        return f"Image {index + 1}" + (f" ({self.file_name})" if self.file_name else "")


@dataclass(frozen=True)
class ImageHeader:
    """What an image file says of itself before it is decoded."""

    width: int
    height: int
    media_type: str


def clean_name(name: str) -> str:
    """A file's name as text for people: no folders, no signs that steer a terminal or a page, at most 255 letters."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    return _NOT_TEXT.sub("\N{REPLACEMENT CHARACTER}", last)[:_LONGEST_NAME]


def declared_length(request: Request) -> int:
    """What Content-Length says, 0 where it is not there. Raises Refused (400) for what is no number."""
    text = request.headers.get("content-length", "0")
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise Refused(400, "Content-Length must be a number.")
    return int(text)


async def read_uploads(request: Request, ticket: Ticket, *, most_images: int, most_bytes: int) -> list[Upload]:
    """The images of a request's body: one file or more in multipart fields named ``images``, or one as the raw body.

    ticket: of this request; it grows by what arrives beyond what was declared. The stream itself ends at the server's limits
    (see middleware.py).

    Raises Refused: 400 for a malformed body, 413 for too many images, 415 for another type, 422 for none, 503 where the queue
    is full.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, "A compressed body (Content-Encoding) is not read. Send the image files as they are.")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind == "multipart/form-data":
            uploads = await _from_form(request, ticket, most_images, most_bytes)
        elif kind.startswith("image/") or kind == "application/octet-stream":
            uploads = [Upload("", b"".join([part async for part in _counted(request, ticket)]))]
        else:
            raise Refused(415, "Send images as multipart/form-data, in fields named images, or one as an image/* body.")
    except ClientDisconnect:
        raise Refused(400, "The connection ended before the body did.") from None
    ticket.grow(len(uploads) - ticket.images, 0)
    return uploads


async def _counted(request: Request, ticket: Ticket) -> AsyncGenerator[bytes, None]:
    arrived = 0
    async for part in request.stream():
        arrived += len(part)
        if arrived > ticket.bytes:
            ticket.grow(0, arrived - ticket.bytes)
        yield part


async def _from_form(request: Request, ticket: Ticket, most_images: int, most_bytes: int) -> list[Upload]:
    parser = MultiPartParser(
        request.headers,
        _counted(request, ticket),
        max_files=most_images + 1,
        max_fields=most_images,
        max_part_size=1024,
    )
    parser.spool_max_size = most_bytes + 1  # never to a file of its own
    try:
        form = await parser.parse()
    except (Refused, ClientDisconnect):
        raise
    except MultiPartException as error:
        if "Too many" in error.message:
            raise Refused(413, _too_many(most_images)) from None
        raise Refused(400, f"The multipart body is malformed: {error.message}") from None
    except Exception as error:  # on hostile headers the parser may raise almost anything
        raise Refused(400, f"The multipart body is malformed ({type(error).__name__}).") from None
    uploads = []
    try:
        for field, value in form.multi_items():
            if field != FIELD or not isinstance(value, UploadFile):
                shown = clean_name(field)[:40]
                raise Refused(
                    422, f"Every part must be an image file in a field named {FIELD}. Got the field {shown!r}."
                )
            uploads.append(Upload(clean_name(value.filename or ""), await value.read()))
    finally:
        await form.close()
    if not uploads:
        raise Refused(422, f"There is no image in the body. Give one or more files in fields named {FIELD}.")
    if len(uploads) > most_images:
        raise Refused(413, _too_many(most_images))
    return uploads


def _too_many(most: int) -> str:
    return f"A request may hold {most} images at most. Send them in several requests."


def look(upload: Upload, index: int, most_pixels: int) -> ImageHeader:
    """Size and format from the file's first bytes; nothing is decoded.

    Raises Refused: 413 for more pixels than ``most_pixels``, 422 for what is no image that can be read.
    """
    name = upload.called(index)
    if not upload.content:
        raise Refused(422, f"{name} is empty (0 bytes).")
    try:
        with open_header(name, io.BytesIO(upload.content), len(upload.content)) as image:
            width, height, found = image.width, image.height, image.format or ""
    except DataError as error:
        status = 413 if "too large" in str(error) else 422
        raise Refused(status, str(error) if status == 422 else _too_large(name, most_pixels)) from None
    if width * height > most_pixels:
        raise Refused(413, _too_large(name, most_pixels))
    if found not in MEDIA_TYPES:
        raise Refused(422, f"{name} is not an image that can be read. Allowed: {FORMATS_IN_WORDS}.")
    if MEDIA_TYPES[found] == "image/jpeg" and upload.content.count(b"\xff\xda") > MOST_SCANS:
        raise Refused(422, f"{name} is a JPEG of more than {MOST_SCANS} scans. Save it again.")
    return ImageHeader(width, height, MEDIA_TYPES[found])


def _too_large(name: str, most_pixels: int) -> str:
    return f"{name} has more than {most_pixels} pixels. Cut it into tiles, or make it smaller."


class MemoryBudget:
    """Bytes that may be taken at a time, first come, first served. For the event loop's thread only.

    An amount beyond the whole budget is granted when nothing else is taken.
    """

    def __init__(self, most: int) -> None:
        self._most, self._taken = most, 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def room(self, amount: int) -> AsyncIterator[None]:
        """``amount`` bytes, until the block ends."""
        if self._waiting or not self._fits(amount):
            granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((amount, granted))
            try:
                await granted
            except asyncio.CancelledError:
                if not granted.cancelled():  # in the same moment
                    self._give_back(amount)
                else:  # it may have stood before others that fit
                    self._grant()
                raise
        else:
            self._taken += amount
        try:
            yield
        finally:
            self._give_back(amount)

    def _fits(self, amount: int) -> bool:
        return self._taken == 0 or self._taken + amount <= self._most

    def _give_back(self, amount: int) -> None:
        self._taken -= amount
        self._grant()

    def _grant(self) -> None:
        while self._waiting and (self._waiting[0][1].cancelled() or self._fits(self._waiting[0][0])):
            amount, granted = self._waiting.popleft()
            if not granted.cancelled():
                self._taken += amount
                granted.set_result(None)
