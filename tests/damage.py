"""Files damaged at random, as disks, networks and people damage them: what every reader of model files must refuse."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

Damage = Callable[[bytes, np.random.Generator], bytes]


def cut(content: bytes, random: np.random.Generator) -> bytes:
    """A copy that was broken off."""
    return content[: int(random.integers(len(content)))]


def flipped(content: bytes, random: np.random.Generator) -> bytes:
    """One to eight bits turned, anywhere."""
    damaged = bytearray(content)
    for position in random.choice(len(content) * 8, int(random.integers(1, 9)), replace=False).tolist():
        damaged[position // 8] ^= 1 << position % 8
    return bytes(damaged)


def flipped_in_front(content: bytes, random: np.random.Generator) -> bytes:
    """One bit turned among the first bytes, where lengths, names and types stand."""
    position = int(random.integers(8 * min(len(content), 2048)))
    damaged = bytearray(content)
    damaged[position // 8] ^= 1 << position % 8
    return bytes(damaged)


def swapped(content: bytes, random: np.random.Generator) -> bytes:
    """Two blocks of a disk in each other's place."""
    size = min(512, len(content) // 4)
    one, other = np.sort(random.choice(len(content) // size, 2, replace=False)).tolist()
    blocks = [content[start : start + size] for start in range(0, len(content), size)]
    blocks[one], blocks[other] = blocks[other], blocks[one]
    return b"".join(blocks)


def another_length(content: bytes, random: np.random.Generator) -> bytes:
    """Other numbers in the first eight bytes, which in many formats are a length."""
    near = int.from_bytes(content[:8], "little") + int(random.integers(-64, 65))
    far = int(random.integers(1 << 63))
    return (near if random.random() < 0.5 else far).to_bytes(8, "little", signed=True) + content[8:]


def zeroed(content: bytes, random: np.random.Generator) -> bytes:
    """A span of zeros: what a disk leaves after a power cut."""
    begin, end = np.sort(random.integers(0, len(content) + 1, 2)).tolist()
    return content[:begin] + bytes(end - begin) + content[end:]


def appended(content: bytes, random: np.random.Generator) -> bytes:
    """Something more at the end."""
    return content + random.bytes(int(random.integers(1, 2000)))


def shifted(content: bytes, random: np.random.Generator) -> bytes:
    """A few bytes lost, or a few too many, in the middle."""
    position, size = int(random.integers(len(content))), int(random.integers(1, 9))
    return content[:position] + (
        content[position + size :] if random.random() < 0.5 else random.bytes(size) + content[position:]
    )


def overwritten(content: bytes, random: np.random.Generator) -> bytes:
    """Another file's bytes in a span of it."""
    begin, size = int(random.integers(len(content))), int(random.integers(1, 4096))
    return (content[:begin] + random.bytes(size) + content[begin + size :])[: len(content)]


KINDS: tuple[Damage, ...] = (
    *(cut, flipped, flipped_in_front, swapped, another_length),
    *(zeroed, appended, shifted, overwritten),
)


def damaged(content: bytes, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """``count`` contents that differ from ``content``, the kinds in turn, each with a text that says what was done."""
    made = 0
    while made < count:
        kind = KINDS[made % len(KINDS)]
        found = kind(content, np.random.default_rng([seed, made]))
        if found == content:  # zeros where zeros were
            seed += 1
            continue
        yield f"{kind.__name__}, seed {[seed, made]}, {len(found)} of {len(content)} bytes", found
        made += 1
