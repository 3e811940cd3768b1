"""The greedy k-center selection of ``coreset.py`` where no machine holds all patches: exact, in rounds.

Each share of the patches keeps their distances to the centres so far and sends its farthest patches, the *candidates*, with
a *bound*: no other patch of the share is farther than this. Distances only shrink. So while the farthest candidate of all
shares is at least as far as every bound, it is the farthest patch of all, and one process can go on choosing among the
candidates alone. When it is not, the shares take in the new centres and send other candidates: a round.

We differ from Malkomes et al. (NeurIPS 2015), who choose greedily in each share and then among what the shares chose: two
rounds, within a factor of 4 of the optimum. Ours takes more rounds and chooses what one machine would; ``docs/scale.md``
has both measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sapatchcore.memory.coreset import blocks_of


@dataclass(frozen=True)
class Candidates:
    """A share's farthest patches.

    rows: (t,) int64 in the share. projected: (t, d) float32. squared: (t,) float32, squared distances to the nearest centre,
    the largest first; infinite before the first centre. bound: no other patch's is larger; -inf where there is no other.
    """

    rows: torch.Tensor
    projected: torch.Tensor
    squared: torch.Tensor
    bound: float


@dataclass(frozen=True)
class Centres:
    """The centres of one round, in their order. shares, rows: (c,) int64. projected: (c, d) float32."""

    shares: torch.Tensor
    rows: torch.Tensor
    projected: torch.Tensor


class Frontier:
    """What each share holds: how far its patches are from the centres."""

    @torch.inference_mode()
    def __init__(self, x: torch.Tensor, share: int, among: torch.Tensor | None = None) -> None:
        """x: (n, d) float32, projected patches; neither changed nor copied as a whole. share: its number. among: (r,) int64,
        the rows to choose from, and to cover; None for all."""
        self._x, self._share = x, share
        self._mean = x.mean(0)  # subtracted below: |x|² + |c|² − 2x·c then loses fewer digits
        rows = torch.arange(len(x)) if among is None else among
        self._blocks = blocks_of(x, self._mean, np.random.default_rng(0), rows) if len(rows) else []
        self._squared = torch.full((len(x),), -torch.inf, device=x.device)
        self._squared[rows.to(x.device)] = torch.inf
        self.met = 0  # rounds of centres taken in so far

    @torch.inference_mode()
    def meet(self, centres: Centres) -> None:
        """Take in one more round of centres."""
        points = centres.projected.to(self._x.device) - self._mean
        norms = points.square().sum(1)
        for block in self._blocks:
            before = self._squared[block.rows]
            # |x − c| ≥ |middle − c| − reach: a centre farther from the middle than this changes nothing in the block.
            limit = (block.reach + float(before.amax().clamp(min=0).sqrt())) ** 2 * 1.0001 - float(
                block.middle.square().sum()
            )
            near = torch.addmv(norms, points, block.middle, alpha=-2) < limit
            if not bool(near.any()):
                continue
            rows = self._x[block.rows].sub_(self._mean)
            squared = torch.addmm(norms[near], rows, points[near].T, alpha=-2).amin(1).add_(rows.square().sum(1))
            self._squared[block.rows] = torch.minimum(before, squared.clamp_(min=0))
        own = centres.rows[centres.shares == self._share].to(self._x.device)
        self._squared[own] = -torch.inf  # never again, not even among duplicates
        self.met += 1

    @torch.inference_mode()
    def candidates(self, count: int) -> Candidates:
        """The ``count`` farthest patches, or as many as are left."""
        left = int((self._squared != -torch.inf).sum())
        found = self._squared.topk(min(count + 1, left))
        shown = min(count, left)
        bound = float(found.values[-1]) if left > shown else -float("inf")
        rows = found.indices[:shown]
        return Candidates(rows.cpu(), self._x[rows].cpu(), found.values[:shown].cpu(), bound)

    def radius(self) -> float:
        """The largest distance of a patch from its nearest centre; 0 where all are centres."""
        return float(self._squared.amax().clamp(min=0).sqrt())


class Choice:
    """What the one process that chooses holds: the centres so far."""

    def __init__(self, count: int) -> None:
        """count: centres in all."""
        self._count = count
        self._rounds: list[Centres] = []
        self.chosen = 0

    @property
    def missing(self) -> int:
        """How many centres are still to choose."""
        return self._count - self.chosen

    def begin(self, share: int, row: int, projected: torch.Tensor) -> Centres:
        """The first centre, which is drawn at random, as a round. projected: (d,)."""
        return self.go_on(Centres(torch.tensor([share]), torch.tensor([row]), projected[None].clone()))

    def go_on(self, centres: Centres) -> Centres:
        """Take in a round of centres, and give it back."""
        self._rounds.append(centres)
        self.chosen += len(centres.rows)
        return centres

    @torch.inference_mode()
    def among(self, shares: Sequence[Candidates]) -> Centres:
        """The next round: as many centres as these candidates decide, at least one. shares: the candidates of each share."""
        numbers = torch.cat([torch.full((len(one.rows),), share) for share, one in enumerate(shares)])
        rows = torch.cat([one.rows for one in shares])
        x = torch.cat([one.projected for one in shares])
        squared = torch.cat([one.squared for one in shares]).clone()
        bound = max(one.bound for one in shares)
        picked: list[int] = []
        while self.chosen + len(picked) < self._count:
            pick = int(squared.argmax())
            if picked and float(squared[pick]) < bound:
                break
            picked.append(pick)
            squared = torch.minimum(squared, (x - x[pick]).square().sum(1))
            squared[picked] = -torch.inf
            if not bool((squared > -torch.inf).any()):
                break
        at = torch.tensor(picked)
        return self.go_on(Centres(numbers[at], rows[at], x[at]))

    def all(self) -> Centres:
        """All centres so far, in the order in which they were chosen."""
        columns = zip(*((one.shares, one.rows, one.projected) for one in self._rounds), strict=True)
        return Centres(*(torch.cat(column) for column in columns))
