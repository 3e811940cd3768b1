"""The table of recipes in docs/builtin-backbone.md, from results/recipes.json (tools/pretrain/evaluate.py writes it)."""

from __future__ import annotations

import statistics
from typing import Any

Row = tuple[str, ...]
HEAD = ("network", "model", "made sets, mean")


def recipe_rows(found: dict[str, Any]) -> tuple[Row, list[Row]]:
    """Heads and rows: image AUROC of each network, both models; the made sets as one mean, the real ones each."""
    first = next(iter(found.values()))
    made = [name for name in first if name.startswith("made-")]
    real = [name for name in first if name not in made]
    rows = []
    for network, sets in found.items():
        for attention, model in (("none", "PatchCore"), ("self", "SA-PatchCore")):
            values = [sets[name][attention] for name in real]
            cells = [statistics.fmean(sets[name][attention] for name in made), *values, statistics.fmean(values)]
            rows.append((_name(network), model, *(f"{value:.3f}" for value in cells)))
    return (*HEAD, *real, "real sets, mean"), rows


def _name(network: str) -> str:
    if network.startswith("random:"):
        return f"{network.removeprefix('random:')}, random weights"
    return network.removesuffix("/weights.safetensors").removesuffix(".safetensors")
