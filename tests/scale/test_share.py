"""What a share sends is small, whatever it holds: of a tensor's view, all that it is a view of would travel."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from sapatchcore.memory.distributed import Choice, Frontier
from sapatchcore.memory.spill import GrowingRows
from sapatchcore.scale.share import Share

ROWS, WIDTH = 5000, 32


def share_of(x: torch.Tensor) -> Share:
    """A share that has embedded its images, without Ray."""
    share = Share.__new__(Share)
    share._number, share._frontier = 0, None
    share._spill: Any = SimpleNamespace()
    share.embedder: Any = SimpleNamespace(network=SimpleNamespace(device=torch.device("cpu")))
    share._projected = GrowingRows(on_disk=False)
    share._projected.append(x)
    return share


def sent(value: object) -> int:
    return len(pickle.dumps(value))


def test_only_what_was_asked_for_travels() -> None:
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((ROWS, WIDTH)).astype(np.float32))
    share = share_of(x)
    point = share.point(17)
    assert torch.equal(point, x[17])
    assert sent(point) < 1000
    choice = Choice(40)
    centres = choice.begin(0, 17, point)
    frontier = Frontier(x, 0)
    frontier.meet(centres)
    shown = frontier.candidates(30)
    assert sent(shown) < 30 * (4 * WIDTH + 8 + 4) + 2000
    assert sent(choice.among([shown])) < 30 * (4 * WIDTH + 8 + 8) + 2000
