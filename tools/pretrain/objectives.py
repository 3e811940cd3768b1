"""What the network is asked: which surface, which defect, and where was this cell in the other photograph."""

from __future__ import annotations

import torch
from camera import Stand
from recipes import Recipe
from scenes import DEFECTS, Scenes
from torch import nn
from torch.nn.functional import avg_pool2d, cross_entropy, grid_sample, max_pool2d, normalize, softplus

CELLS = 1024  # cells a layer and step that are asked for their surface: all of them would cost more than the network
TEMPERATURE = 0.15


class Heads(nn.Module):
    """Linear heads on layer 2 (pooled as both models pool it) and layer 3; thrown away after training."""

    def __init__(self, recipe: Recipe, channels: list[int]) -> None:
        super().__init__()
        self.recipe = recipe
        self.surface = nn.ModuleList(nn.Linear(c, recipe.surfaces) for c in channels) if recipe.dense else None
        self.ground = nn.Linear(channels[-1], recipe.surfaces) if recipe.whole else None
        self.defect = nn.ModuleList(nn.Linear(c, len(DEFECTS)) for c in channels) if recipe.defect else None
        self.project = nn.ModuleList(nn.Linear(c, 64) for c in channels) if recipe.contrast else None
        self.group = nn.ModuleList(nn.Linear(c, 64) for c in channels) if recipe.alike else None

    def forward(
        self, maps: list[torch.Tensor], scenes: Scenes, stand: Stand | None, random: torch.Generator
    ) -> dict[str, torch.Tensor]:
        """Losses by name.

        maps: for each layer (views · n, c, h, w), the photographs of a scene n apart. stand: of the second photographs,
        None where it is the first's.
        """
        views = self.recipe.views
        maps = [avg_pool2d(maps[0], 3, 1, 1), maps[1]]
        losses: dict[str, list[torch.Tensor]] = {}
        if self.ground is not None:
            ground = scenes.surfaces.flatten(1).mode(1).values.repeat(views)
            losses["whole"] = [cross_entropy(self.ground(maps[-1].mean((2, 3))), ground)]
        for layer, found in enumerate(maps):
            rows = found.permute(0, 2, 3, 1)  # (n, h, w, c)
            cell = scenes.surfaces.shape[-1] // rows.shape[1]
            if self.surface is not None:
                labels, pure = _surface_cells(scenes.surfaces, cell)
                where = pure.repeat(views, 1, 1).nonzero()
                where = where[torch.randint(len(where), (CELLS,), generator=random, device=where.device)].unbind(1)
                answer = self.surface[layer](rows[where])
                losses.setdefault("dense", []).append(cross_entropy(answer, labels.repeat(views, 1, 1)[where]))
            if self.defect is not None:
                labels = _defect_cells(scenes.defects, cell).repeat(views, 1, 1)
                weight = torch.ones(len(DEFECTS), device=labels.device)
                weight[0] = 0.2
                answer = self.defect[layer](rows).flatten(0, 2)
                losses.setdefault("defect", []).append(cross_entropy(answer, labels.flatten(), weight))
            if self.group is not None:
                losses.setdefault("alike", []).append(_alike(rows, scenes.surfaces, cell, self.group[layer], random))
            if self.project is not None:
                altered = _defect_cells(scenes.defects, cell) > 0
                if not self.recipe.changed:
                    altered = torch.zeros_like(altered)  # both photographs have the defect
                contrast, changed = _contrast(rows, altered, cell, stand, self.project[layer], random)
                losses.setdefault("contrast", []).append(contrast)
                losses.setdefault("changed", []).append(changed)
        return {name: torch.stack(parts).mean() * getattr(self.recipe, name) for name, parts in losses.items()}


def _surface_cells(surfaces: torch.Tensor, cell: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, h, w) class at each cell's middle, and whether its four quarters agree."""
    low, high = cell // 4, cell - 1 - cell // 4
    middle = surfaces[:, cell // 2 :: cell, cell // 2 :: cell]
    quarters = [surfaces[:, a::cell, b::cell] for a in (low, high) for b in (low, high)]
    return middle, torch.stack([quarter == middle for quarter in quarters]).all(0)


def _defect_cells(defects: torch.Tensor, cell: int) -> torch.Tensor:
    """(n, h, w): the kind of defect that covers more than three pixels of the cell, else 0."""
    share = avg_pool2d((defects > 0).float()[:, None], cell)[:, 0]
    kind = max_pool2d(defects.float()[:, None], cell)[:, 0].long()
    return torch.where(share * cell**2 > 3, kind, 0)


def _alike(
    rows: torch.Tensor, surfaces: torch.Tensor, cell: int, group: nn.Module, random: torch.Generator
) -> torch.Tensor:
    """Cells of one surface shall be alike, wherever they lie and whatever the light, cells of others not (SupCon)."""
    labels, pure = _surface_cells(surfaces, cell)
    where = pure.repeat(len(rows) // len(labels), 1, 1).nonzero()
    where = where[torch.randperm(len(where), generator=random, device=where.device)[:CELLS]].unbind(1)
    labels = labels.repeat(len(rows) // len(labels), 1, 1)[where]
    points = normalize(group(rows[where]).float(), dim=1)
    likeness = points @ points.T / TEMPERATURE
    likeness.fill_diagonal_(-1e4)
    same = (labels[:, None] == labels[None]).float().fill_diagonal_(0)
    share = likeness - likeness.logsumexp(1, keepdim=True)
    own = same.sum(1)
    return -((share * same).sum(1) / own.clamp(min=1))[own > 0].mean()


def _contrast(
    rows: torch.Tensor,
    altered: torch.Tensor,
    cell: int,
    stand: Stand | None,
    project: nn.Module,
    random: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Two losses over the two photographs of each scene, (2 · n, h, w, c) one half after the other.

    InfoNCE: a cell of one photograph against eight places of every second photograph, its own among them. And for cells
    ``altered`` (n, h, w) in the second photograph: a likeness to themselves above 0.3 costs.
    """
    points = project(rows).float()
    first, second = points.flatten(1, 2).chunk(2)
    seen = torch.ones_like(altered.flatten(1), dtype=torch.bool)
    if stand is not None:
        # A ResNet's cell i looks at pixel cell · i: kernels are odd and padded by half.
        side = rows.shape[1]
        along = (torch.arange(side, device=rows.device) * cell + 0.5) / (side * cell) * 2 - 1
        centres = torch.stack(torch.meshgrid(along, along, indexing="xy"), -1).flatten(0, 1)
        found = stand.find(centres)
        seen = found.abs().amax(2) < 1 - 1 / side
        offset = (cell - 1) / (side * cell)  # from looked-at pixels to grid_sample's cells
        second = points[len(points) // 2 :].permute(0, 3, 1, 2)
        second = grid_sample(second, (found + offset)[:, None], align_corners=False)[:, :, 0].transpose(1, 2)
    first, second = normalize(first, dim=2), normalize(second, dim=2)
    altered = altered.flatten(1)
    dull = altered | ~seen
    order = (torch.rand(dull.shape, generator=random, device=rows.device) + dull).argsort(1)[:, :8, None]
    picked = [half.gather(1, order.expand(-1, -1, half.shape[-1])).flatten(0, 1) for half in (first, second)]
    likeness = picked[0] @ picked[1].T / TEMPERATURE
    own = torch.arange(len(likeness), device=rows.device)
    same = (first * second).sum(2)[altered & seen]
    changed = softplus((same - 0.3) / TEMPERATURE).mean() if len(same) else points.sum() * 0
    return (cross_entropy(likeness, own) + cross_entropy(likeness.T, own)) / 2, changed
