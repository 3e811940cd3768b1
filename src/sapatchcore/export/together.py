"""Several networks as one graph: the steps 2 to 7 of each, and what they find brought together as score/together.py does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from sapatchcore.data.pixels import UInt8Array
from sapatchcore.embed.patches import Embedder, Patches
from sapatchcore.export.check import FLOOR, Check, batch_of, parts_away, spread_of
from sapatchcore.export.graph import Graph
from sapatchcore.export.runtime import Arrays
from sapatchcore.memory.bank import Bank
from sapatchcore.result import Result, gather_result
from sapatchcore.score.anomaly_score import score_patches
from sapatchcore.score.calibration import Calibration, Float32
from sapatchcore.score.fusion import HANDICAP
from sapatchcore.score.together import CommonScale, between_cells, covering, finest, on_grid, together
from sapatchcore.settings import Settings


class TogetherGraph(torch.nn.Module):
    """As ``Graph``, of several networks. inner: of each network the nearest rows (n, h, w) of its own bank, on its own grid."""

    def __init__(self, graphs: Sequence[Graph], scale: CommonScale) -> None:
        """graphs: of each network; the one with the finest grid was made with the calibration of all."""
        super().__init__()
        self._each = torch.nn.ModuleList(graphs)
        self._graphs = tuple(graphs)
        grids = [graph.grid for graph in graphs]
        self.grid, self._scale = finest(grids), scale
        self._first = np.cumsum([0, *(graph.local.count for graph in graphs)])[:-1].tolist()
        self._main = graphs[grids.index(self.grid)]
        self.inner = tuple(f"neighbours.{number}" for number in range(len(graphs)))
        for number, grid in enumerate(grids):
            cells = torch.from_numpy(covering(np.arange(grid[0] * grid[1]).reshape(1, *grid), self.grid).flatten())
            self.register_buffer(f"cells{number}", cells)
            self.register_buffer(f"served{number}", torch.bincount(cells, minlength=grid[0] * grid[1]).float())
            for name, have, wanted in zip(("down", "across"), grid, self.grid, strict=True):
                self.register_buffer(f"{name}{number}", torch.tensor(between_cells(have, wanted)))

    @property
    def outputs(self) -> list[str]:
        """As of ``Graph``."""
        return self._main.outputs

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        pixels = self._main.lanczos(images).to(torch.uint8)
        each = [graph.inspect(pixels)[:2] for graph in self._graphs]
        parts, wholes, rows = [], [], []
        for number, ((found, _), unit) in enumerate(zip(each, self._scale.units, strict=True)):
            local, context = (self._on_grid((part / unit).square(), number) for part in found[4:6])
            parts.append((local, context))
            wholes.append(local + context)
            rows.append(self._covering(found[6], number) + self._first[number])
        local, context = (torch.stack(part).mean(0) for part in zip(*parts, strict=True))  # (n, h, w)
        most, neighbours = wholes[0], rows[0]
        for whole, row in zip(wholes[1:], rows[1:], strict=True):  # not argmax, which OpenVINO turns into a sort
            neighbours = torch.where(whole > most, row, neighbours)
            most = torch.maximum(whole, most)
        patch_scores = (local + context).sqrt()
        (score, *own), _ = self._main.image_scores(*(one.flatten(1) for one in (patch_scores, local, context)))
        of_whole: list[torch.Tensor] = []
        if self._scale.fusion is not None:
            score, *of_whole = self._fused(score, [found for _, found in each])
        grids = (patch_scores, local.sqrt(), context.sqrt(), neighbours)
        anomaly_map = self._main.enlarge(patch_scores, images.shape[1], images.shape[2])
        p_value = self._main.p_value(score)
        return (score, *own, *grids, anomaly_map, *p_value, *of_whole, *(found[6] for found, _ in each))

    def _fused(self, score: torch.Tensor, each: list[tuple[torch.Tensor, ...]]) -> tuple[torch.Tensor, ...]:
        """The patches' own score and each network's ``metadata.GLOBAL`` → the fused score, and ``GLOBAL`` of all."""
        units = self._scale.global_units
        squares = [(distance / unit).square() for (distance, _), unit in zip(each, units, strict=True)]
        whole = torch.stack(squares).mean(0).sqrt()
        places = [
            self._covering(shares, number, divided=True) / unit**2
            for number, ((_, shares), unit) in enumerate(zip(each, units, strict=True))
        ]
        assert self._scale.fusion is not None
        begin, tail, global_begin, global_tail = self._scale.fusion
        lead = (whole - global_begin) / global_tail - HANDICAP
        return torch.maximum(score, begin + tail * lead), whole, torch.stack(places).mean(0)

    def _on_grid(self, cells: torch.Tensor, number: int) -> torch.Tensor:
        """(n, h, w) of network ``number`` on the finest grid, along straight lines."""
        if cells.shape[1:] == self.grid:
            return cells
        down, across = (self.get_buffer(f"{name}{number}") for name in ("down", "across"))
        return down @ cells @ across.T

    def _covering(self, cells: torch.Tensor, number: int, *, divided: bool = False) -> torch.Tensor:
        """(n, h, w) of network ``number`` → the cell that covers each of the finest grid. divided: its number, shared out."""
        if cells.shape[1:] == self.grid:
            return cells
        flat = cells.flatten(1)
        if divided:
            flat = flat / self.get_buffer(f"served{number}")
        found: torch.Tensor = flat.index_select(1, self.get_buffer(f"cells{number}")).unflatten(1, self.grid)
        return found


class TogetherCheck(Check):
    """As ``Check``, of several networks."""

    def __init__(
        self,
        networks: Sequence[tuple[Embedder, Bank]],
        scale: CommonScale,
        settings: Settings,
        calibration: Calibration | None,
    ) -> None:
        """networks: on the CPU in float32. settings, calibration: of all."""
        super().__init__(*networks[0], calibration, calibration)
        self._networks, self._scale, self._settings = networks, scale, settings
        spread = [spread_of(bank) / unit for (_, bank), unit in zip(networks, scale.units, strict=True)]
        self.asks = tuple(f"neighbours.{number}" for number in range(len(networks)))
        self._floor = max(FLOOR * float(np.sqrt(np.mean(np.square(spread)))), 1e-12)

    def _scored(self, image: UInt8Array) -> tuple[Result, list[Patches]]:
        batch = batch_of(image, self._settings)
        seen = [embedder.embed(batch) for embedder, _ in self._networks]
        each = [
            score_patches(patches, bank, embedder.settings)
            for patches, (embedder, bank) in zip(seen, self._networks, strict=True)
        ]
        rows = [len(bank.rows) for _, bank in self._networks]
        arrays = together(each, self._scale, self._settings.image_score, rows)
        return gather_result([(batch, arrays)], self._settings, calibration=self._calibration), seen

    def _away(self, patches: list[Patches], theirs: Arrays) -> tuple[Float32, Float32]:
        squares = []
        for number, (seen, (_, bank)) in enumerate(zip(patches, self._networks, strict=True)):
            parts = parts_away(seen, bank, theirs[f"neighbours.{number}"][0])
            squares.append([np.square(part / self._scale.units[number])[None] for part in parts])
        grid = finest([one[0].shape[1:] for one in squares])
        local, context = (
            np.sqrt(np.mean([on_grid(part, grid)[0] for part in each], axis=0)) for each in zip(*squares, strict=True)
        )
        return local, context
