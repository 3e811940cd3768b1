"""Requests that no browser sends: names that are paths, bodies that end early or never, lengths that lie, values beyond all.

Each is bytes for a raw socket. ``mark`` is a word that every file name holds: a file with it, anywhere, was made by them.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass

BOUNDARY = "------------------------d74496d66958873e"


@dataclass(frozen=True)
class RawRequest:
    """allowed: the statuses that are right. protocol: so far from HTTP that a closed connection is an answer too, and
    that one which comes need not be JSON. unfinished: the client sends no more, and leaves the connection open."""

    what: str
    content: bytes
    allowed: frozenset[int] = frozenset(range(400, 500)) | {503}
    protocol: bool = False
    unfinished: bool = False


JUDGED = frozenset({200}) | RawRequest.allowed  # the image is good, so it may well be judged


def head(token: str, target: str, *lines: str, method: str = "POST") -> bytes:
    """A request's head with a right token."""
    text = (f"{method} {target} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {token}", *lines, "", "")
    return "\r\n".join(text).encode("utf-8", "surrogateescape")


def with_body(token: str, target: str, media_type: str, body: bytes, *lines: str, method: str = "POST") -> bytes:
    """A whole request."""
    return (
        head(token, target, f"Content-Type: {media_type}", f"Content-Length: {len(body)}", *lines, method=method) + body
    )


def part(image: bytes, disposition: bytes, media_type: bytes = b"image/png", boundary: str = BOUNDARY) -> bytes:
    """One part of a form, without the form's end."""
    lines = b"Content-Disposition: " + disposition + b"\r\nContent-Type: " + media_type + b"\r\n\r\n"
    return b"--" + boundary.encode() + b"\r\n" + lines + image + b"\r\n"


def form(token: str, target: str, image: bytes, file_name: bytes) -> bytes:
    """One image in a form, under a file name as given."""
    body = part(image, b'form-data; name="images"; filename="' + file_name + b'"') + f"--{BOUNDARY}--\r\n".encode()
    return with_body(token, target, f"multipart/form-data; boundary={BOUNDARY}", body)


def file_names(mark: str) -> Iterator[bytes]:
    """Names as they come in a form: paths, devices, control characters, other directions of writing, very long ones."""
    word = mark.encode()
    yield from (b"../" * depth + word for depth in (1, 3, 12))
    yield from (b"/tmp/" + word, b"//tmp//" + word, b"file:///tmp/" + word, b"~/" + word, b"$HOME/" + word)
    yield from (b"..\\..\\" + word, b"C:\\Windows\\" + word, b"\\\\server\\share\\" + word, b"C:" + word)
    yield from (b"%2e%2e%2f" + word, b"..%252f" + word, b"..;/" + word, b"....//" + word, b"\xc0\xae\xc0\xae/" + word)
    yield from (word + b"\x00.png", b"\x00" + word, word + b"\x1b[31m", word + b"\x07\x08", word + b"\x7f")
    yield from (b"CON", b"NUL.png", b"aux", b"COM1." + word, b"LPT1", b".", b"..", b"", b" ", b"...", b"-rf " + word)
    yield from (word * 1000, b"a/" * 500 + word, b"." * 300 + word, b"\xf0\x9f\x94\xa9" * 300)
    yield from (("\u202egnp." + mark).encode(), ("\ufeff" + mark).encode())
    yield from (b"\xff\xfe\xfd" + word, b"\xed\xa0\x80" + word, b"\xc3(" + word, "ẩm\u0301 ".encode() + word)
    yield from (b"<script>alert(1)</script>" + word, b"'; DROP TABLE records; --" + word, b"=cmd|' /C calc'!A0" + word)
    yield from (b"${jndi:ldap://127.0.0.1/a}" + word, b"{{7*7}}" + word, b"$(touch /tmp/" + word + b")", b"`id`" + word)
    yield from (b"a.png\r\nX-Injected: yes", b'a.png"; name="other', b'a.png"; filename="/tmp/' + word, b"a\\", b"a\nb")


QUERIES = (
    *(
        "false_reject=" + value
        for value in ("nan", "inf", "-1", "0", "1", "2", "1e-999", "1e999", "", "0x1", "one", "%00")
    ),
    *("false_reject=" + "9" * 5000, "false_reject=0.1&false_reject=0.2", "false_reject[]=0.1", "false_reject=%FF%FE"),
    *("map=" + value for value in ("", "GREY", "../../etc/passwd", "none,grey", "%00", "1")),
    *("explain=" + value for value in ("", "maybe", "2", "-1", "%27")),
    *("keep=" + value for value in ("perhaps", "%0d%0aX-Injected:%20yes", "[]")),
    *("x=" + "a" * 20_000, "&" * 5000, "=", "%", "%zz", "a[b][c]=d", "&".join(f"p{i}={i}" for i in range(2000))),
)
RECORDS = (
    *("limit=" + value for value in ("0", "-1", "1e9", "99999999999999999999", "x", "", "nan")),
    *("before=" + value for value in ("-1", "9223372036854775807", "9223372036854775808", "1" * 4000, "x")),
    *(
        "since=" + value
        for value in ("yesterday", "-1", "0000-00-00", "99999-01-01T00:00:00Z", "2024-01-01T00:00:00+99:99")
    ),
    *("verdict=perhaps", "kind=%00", "feedback=2", "model=" + "m" * 5000, "model=%27%20OR%201=1--", "file_name=%25%00"),
)
PATHS = (
    *(
        "/v1/models/..%2f..%2fetc%2fpasswd/inspect",
        "/v1/models/%2e%2e/inspect",
        "/v1/models/%00/inspect",
        "/v1/models//inspect",
    ),
    *(
        "/v1/models/" + "m" * 5000 + "/inspect",
        "/v1/models/%ff%fe/inspect",
        "/v1/models/a%0d%0aX-Injected:%20yes/inspect",
    ),
    *("/v1/models/con/inspect", "/v1/models/*/inspect", "/v1/models/..;/inspect", "/v1/models/%E2%80%AE/inspect"),
)
READ_PATHS = (
    *(
        "/../../../../etc/passwd",
        "/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/static/..%2f..%2f..%2fetc%2fpasswd",
        "/docs/../../x",
    ),
    *(
        "/page/%2e%2e/server.py",
        "/..%5c..%5cserver.py",
        "//etc/passwd",
        "/v1/records/0",
        "/v1/records/-1",
        "/v1/records/x",
    ),
    *("/v1/records/9223372036854775808", "/v1/records/" + "9" * 5000, "/v1/records/1%00/image", "/v1/records/0/image"),
    *("/v1/records/export?format=exe", "/v1/models/none/drift?last=-1", "/v1/models/none/drift?last=1e99"),
)


def names(token: str, target: str, image: bytes, mark: str) -> Iterator[RawRequest]:
    """A good image under every name. Statuses: it may be judged."""
    for name in file_names(mark):
        yield RawRequest(f"file name {name[:40]!r}", form(token, target, image, name), JUDGED)
    for value in (f"UTF-8''..%2f..%2f{mark}", f"utf-7''{mark}", "UTF-8''%ff%fe", f"x''{mark}", "''", "UTF-8''%00"):
        disposition = f'form-data; name="images"; filename="a.png"; filename*={value}'.encode()
        body = part(image, disposition) + f"--{BOUNDARY}--\r\n".encode()
        whole = with_body(token, target, f"multipart/form-data; boundary={BOUNDARY}", body)
        yield RawRequest(f"file name * {value}", whole, JUDGED)


def values(token: str, target: str, image: bytes) -> Iterator[RawRequest]:
    """Queries, paths, methods and media types."""
    for query in QUERIES:
        allowed = JUDGED if not query.startswith(("false_reject=n", "false_reject=-", "map=G")) else RawRequest.allowed
        yield RawRequest(f"query {query[:40]}", with_body(token, f"{target}?{query}", "image/png", image), allowed)
    for query in RECORDS:
        yield RawRequest(f"records {query[:40]}", head(token, f"/v1/records?{query}", method="GET"), JUDGED)
    for path in PATHS:
        yield RawRequest(f"path {path[:40]}", with_body(token, path, "image/png", image))
    for path in READ_PATHS:
        yield RawRequest(f"read {path[:40]}", head(token, path, method="GET"))
    for method in ("PUT", "DELETE", "TRACE", "PATCH", "PROPFIND", "GET", "OPTIONS"):
        yield RawRequest(f"method {method}", with_body(token, target, "image/png", image, method=method))
    for media_type in (
        "text/plain",
        "image/svg+xml",
        "",
        "image",
        "a/b/c",
        "application/json",
        "multipart/mixed",
        "\x01",
    ):
        yield RawRequest(f"media type {media_type!r}", with_body(token, target, media_type, image), JUDGED)
    for body in (b"", b"[", b"null", b"[" * 50_000, b'{"record": 1e999}', b'{"record": ' + b"9" * 5000 + b"}", b"\xff"):
        feedback = with_body(token, target.replace("inspect", "feedback"), "application/json", body)
        yield RawRequest(f"feedback {body[:20]!r}", feedback)


def forms(token: str, target: str, image: bytes) -> Iterator[RawRequest]:
    """Forms that are broken."""
    media_type = f"multipart/form-data; boundary={BOUNDARY}"
    good = part(image, b'form-data; name="images"; filename="a.png"')
    end = f"--{BOUNDARY}--\r\n".encode()
    bodies = {
        "nothing": b"",
        "only the end": end,
        "no end": good,
        "cut in the image": good[: len(good) // 2],
        "cut in a part's head": good[: good.index(b"Content-Type")],
        "no disposition": f"--{BOUNDARY}\r\n\r\nx\r\n".encode() + end,
        "another field": part(image, b'form-data; name="other"; filename="a.png"') + end,
        "a field that is no file": part(b"text", b'form-data; name="images"') + end,
        "an empty file": part(b"", b'form-data; name="images"; filename="a.png"') + end,
        "3000 parts": part(b"", b'form-data; name="images"; filename="a"') * 3000 + end,
        "3000 fields": part(b"", b'form-data; name="a"') * 3000 + end,
        "a long head": part(image, b'form-data; name="images"; x="' + b"a" * 100_000 + b'"') + end,
        "a head without colon": f"--{BOUNDARY}\r\nnonsense\r\n\r\n".encode() + image + end,
        "zeros": bytes(10_000),
        "a form in a form": part(good + end, b'form-data; name="images"', b"multipart/mixed; boundary=" + b"b") + end,
    }
    for what, body in bodies.items():
        yield RawRequest(f"form: {what}", with_body(token, target, media_type, body))
    for boundary in ("", '""', "=", "a" * 5000, "\x80", "a b", BOUNDARY + "x", '"' + BOUNDARY):
        with_it = f"multipart/form-data; boundary={boundary}"
        yield RawRequest(f"boundary {boundary[:20]!r}", with_body(token, target, with_it, good + end))
    yield RawRequest("no boundary", with_body(token, target, "multipart/form-data", good + end))


def lengths(token: str, target: str, image: bytes) -> Iterator[RawRequest]:
    """Lengths that lie, and bodies without end."""
    typed = ("Content-Type: image/png",)
    for length in ("-1", "1e3", "0x10", "9" * 30, "", "1, 2", "+5", "abc", "99999999999"):
        raw = head(token, target, *typed, f"Content-Length: {length}") + image
        yield RawRequest(f"length {length}", raw, protocol=True)
    yield RawRequest(
        "two lengths",
        head(token, target, *typed, "Content-Length: 5", f"Content-Length: {len(image)}") + image,
        protocol=True,
    )
    yield RawRequest("no length", head(token, target, *typed) + image, protocol=True)
    both = head(token, target, *typed, f"Content-Length: {len(image)}", "Transfer-Encoding: chunked") + image
    yield RawRequest("length and chunks", both, protocol=True)
    chunked = head(token, target, *typed, "Transfer-Encoding: chunked")
    for size in ("-1", "zz", "F" * 40, "", "1;" + "a" * 50_000):
        yield RawRequest(f"chunk of {size[:20]}", chunked + size.encode() + b"\r\nabc\r\n", protocol=True)
    yield RawRequest("chunks without end", chunked + b"5\r\nabcde\r\n" * 100, unfinished=True, protocol=True)
    short = head(token, target, *typed, f"Content-Length: {len(image) + 100}") + image
    yield RawRequest("body that ends early", short, unfinished=True, protocol=True)
    yield RawRequest("body that is shorter", short, protocol=True)
    packed = with_body(token, target, "image/png", gzip.compress(bytes(20_000_000)), "Content-Encoding: gzip")
    yield RawRequest("gzip bomb", packed)


def heads(token: str, target: str, image: bytes) -> Iterator[RawRequest]:
    """What is hardly HTTP."""
    good = with_body(token, target, "image/png", image)
    yield RawRequest("nothing", b"\r\n\r\n", protocol=True)
    yield RawRequest("noise", bytes(range(256)) * 20, protocol=True)
    yield RawRequest("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), protocol=True)
    yield RawRequest("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", protocol=True)
    yield RawRequest("HTTP/9", good.replace(b"HTTP/1.1", b"HTTP/9.9", 1), protocol=True)
    yield RawRequest("no version", b"GET /healthz\r\n\r\n", protocol=True)
    yield RawRequest("a head without end", good[:60], protocol=True, unfinished=True)
    yield RawRequest("a long line", head(token, "/" + "a" * 200_000, method="GET"), protocol=True)
    yield RawRequest("a long header", head(token, "/v1/models", "X: " + "a" * 200_000, method="GET"), protocol=True)
    many = head(token, "/v1/models", *(f"X-{i}: {i}" for i in range(5000)), method="GET")
    yield RawRequest("5000 headers", many, protocol=True)
    for line in ("X: a\x00b", "X Y: z", ": x", "X", " folded", "Ünï: x"):
        yield RawRequest(f"header {line!r}", head(token, "/v1/models", line, method="GET"), JUDGED, protocol=True)
    for given in (
        "",
        "Bearer",
        "Bearer ",
        "Basic YTpi",
        "Bearer " + "a" * 10_000,
        "Bearer \x00",
        "Bearer ü",
        token,
        "Bearer  x",
    ):
        raw = f"GET /v1/records HTTP/1.1\r\nHost: a\r\nAuthorization: {given}\r\n\r\n".encode()
        yield RawRequest(
            f"authorization {given[:20]!r}", raw, frozenset({400, 401, 403, 431}), protocol="\x00" in given
        )


def all_requests(token: str, target: str, image: bytes, mark: str) -> Iterator[RawRequest]:
    """Every one of them."""
    yield from names(token, target, image, mark)
    yield from values(token, target, image)
    yield from forms(token, target, image)
    yield from lengths(token, target, image)
    yield from heads(token, target, image)
