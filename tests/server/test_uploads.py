"""Images within limits, bodies that hold none, and the memory for those that are decoded."""

from __future__ import annotations

import asyncio
import io
import random
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from serving import INSPECT, PNG, encoded, refused

from sapatchcore.server.uploads import MemoryBudget


def png_head(width: int, height: int) -> bytes:
    """A PNG that says it is so large, and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(101, 100), (30_000, 30_000), (2**31 - 1, 2**31 - 1)])
def test_bombs_are_not_decoded(
    limited: TestClient, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch, part: bytes
) -> None:
    def decoded(*_: object) -> None:
        raise AssertionError("It was decoded.")

    monkeypatch.setattr("sapatchcore.server.inspection.rgb_from_bytes", decoded)
    refused(limited.post(INSPECT, content=png_head(*size), headers=PNG), 413, "pixels")
    files = [("images", ("a.png", part)), ("images", ("b.png", png_head(*size)))]
    refused(limited.post(INSPECT, files=files), 413, "Image 2 (b.png)")


def test_a_jpeg_of_thousands_of_scans(limited: TestClient, good: Any) -> None:
    file = io.BytesIO()
    Image.fromarray(good[0]).save(file, "JPEG", progressive=True)
    content = file.getvalue()
    assert limited.post(INSPECT, content=content, headers=PNG).status_code == 200
    last = content.rfind(b"\xff\xda")
    refused(limited.post(INSPECT, content=content + content[last:-2] * 200, headers=PNG), 422, "scans")


def test_too_many_images(limited: TestClient, part: bytes) -> None:
    files = [("images", (f"{at}.png", part)) for at in range(5)]
    assert limited.post(INSPECT, files=files[:4]).status_code == 200
    refused(limited.post(INSPECT, files=files), 413, "4 images")
    refused(limited.post(INSPECT, files=files * 3), 413, "4 images")


def test_bodies_that_are_no_images(limited: TestClient, part: bytes) -> None:
    refused(limited.post(INSPECT, content=b"", headers=PNG), 422, "empty")
    refused(limited.post(INSPECT, content=b"hello", headers=PNG), 422, "not an image")
    refused(limited.post(INSPECT, content=part[:-200], headers=PNG), 422, "cannot be decoded")
    refused(limited.post(INSPECT, content=part), 415)
    refused(limited.post(INSPECT, content=part, headers={"Content-Type": "text/plain"}), 415)
    refused(limited.post(INSPECT, content=part, headers={**PNG, "Content-Encoding": "gzip"}), 415)
    refused(limited.post(INSPECT, files=[("pictures", ("a.png", part))]), 422, "images")
    refused(limited.post(INSPECT, data={"images": "text"}, files=[("images", ("a.png", part))]), 422)
    refused(
        limited.post(INSPECT, content=b"--x--\r\n", headers={"Content-Type": "multipart/form-data; boundary=x"}), 422
    )
    gif = io.BytesIO()
    Image.new("L", (8, 8)).save(gif, "GIF")
    refused(limited.post(INSPECT, content=gif.getvalue(), headers=PNG), 422, "not an image")


def test_one_bad_image_and_none_is_recorded(limited: TestClient, part: bytes) -> None:
    before = limited.get("/v1/records?limit=1").json()
    files = [("images", ("a.png", part)), ("images", ("b.png", b"hello"))]
    refused(limited.post(INSPECT, files=files), 422, "Image 2 (b.png)")
    assert limited.get("/v1/records?limit=1").json() == before


@pytest.mark.parametrize("kind", [
    "", "; boundary=", '; boundary="', "; charset=idna; boundary=x", "; charset=undefined; boundary=x",
    "; boundary=" + "x" * 3000, "; boundary=é", "; boundary*0=x; boundary*1=y",
])  # fmt: skip
def test_malformed_forms(limited: TestClient, part: bytes, kind: str) -> None:
    bodies = [b"", b"--x", b"--x\r\n\r\n\r\n--x--", b"--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n--x--", part]
    bodies.append(b'--x\r\nContent-Disposition: form-data; name="\xff\xfe"; filename="\xff"\r\n\r\n1\r\n--x--\r\n')
    for body in bodies:
        answer = limited.post(
            INSPECT, content=body, headers={"Content-Type": f"multipart/form-data{kind}".encode("latin-1")}
        )
        assert answer.status_code in (400, 422), (body, answer.text)
        assert set(answer.json()) == {"error"}


@pytest.mark.parametrize(("given", "kept"), [
    ("../../etc/passwd", "passwd"), ("C:\\parts\\a.png", "a.png"), ("a\r\nb.png", None), ("\u202egnp.exe", "\ufffdgnp.exe"),
    ("x" * 400 + ".png", "x" * 255), ("ảnh lỗi.png", "ảnh lỗi.png"), ("a\x1b[2Jb.png", None),
])  # fmt: skip
def test_file_names_are_text(limited: TestClient, part: bytes, given: str, kept: str | None) -> None:
    answer = limited.post(INSPECT, files=[("images", (given, part))])
    assert answer.status_code == 200, answer.text
    name = answer.json()["results"][0]["file_name"]
    assert all(sign.isprintable() for sign in name)
    assert kept is None or name == kept


def test_damaged_images_are_refused_in_words(limited: TestClient, good: Any) -> None:
    rng = random.Random(0)
    for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP"):
        whole = encoded(good[0], kind)
        for _ in range(25):
            content = bytearray(whole[: rng.randrange(1, len(whole) + 1)])
            for _ in range(rng.randrange(4)):
                content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            answer = limited.post(INSPECT, content=bytes(content), headers=PNG)
            assert answer.status_code in (200, 413, 422), (kind, answer.text)
    assert limited.post(INSPECT, content=encoded(good[0]), headers=PNG).status_code == 200


def test_a_budget_grants_in_order() -> None:
    async def run() -> list[str]:
        budget, order = MemoryBudget(10), []
        release = {name: asyncio.Event() for name in "abcd"}

        async def take(name: str, amount: int) -> None:
            async with budget.room(amount):
                order.append(name)
                await release[name].wait()
            order.append(name.upper())

        tasks = {
            name: asyncio.create_task(take(name, amount)) for name, amount in zip("abcd", (6, 30, 5, 4), strict=True)
        }
        await asyncio.sleep(0.01)
        assert order == ["a"]  # b is larger than all, so it waits for an empty budget; c and d stand behind it
        release["a"].set()
        await asyncio.sleep(0.01)
        assert order == ["a", "A", "b"]
        tasks["b"].cancel()
        await asyncio.sleep(0.01)
        assert order == ["a", "A", "b", "c", "d"]
        release["c"].set(), release["d"].set()
        await asyncio.gather(tasks["c"], tasks["d"])
        assert budget._taken == 0
        return order

    assert asyncio.run(run())[-2:] == ["C", "D"]


def test_a_budget_survives_those_who_give_up() -> None:
    async def run() -> None:
        budget = MemoryBudget(10)
        rng = np.random.default_rng(0)

        async def take(amount: int, patience: float) -> None:
            async with asyncio.timeout(patience), budget.room(amount):
                await asyncio.sleep(0.001)

        tasks = [asyncio.create_task(take(int(rng.integers(1, 15)), float(rng.uniform(0, 0.1)))) for _ in range(300)]
        await asyncio.gather(*tasks, return_exceptions=True)
        assert budget._taken == 0
        assert not budget._waiting
        async with asyncio.timeout(60), budget.room(10):
            pass

    asyncio.run(run())
