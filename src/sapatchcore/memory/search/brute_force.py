"""The k nearest patches of the memory bank by comparing every query with every row (paper step 7).

A block of the bank at a time, so that the whole matrix of distances is never stored. Rows can be left out by their *group*, so
that a training image is compared with the bank without its own patches.
"""

from __future__ import annotations

import torch

from sapatchcore.errors import SettingsError

MOST_NEIGHBOURS = 9
BLOCK = 4096  # rows of the bank in one matrix product
QUERIES = 8192  # queries at a time


@torch.inference_mode()
def nearest(
    queries: torch.Tensor,
    bank: torch.Tensor,
    k: int = 1,
    excluded: torch.Tensor | None = None,
    groups: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The k nearest rows of ``bank`` for each query, nearest first, exactly.

    Args:
        queries: (q, d) float32. bank: (m, d) float32 on the same device.
        k: 1 to 9, at most m; where groups are excluded, at most the rows that are left for every query.
        excluded: (q,) int64, the group whose rows do not count for a query. groups: (m,) int64, of the rows; with ``excluded``.

    Returns:
        distances (q, k) float32, Euclidean, from the differences themselves (a row of the bank has distance 0), and
        indices (q, k) int64.

    Raises:
        SettingsError: ``k`` is outside its range.
    """
    most = min(MOST_NEIGHBOURS, len(bank))
    if not 1 <= k <= most:
        raise SettingsError(f"k must be in 1 to {most} for a memory bank of {len(bank)} patches. Got {k}.")
    mean = bank.mean(0)
    out = [None] * -(-len(queries) // QUERIES) if excluded is None else excluded.split(QUERIES)
    parts = zip(queries.split(QUERIES), out, strict=True)
    found = torch.cat([_nearest(rows - mean, bank, mean, k, away, groups) for rows, away in parts])
    distances = _distances(queries, bank, found)
    distances, order = distances.sort(dim=1, stable=True)  # the products' rounding may have swapped near-ties
    return distances, found.gather(1, order)


def _nearest(
    queries: torch.Tensor,
    bank: torch.Tensor,
    mean: torch.Tensor,
    k: int,
    excluded: torch.Tensor | None = None,
    groups: torch.Tensor | None = None,
) -> torch.Tensor:
    best = queries.new_full((len(queries), k), torch.inf)
    found = torch.zeros(len(queries), k, dtype=torch.int64, device=queries.device)
    for start in range(0, len(bank), BLOCK):
        rows = bank[start : start + BLOCK] - mean
        # |q − b|² without |q|², which does not change the order.
        squared = torch.addmm(rows.square().sum(1), queries, rows.T, alpha=-2)
        if excluded is not None and groups is not None:
            squared.masked_fill_(groups[start : start + BLOCK] == excluded[:, None], torch.inf)
        values, indices = squared.topk(min(k, len(rows)), dim=1, largest=False)
        best, order = torch.cat((best, values), dim=1).topk(k, dim=1, largest=False)
        found = torch.cat((found, indices + start), dim=1).gather(1, order)
    return found


def _distances(queries: torch.Tensor, bank: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
    """(q, k) Euclidean distances to the rows ``found``, from the differences."""
    columns = []
    for column in found.unbind(1):
        parts = zip(queries.split(QUERIES), column.split(QUERIES), strict=True)
        columns.append(torch.cat([(q - bank[i]).square_().sum(1).sqrt_() for q, i in parts]))
    return torch.stack(columns, dim=1)
