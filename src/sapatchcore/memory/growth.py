"""A bank that takes in more images, or gives one up, without being chosen anew.

A patch is added only where it lies farther from the bank than the covering radius, the farthest of a new image's patches
first (Gonzalez 1985), so that afterwards every patch ever learned from, old or new, lies within the radius of a row. All
of this in the random projection in which the bank was chosen: there the radius is the coreset's own guarantee.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from sapatchcore.embed.patches import Patches
from sapatchcore.errors import DataError
from sapatchcore.memory.bank import Bank
from sapatchcore.memory.coreset import Projection
from sapatchcore.memory.search.brute_force import nearest
from sapatchcore.memory.training import TrainingImage, pictured


class Growth:
    """A bank while images are added to it."""

    def __init__(self, bank: Bank, projection: Projection) -> None:
        """projection: the one in which the bank was chosen."""
        self._bank, self._projection = bank, projection
        self._projected = [projection.of_rows(bank.rows)]  # of the bank and, one (1, d) each, of what was added
        self._rows: list[torch.Tensor] = []  # (d,) each
        self._images: list[int] = []
        self._cells: list[int] = []
        self._training = list(bank.training)

    @property
    def images(self) -> int:
        """How many were added."""
        return len(self._training) - len(self._bank.training)

    @torch.inference_mode()
    def add(self, patches: Patches, training: Sequence[TrainingImage]) -> None:
        """Take n more images in: ``patches`` of them, and what is kept of each."""
        projected = self._projection(patches).unflatten(0, (len(training), -1))
        for number, (points, image) in enumerate(zip(projected, training, strict=True)):
            projected_bank = torch.cat(self._projected)
            self._projected = [projected_bank]
            distance = nearest(points, projected_bank)[0][:, 0]
            while float(distance.max()) > self._bank.radius:
                pick = int(distance.argmax())
                self._projected.append(points[pick, None])
                self._rows.append(torch.cat((patches.local[number, pick], patches.context[number, patches.cell[pick]])))
                self._images.append(len(self._training))
                self._cells.append(pick)
                distance = torch.minimum(distance, (points - points[pick]).square().sum(1).sqrt())
            self._training.append(image)

    def bank(self) -> Bank:
        """The bank with all that was added, behind its old rows."""
        old = self._bank
        images = torch.cat((old.images, torch.tensor(self._images, dtype=torch.int64)))
        return replace(
            old,
            rows=torch.cat((old.rows, torch.stack(self._rows))) if self._rows else old.rows,
            images=images,
            cells=torch.cat((old.cells, torch.tensor(self._cells, dtype=torch.int64))),
            training=pictured(self._training, images),
        )


def fewest_left(bank: Bank) -> int:
    """The rows that are left when the training image with the most of them, its copies', too, is left out."""
    return len(bank.rows) - int(bank.owners[1].max())


def without_image(bank: Bank, number: int, projection: Projection) -> Bank:
    """The bank less the patches of training image ``number``; the images behind it move up by one.

    A patch that had its nearest row r there is within |r − r'| more of the nearest row r' that is left: by that
    ``loosened`` grows. Raises DataError where no row would be left.
    """
    removed = bank.images == number
    if bool(removed.all()):
        raise DataError(
            f"All {len(removed)} patches of the memory bank come from {bank.training[number].name}: without it nothing is known. "
            "Fit a new model instead."
        )
    there = removed.to(bank.rows.device)
    loosened = bank.loosened
    if bool(removed.any()):
        rows = projection.of_rows(bank.rows)
        loosened += float(nearest(rows[there], rows[~there])[0].max())
    images = bank.images[~removed]
    return replace(
        bank,
        rows=bank.rows[~there],
        images=torch.where(images > number, images - 1, images),
        cells=bank.cells[~removed],
        training=(*bank.training[:number], *bank.training[number + 1 :]),
        loosened=loosened,
        global_part=None if bank.global_part is None else bank.global_part.without_image(number),
    )
