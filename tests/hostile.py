"""Image files that are none, or are damaged, or claim too much: what may arrive where an image was asked for.

``hostile_images(count, seed)`` makes as many as wanted, seeded; the first ones are one of each kind of ``lies()``, then
every kind of damage to every format in turn.
"""

from __future__ import annotations

import gzip
import io
import itertools
import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from damage import damaged
from PIL import Image

FORMATS = {"PNG": "image/png", "JPEG": "image/jpeg", "BMP": "image/bmp", "TIFF": "image/tiff", "WEBP": "image/webp"}


@dataclass(frozen=True)
class Hostile:
    """what: for messages. no_image: it can be read by no means, so it must be refused; else its pixels may be judged."""

    what: str
    content: bytes
    media_type: str
    no_image: bool


@cache
def real(kind: str, side: int = 64) -> bytes:
    """A good image file of a format: a soft texture, (side, side) pixels."""
    rows, columns = np.mgrid[:side, :side]
    pixels = 128 + 60 * np.sin(rows / 5)[..., None] + 40 * np.sin(columns[..., None] / np.array([4.0, 6.0, 9.0]))
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, kind)
    return file.getvalue()


def hostile_images(count: int, seed: int) -> Iterator[Hostile]:
    """``count`` contents: each of ``lies()`` once, the rest real files of every format in turn, damaged at random."""
    fixed = list(itertools.islice(lies(), count))
    yield from fixed
    left = count - len(fixed)
    streams = [
        [Hostile(f"{kind}, {what}", content, media_type, no_image=False) for what, content in made]
        for number, (kind, media_type) in enumerate(FORMATS.items())
        if (made := list(damaged(real(kind), -(-left // len(FORMATS)), seed + number)))
    ]
    yield from itertools.islice(itertools.chain.from_iterable(zip(*streams, strict=True)), left)


def lies() -> Iterator[Hostile]:
    """One of each: other files, headers that claim too much, bombs, files that are two things at once."""
    for what, content in itertools.chain(other_files(), claims(), bombs()):
        for media_type in ("image/png", "application/octet-stream"):
            yield Hostile(f"{what} as {media_type}", content, media_type, no_image=True)
    for kind, media_type in FORMATS.items():  # cut where nothing but the header is left
        yield Hostile(f"{kind} of 40 bytes", real(kind)[:40], media_type, no_image=True)
    for what, content in polyglots():
        yield Hostile(what, content, "image/png", no_image=False)


def other_files() -> Iterator[tuple[str, bytes]]:
    """What is no image, or one of a kind that has no place on a line."""
    yield "nothing", b""
    yield "one byte", b"\x89"
    yield "zeros", bytes(5000)
    yield "noise", np.random.default_rng(0).bytes(5000)
    yield "text", "Ünïcode \u202e text".encode() * 20
    yield "JSON", b'{"image": "../../etc/passwd"}'
    yield "HTML", b"<!doctype html><script>alert(1)</script>"
    yield "SVG", b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    yield "XML entity", b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>'
    yield "PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/tmp/x) (w) file closefile showpage\n%%EOF"
    yield "PDF", b"%PDF-1.7\n1 0 obj <</Type /Catalog /OpenAction <</S /JavaScript /JS (app.alert(1))>>>> endobj"
    yield "zip", _zip()
    yield "gzip", gzip.compress(real("PNG"))
    yield "pickle", pickle.dumps({"image": [1, 2, 3]})
    yield "NumPy array", _array()
    yield "program", b"\x7fELF\x02\x01\x01" + bytes(60)
    yield "script", b"#!/bin/sh\ntouch /tmp/touched\n"
    for kind in ("GIF", "ICO", "PPM", "TGA", "PCX", "SGI"):  # Pillow reads them, the package does not
        yield kind, _as(kind)
    yield "XBM", b"#define a_width 99999\n#define a_height 99999\nstatic char a_bits[] = { 0x00 };"


def claims() -> Iterator[tuple[str, bytes]]:
    """Headers that claim a huge image, with next to nothing behind."""
    for side in (100_000, 2**31 - 1, 2**32 - 1):
        yield f"PNG that claims {side} × {side}", png(side, side, b"\x78\x9c")
    yield "PNG without a width", png(0, 64, b"\x78\x9c")
    yield "JPEG that claims 65535 × 65535", _jpeg_claim(65535, 65535)
    yield "BMP that claims 2³⁰ × 2³⁰", _bmp_claim(1 << 30, 1 << 30)
    yield "BMP with a negative size", _bmp_claim(-64, -(1 << 31))
    yield "TIFF that claims 2³¹ × 2³¹", tiff(2**31, 2**31, compression=5, data=b"\x80\x0b\x60\x50\x22\x0c\x0c\x85\x01")
    yield "TIFF whose directory is itself", b"II*\0\x08\0\0\0\1\0\x4a\x01\4\0\1\0\0\0\x08\0\0\0\x08\0\0\0"
    yield "WebP that claims 16384 × 16384", _webp_claim(1 << 14, 1 << 14)
    yield "WebP of 2 GB", b"RIFF\xff\xff\xff\x7fWEBPVP8 \xff\xff\xff\x7f" + bytes(40)


@cache
def bombs() -> tuple[tuple[str, bytes], ...]:
    """Small files that grow a thousandfold when they are unpacked."""
    side = 14_000  # 196 million pixels, beyond what Pillow takes
    packed = zlib.compressobj(9)
    rows = bytes(1 + side // 8) * 1000
    deflated = b"".join(packed.compress(rows) for _ in range(side // 1000)) + packed.flush()
    zeros = zlib.compress(bytes(50_000_000), 9)
    return (
        ("PNG bomb", png(side, side, deflated, depth=1, colour=0)),
        ("PNG whose text is a bomb", png(64, 64, b"\x78\x9c", extra=[(b"zTXt", b"a\0\0" + zeros)])),
        ("PNG whose profile is a bomb", png(64, 64, b"\x78\x9c", extra=[(b"iCCP", b"a\0\0" + zeros)])),
        ("TIFF bomb", tiff(side, side, compression=8, data=deflated)),
    )


def polyglots() -> Iterator[tuple[str, bytes]]:
    """Real images that are something else too, or odd but whole: their pixels may well be judged."""
    yield "PNG and zip", real("PNG") + _zip()
    yield "PNG with a script", real("PNG") + b"<script>alert(1)</script>"
    yield "JPEG with a script", real("JPEG")[:2] + _segment(0xFE, b"*/=alert(1)/*") + real("JPEG")[2:]
    yield (
        "JPEG with broken EXIF",
        real("JPEG")[:2] + _segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff") + real("JPEG")[2:],
    )
    yield "one pixel", _as("PNG", (1, 1))
    yield "one row", _as("PNG", (1, 5000))
    yield "one column", _as("PNG", (5000, 1))
    yield "floats that are no numbers", _as_mode("F", np.full((64, 64), np.nan, np.float32))
    yield "floats beyond all", _as_mode("F", np.full((64, 64), 3e38, np.float32))
    yield "integers below zero", _as_mode("I", np.full((64, 64), -5, np.int32))
    yield "CMYK", _converted("CMYK", "JPEG")
    yield "palette", _converted("P", "PNG")
    yield "one bit", _converted("1", "TIFF")


def png(
    width: int,
    height: int,
    data: bytes,
    *,
    depth: int = 8,
    colour: int = 2,
    extra: list[tuple[bytes, bytes]] | None = None,
) -> bytes:
    """A PNG with a right checksum on every chunk, whatever it claims. data: of the one IDAT."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *(extra or []), (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part)) + name + part + struct.pack(">I", zlib.crc32(name + part)) for name, part in chunks
    )


def tiff(width: int, height: int, *, compression: int, data: bytes) -> bytes:
    """A one-bit TIFF of one strip."""
    entries = (
        *((256, 4, width), (257, 4, height), (258, 3, 1), (259, 3, compression), (262, 3, 1), (273, 4, 8)),
        *((277, 3, 1), (278, 4, height), (279, 4, len(data))),
    )
    data += b"\0" * (len(data) % 2)
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory


def _segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content


def _jpeg_claim(width: int, height: int) -> bytes:
    content = bytearray(real("JPEG"))
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(content)


def _bmp_claim(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


def _webp_claim(width: int, height: int) -> bytes:
    packed = (width - 1) | (height - 1) << 14
    content = b"VP8L" + struct.pack("<I", 10) + b"\x2f" + struct.pack("<I", packed) + bytes(5)
    return b"RIFF" + struct.pack("<I", 4 + len(content)) + b"WEBP" + content


def _as(kind: str, size: tuple[int, int] = (16, 16)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (size[1], size[0]), (90, 120, 60)).save(file, kind)
    return file.getvalue()


def _as_mode(mode: str, values: np.ndarray) -> bytes:
    file = io.BytesIO()
    picture = Image.fromarray(values)
    assert picture.mode == mode
    picture.save(file, "TIFF")
    return file.getvalue()


def _converted(mode: str, kind: str) -> bytes:
    file = io.BytesIO()
    Image.open(io.BytesIO(real("PNG"))).convert(mode).save(file, kind)
    return file.getvalue()


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("../../outside.png", real("PNG"))
    return file.getvalue()


def _array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros((16, 16, 3), np.uint8))
    return file.getvalue()
