"""Embeddings on disk while fit runs: what is read back, and what is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sapatchcore import DataError
from sapatchcore.embed.patches import Patches, to_patches
from sapatchcore.memory.spill import GrowingRows, Spill


def made(n: int, seed: int = 0, fine: tuple[int, int] = (6, 8), coarse: tuple[int, int] = (3, 4)) -> Patches:
    generator = torch.Generator().manual_seed(seed)
    return to_patches(
        torch.randn(n, 5, *fine, generator=generator), torch.randn(n, 7, *coarse, generator=generator), "self"
    )


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(("fine", "coarse"), [((6, 8), (3, 4)), ((5, 7), (3, 4)), ((4, 4), (4, 4))])
def test_rows_read_back_are_the_patches(fine: tuple[int, int], coarse: tuple[int, int]) -> None:
    batches = [made(3, 0, fine, coarse), made(1, 1, fine, coarse), made(2, 2, fine, coarse)]
    expected = torch.cat([patches.rows().flatten(0, 1) for patches in batches])
    with Spill() as spill:
        for patches in batches:
            spill.append(patches)
        assert spill.images == 6
        assert spill.patches_per_image == fine[0] * fine[1]
        order = torch.randperm(len(expected), generator=torch.Generator().manual_seed(0))
        assert torch.equal(spill.read(order), expected[order])
        assert torch.equal(spill.read(torch.tensor([3, 3, 0])), expected[[3, 3, 0]])
        spill.append(made(1, 3, fine, coarse))  # after reading, the end is still the end
        last = torch.tensor([len(expected)])
        assert torch.equal(spill.read(last)[0], made(1, 3, fine, coarse).rows()[0, 0])


@pytest.mark.parametrize("together", [1, 2, 3, 5, 6, 7, 100])
@pytest.mark.parametrize(("fine", "coarse"), [((6, 8), (3, 4)), ((5, 7), (3, 4)), ((4, 4), (4, 4))])
def test_images_come_again_as_they_were_appended(together: int, fine: tuple[int, int], coarse: tuple[int, int]) -> None:
    batches = [made(3, 0, fine, coarse), made(1, 1, fine, coarse), made(2, 2, fine, coarse)]
    with Spill() as spill:
        for patches in batches:
            spill.append(patches)
        for _ in range(2):  # they may be asked for again, and other rows in between
            found = list(spill.images_again(range(6), together, torch.device("cpu")))
            assert [len(one.local) for one in found[:-1]] == [together] * (len(found) - 1)
            assert sum(len(one.local) for one in found) == 6
            for name in ("local", "context"):
                expected = torch.cat([getattr(patches, name) for patches in batches])
                assert torch.equal(torch.cat([getattr(one, name) for one in found]), expected)
            for one in found:
                assert torch.equal(one.cell, batches[0].cell)
                assert one.grid == fine
            assert torch.equal(torch.cat([one.rows() for one in found]), torch.cat([one.rows() for one in batches]))
            spill.read(torch.tensor([3, 0]))


def test_some_images_come_again() -> None:
    with Spill() as spill:
        spill.append(made(5))
        found = list(spill.images_again([4, 0, 2], 2, torch.device("cpu")))
        assert [len(one.local) for one in found] == [2, 1]
        assert torch.equal(torch.cat([one.rows() for one in found]), made(5).rows()[[4, 0, 2]])


def test_images_come_again_while_others_are_read() -> None:
    """A part that was handed out is not touched by what is read after it."""
    with Spill() as spill:
        spill.append(made(4))
        first, *_ = parts = list(spill.images_again(range(4), 1, torch.device("cpu")))
        spill.read(torch.tensor([100, 7]))
        assert torch.equal(first.local[0], made(4).local[0])
        assert torch.equal(parts[3].context[0], made(4).context[3])
        first.local.zero_()
        assert torch.equal(next(iter(spill.images_again(range(4), 1, torch.device("cpu")))).local[0], made(4).local[0])


def test_no_image_comes_again_where_there_is_none() -> None:
    with Spill() as spill:
        assert list(spill.images_again([], 3, torch.device("cpu"))) == []


def test_nothing_is_left_after_leaving(temporary: Path) -> None:
    with Spill() as spill:
        spill.append(made(2))
    assert not list(temporary.iterdir())


def test_nothing_is_left_after_an_exception(temporary: Path) -> None:
    def interrupted() -> None:
        with Spill() as spill:
            spill.append(made(2))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(temporary.iterdir())


def test_file_that_is_cut_off_is_said() -> None:
    with Spill() as spill:
        spill.append(made(2))
        spill._file.truncate(100)
        with pytest.raises(DataError, match=r"was cut off while fit ran\. Run fit again\.$"):
            spill.read(torch.tensor([90]))
        with pytest.raises(DataError, match=r"was cut off while fit ran\. Run fit again\.$"):
            list(spill.images_again(range(2), 2, torch.device("cpu")))


RUNNING = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background hands down that it is ignored
import torch
from sapatchcore.embed.patches import to_patches
from sapatchcore.memory.spill import GrowingRows, Spill
rows = GrowingRows(on_disk=True)
with Spill() as spill:
    patches = to_patches(torch.randn(4, 8, 16, 16), torch.randn(4, 8, 8, 8), "self")
    spill.append(patches)
    rows.append(patches.rows().flatten(0, 1))
    print("ready", flush=True)
    for _ in range(600):
        time.sleep(0.1)  # a signal just before a sleep is seen after it
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows removes the file only when its process closes it")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGKILL", None)])
def test_nothing_is_left_after_a_signal(number: signal.Signals, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", RUNNING],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(timeout=30) != 0
    assert not list(tmp_path.glob("**/sapatchcore-*"))


FULL = """
import resource, sys, torch
from sapatchcore import DataError
from sapatchcore.embed.patches import to_patches
from sapatchcore.memory.spill import GrowingRows, Spill
patches = to_patches(torch.randn(2, 64, 16, 16), torch.randn(2, 64, 8, 8), "self")
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
try:
    if sys.argv[1] == "spill":
        with Spill() as spill:
            for _ in range(20):
                spill.append(patches)
    else:
        rows = GrowingRows(on_disk=True)
        try:
            for _ in range(20):
                rows.append(patches.rows().flatten(0, 1))
        finally:
            rows.close()
except DataError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on a file's size to play a full disk with")
@pytest.mark.parametrize(
    ("what", "after"),
    [
        ("spill", "4 images; each takes 0.1 MB while fit runs"),
        ("rows", "512 patches; each takes 512 bytes more for projection none"),
    ],
)
def test_full_disk_is_said(what: str, after: str, run_python: Callable) -> None:
    done = run_python(FULL, what)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        f"The disk of the temporary folder {tempfile.gettempdir()} is full after {after}. Free space there, or name "
        "another folder in the variable TMPDIR.\n"
    )


def test_other_failures_of_the_disk_are_not_called_full() -> None:
    with Spill() as spill:
        spill._file.close()
        with pytest.raises(ValueError, match="closed file"):
            spill.append(made(1))


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("sizes", [(1,), (3, 1, 7, 2, 50), (16,) * 20])
def test_growing_rows_are_the_rows_in_order(on_disk: bool, sizes: tuple[int, ...], temporary: Path) -> None:
    rng = np.random.default_rng(0)
    parts = [torch.from_numpy(rng.standard_normal((size, 6)).astype(np.float32)) for size in sizes]
    rows = GrowingRows(on_disk=on_disk)
    for part in parts:
        rows.append(part)
    found = rows.tensor()
    assert torch.equal(found, torch.cat(parts))
    assert found.dtype == torch.float32
    del found
    rows.close()
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("on_disk", [False, True])
def test_growing_rows_keep_copies(on_disk: bool) -> None:
    rows = GrowingRows(on_disk=on_disk)
    part = torch.ones(4, 3)
    rows.append(part)
    part.zero_()
    assert rows.tensor().sum() == 12
    rows.close()


GROWING = """
import resource, torch
from sapatchcore.memory.spill import GrowingRows
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
part = torch.randn(784, 128)
rows = GrowingRows(on_disk=False)
before = peak()
for _ in range(270):  # just above 2^k rows of 784: doubling would take twice the memory
    rows.append(part)
print(peak() - before)
"""


@pytest.mark.skipif(
    sys.platform != "linux", reason="other systems' realloc may copy, and their ru_maxrss has other units"
)
def test_growing_rows_are_never_held_twice(run_python: Callable) -> None:
    done = run_python(GROWING)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1.3 * 270 * 784 * 128 * 4 / 2**20
