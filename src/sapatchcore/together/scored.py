"""One batch after step 8, with what explains it: as each network saw it, and what that compared it with."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sapatchcore.embed.patches import Patches
from sapatchcore.memory.bank import Bank
from sapatchcore.result import Result
from sapatchcore.score.explain import Cause, Explanation, cause_of
from sapatchcore.score.fusion import Arrays
from sapatchcore.score.regions import Region
from sapatchcore.settings import Settings


@dataclass(frozen=True, eq=False)
class Seen:
    """A batch as one network saw it.

    patches: of its images. arrays: what ``score_patches`` made of them. bank, settings: with which. network, unit: its name, and
    what its distances are divided by, where it is one of several (score/together.py).
    """

    patches: Patches
    arrays: Arrays
    bank: Bank
    settings: Settings
    network: str = ""
    unit: float = 1.0

    def cause(self, region: Region | None, image: int, size: tuple[int, int]) -> Cause:
        """As ``cause_of``, of the image number ``image``, in units of all networks."""
        grids = [grid[image] for grid in self.arrays[3:7]]
        found = cause_of(region, grids, size, self.patches, image, self.bank, self.settings)
        if not self.network:
            return found
        parts = {name: getattr(found, name) / self.unit for name in ("score", "local", "context")}
        return replace(found, network=self.network, drawn_from=found.drawn_from / self.unit**2, **parts)


@dataclass(frozen=True, eq=False)
class Scored:
    """The result of a batch, and what each network saw, which explains its images without the networks."""

    result: Result
    seen: tuple[Seen, ...]

    def explain(self, image: int, *, false_reject: float | None, most: int) -> Explanation:
        """The verdict on the image number ``image``, with its causes; as SAPatchCore.explain.

        Of several networks that one explains a region whose worst patch in it is the farthest from its bank.
        """
        result = self.result.only(image)
        regions: list[Region | None] = [*result.regions(0, false_reject)[:most]] or [None]
        causes = []
        for region in regions:
            found = [one.cause(region, image, result.sizes[0]) for one in self.seen]
            causes.append(max(found, key=lambda cause: cause.score))
        return Explanation(result.paths[0], result.verdicts(false_reject)[0], tuple(causes))
