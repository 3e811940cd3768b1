"""What is sent to the server: images that are told apart by a number, and raw requests as no library would make them."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import socket
import threading
import zlib
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"


class NumberedImage:
    """One image file, and as many others as are wanted that differ in a comment alone, each with its hash.

    The pixels are the same, so the server's work is; a record is known by the hash. PNG: a tEXt chunk before the last;
    JPEG: a comment before its end.
    """

    def __init__(self, path: Path) -> None:
        content = path.read_bytes()
        self.media_type = "image/png" if content.startswith(b"\x89PNG") else "image/jpeg"
        end = 12 if self.media_type == "image/png" else 2
        self._front, self._end = content[:-end], content[-end:]
        self._hash = hashlib.sha256(self._front)

    def numbered(self, number: int) -> tuple[bytes, str]:
        """The file with this number in its comment, and its SHA-256."""
        end = _comment(self.media_type, f"{number:012}".encode()) + self._end
        whole = self._hash.copy()
        whole.update(end)
        return self._front + end, whole.hexdigest()


def _comment(media_type: str, text: bytes) -> bytes:
    if media_type == "image/jpeg":
        return b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text
    content = b"tEXtComment\0" + text
    return (len(content) - 4).to_bytes(4, "big") + content + zlib.crc32(content).to_bytes(4, "big")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes


def exchange(port: int, content: bytes, timeout: float = 30.0, *, end: bool = False) -> Answer | None:
    """Send ``content`` as it is, on a connection of its own; None where the server ended it without a whole answer.

    An answer that comes before all is sent counts, as it must with a server that refuses early. end: nothing more will be
    sent. Raises TimeoutError.
    """

    def send() -> None:
        with contextlib.suppress(OSError):
            connection.sendall(content)
            if end:
                connection.shutdown(socket.SHUT_WR)

    try:
        connection = socket.create_connection((HOST, port), timeout)
    except ConnectionError:
        return None
    sender = threading.Thread(target=send)
    sender.start()
    try:
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, headers, answer.read())
    except (http.client.HTTPException, ConnectionError):
        return None
    finally:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        sender.join()
        connection.close()
