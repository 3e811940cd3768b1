"""The generated parts of docs/scale.md and docs/search.md; a part whose result is not measured yet is empty."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import scale_summary
import search_summary

RESULTS = Path(__file__).parent / "results"
Rows = list[tuple[str, ...]]


def scale(results: Path = RESULTS) -> dict[str, str]:
    """Of docs/scale.md, by the name in their marks."""
    shares, grown = measured("shares", results), measured("scale", results)
    parts = dict.fromkeys(("shares", "growth", "extrapolated"), "")
    if shares is not None:
        told = scale_summary.shares_conditions(shares["results"], shares["arguments"])
        parts["shares"] = f"{told}\n\n{lines(scale_summary.SHARES_HEAD, scale_summary.shares_rows(shares['results']))}"
    if grown is not None:
        found = grown["results"]
        told = scale_summary.conditions(found, grown["environment"])
        times = lines(scale_summary.GROWTH_HEAD, scale_summary.growth_rows(found))
        command = measured("scale_command", results) or {"results": {"runs": []}}
        taken = lines(scale_summary.taken_head(found), scale_summary.taken_rows(found, command["results"]))
        parts["growth"] = f"{told}\n\n{times}\n\n{taken}"
        if "1" in found["growth"]:
            told = scale_summary.assumptions(found)
            rows = scale_summary.extrapolated_rows(found)
            parts["extrapolated"] = f"{told}\n\n{lines(scale_summary.EXTRAPOLATED_HEAD, rows)}"
    return parts


def search(results: Path = RESULTS) -> dict[str, str]:
    """Of docs/search.md, by the name in their marks."""
    content = measured("search", results)
    if content is None:
        return {"search": ""}
    found = content["results"]
    parts = [search_summary.conditions(found), "", lines(search_summary.HEAD, search_summary.search_rows(found))]
    pays = [(name, search_summary.pays_from(found, name)) for name in ("float16", "int8", "faiss")]
    told = [f"{name} from {rows:,} patches on" for name, rows in pays if rows is not None]
    parts += ["", f"Faster than exact in this run: {', '.join(told) or 'none'}."]
    if "image_auroc" in found:
        parts += [
            "",
            search_summary.auroc_conditions(found),
            "",
            lines(search_summary.AUROC_HEAD, search_summary.auroc_rows(found)),
        ]
    return {"search": "\n".join(parts)}


def measured(name: str, results: Path) -> dict[str, Any] | None:
    """A result's content, None where it is not measured yet."""
    path = results / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def lines(head: tuple[str, ...], rows: Rows) -> str:
    cells = [f"| {' | '.join(row)} |" for row in (head, *rows)]
    return "\n".join([cells[0], "|---" * len(head) + "|", *cells[1:]])
