"""Made banks, queries and groups of their rows, for the tests of the searches."""

from __future__ import annotations

import numpy as np
import torch


def bank_of(kind: str, m: int = 1500, d: int = 24, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((m, d))
    if kind == "clustered":
        x = rng.standard_normal((9, d))[rng.integers(0, 9, m)] * 6 + x * 0.2
    elif kind == "low rank":
        x = x[:, :3] @ rng.standard_normal((3, d))
    elif kind == "all equal":
        x = np.ones((m, d)) * 2
    elif kind == "far from the origin":
        x = x + 30
    elif kind == "one axis":
        x = x[:, :1] * np.eye(1, d)
    elif kind == "heavy tails":
        x = x * np.exp(rng.standard_normal((m, 1)) * 2)
    return torch.from_numpy(x.astype(np.float32))


KINDS = ["random", "clustered", "low rank", "all equal", "far from the origin", "one axis", "heavy tails"]


def queries_of(bank: torch.Tensor, kind: str, seed: int = 1) -> torch.Tensor:
    noise = torch.from_numpy(np.random.default_rng(seed).standard_normal((90, bank.shape[1])).astype(np.float32))
    base = bank[:: max(1, len(bank) // 90)][:90]
    return {
        "in the bank": base.clone(),
        "near": base + 0.05 * noise[: len(base)],
        "elsewhere": bank.mean(0) + noise,
        "far away": bank.mean(0) + 300 * noise,
    }[kind]


def groups_of(kind: str, bank: torch.Tensor, count: int = 5) -> torch.Tensor:
    """(m,) int64: groups at random, of neighbouring places, or most rows in one."""
    rng = np.random.default_rng(3)
    groups = {
        "at random": rng.integers(0, count, len(bank)),
        "by place": bank[:, 0].argsort(stable=True).argsort().numpy() * count // len(bank),
        "one has most": np.where(rng.random(len(bank)) < 0.95, 0, rng.integers(1, count, len(bank))),
    }[kind]
    return torch.from_numpy(groups.astype(np.int64))


GROUPS = ["at random", "by place", "one has most"]
