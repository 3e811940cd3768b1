"""The three result tables of MVTec AD, in the order in which they are always printed, as text, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, JustifyMethod
from rich.rule import Rule
from rich.table import Table as RichTable

from sapatchcore.verify.evaluate import Evaluation

MVTEC_AD = (
    "carpet", "grid", "leather", "tile", "wood", "bottle", "cable", "capsule", "hazelnut", "metal_nut", "pill", "screw",
    "toothbrush", "transistor", "zipper",
)  # fmt: skip
TABLES = {"Image-Level AUC": "image_auroc", "Pixel-Level AUC": "pixel_auroc", "Pixel F1 Score": "pixel_f1"}
MODELS = {"self": "SA-PatchCore", "none": "PatchCore"}
NOT_RUN = "–"


@dataclass(frozen=True)
class Run:
    """One model fitted and scored on one category with one seed; figures: as Evaluation.to_dict gives them."""

    model: str
    category: str
    seed: int
    figures: dict[str, Any]


@dataclass(frozen=True)
class Table:
    """title; columns: "Avg" and the categories; rows: (model, cells), a cell (mean, spread) over the seeds or None."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[float, float] | None, ...]], ...]


def result_tables(runs: Sequence[Run]) -> list[Table]:
    """The three tables. Avg is over the categories that ran; what did not run, or has no ground truth, is None."""
    found = list(dict.fromkeys(run.category for run in runs))
    others = sorted(name for name in found if name not in MVTEC_AD)
    categories = [*(MVTEC_AD if any(name in MVTEC_AD for name in found) else ()), *others]
    models = list(dict.fromkeys(run.model for run in runs))
    return [
        Table(
            title,
            ("Avg", *(name.replace("_", " ").title() if name in MVTEC_AD else name for name in categories)),
            tuple((model, _row(runs, model, categories, figure)) for model in models),
        )
        for title, figure in TABLES.items()
    ]


def as_text(tables: Sequence[Table]) -> str:
    """Aligned columns for a terminal of any width: one line a category, one column a model."""
    parts = []
    for table in tables:
        head = (table.title, *(model for model, _ in table.rows))
        body = [(column, *(_cell(cells[i]) for _, cells in table.rows)) for i, column in enumerate(table.columns)]
        rule = [Rule(style="none") for _ in head]
        parts.append(_aligned([head, rule, *body], "right"))
    return "\n\n".join(parts) + "\n"


def as_markdown(tables: Sequence[Table]) -> str:
    """Three Markdown tables, one row a model, columns in README's order."""
    parts = []
    for table in tables:
        header = f"| | {' | '.join(table.columns)} |"
        rule = "|---" * (len(table.columns) + 1) + "|"
        rows = [f"| {model} | {' | '.join(_cell(cell) for cell in cells)} |" for model, cells in table.rows]
        parts.append("\n".join([f"**{table.title}**", "", header, rule, *rows]))
    return "\n\n".join(parts) + "\n"


def as_csv(tables: Sequence[Table]) -> str:
    """Long form: table, model, column, mean, spread (standard deviation over the seeds)."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("table", "model", "column", "mean", "spread"))
    for table in tables:
        for model, cells in table.rows:
            for column, cell in zip(table.columns, cells, strict=True):
                writer.writerow((table.title, model, column, *(cell if cell is not None else ("", ""))))
    return out.getvalue()


def as_json(tables: Sequence[Table], runs: Sequence[Run]) -> dict[str, Any]:
    """JSON-ready: the tables' means and spreads, and every run with all its figures."""
    return {
        "tables": {
            table.title: {
                model: {
                    column: None if cell is None else {"mean": cell[0], "spread": cell[1]}
                    for column, cell in zip(table.columns, cells, strict=True)
                }
                for model, cells in table.rows
            }
            for table in tables
        },
        "runs": [{"model": run.model, "category": run.category, "seed": run.seed, **run.figures} for run in runs],
    }


def evaluation_text(evaluation: Evaluation, false_reject: float | None = None) -> str:
    """One category's figures, aligned, for a terminal; what is undefined with its reason.

    false_reject: of the promised threshold, as of Result.threshold.
    """
    pixel = evaluation.pixel
    counts = f"{len(evaluation.labels)} test images"
    lines: list[tuple[str, float | str, str]] = [
        (f"{evaluation.category} ({evaluation.layout})", counts, ""),
        ("Image AUROC", evaluation.image_auroc, "image_auroc"),
        *((f"  {defect}", value, "") for defect, value in evaluation.per_defect_auroc.items()),
        ("Image average precision", evaluation.average_precision, "average_precision"),
        ("Image F1, best", evaluation.image_f1, "image_f1"),
        ("Pixel AUROC", pixel.auroc, "pixel_auroc"),
        ("Pixel F1, best", pixel.f1, "pixel_f1"),
        ("AUPRO to FPR 0.3", pixel.aupro, "aupro"),
    ]
    for kind, areas in evaluation.spro.items():
        lines += [(f"sPRO to FPR {limit}, {kind}", area, "") for limit, area in areas.items()]
    if evaluation.outside > 0:
        lines.append(("Defective pixels outside the crop", f"{evaluation.outside:.1%}", ""))
    for decisions in (evaluation.promised(false_reject), evaluation.best_of_labels):
        if decisions is not None and decisions.image is not None:
            rate = decisions.false_reject
            made = f"best F-beta, from {decisions.source}" if rate is None else f"promised false rejects {rate:.2%}"
            lines.append(("Threshold", f"{decisions.image:.6g} ({made})", ""))
            lines += [(f"  {label} rejected", f"{n} of {of}", "") for label, (n, of) in decisions.rejected.items()]
    rows = [(name, _figure(value, evaluation.reasons.get(key, ""))) for name, value, key in lines]
    return _aligned(rows, "left")


def _aligned(rows: Sequence[Sequence[str | Rule]], others: JustifyMethod) -> str:
    """Rows of cells as lines, columns two blanks apart and as wide as they need; others: how all but the first align."""
    grid = RichTable.grid(padding=(0, 2), pad_edge=False)
    for column in range(len(rows[0])):
        grid.add_column(justify=others if column else "left", no_wrap=True)
    for row in rows:
        grid.add_row(*row)
    out = io.StringIO()
    # As wide as no table is: nothing is wrapped or cut, whatever the terminal. A name is text, no markup.
    Console(file=out, width=10_000, color_system=None, markup=False, emoji=False, highlight=False).print(grid)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _figure(value: float | str, reason: str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.4f}" if math.isfinite(value) else f"{NOT_RUN}  ({reason})"


def _row(
    runs: Sequence[Run], model: str, categories: Sequence[str], figure: str
) -> tuple[tuple[float, float] | None, ...]:
    cells = []
    for category in categories:
        values = [run.figures[figure] for run in runs if run.model == model and run.category == category]
        cells.append(_over([value for value in values if value is not None]))
    means = [cell[0] for cell in cells if cell is not None]
    if not means:
        return (None, *cells)
    by_seed: dict[int, list[float]] = {}
    for run in runs:
        if run.model == model and run.figures[figure] is not None:
            by_seed.setdefault(run.seed, []).append(run.figures[figure])
    spread = _over([statistics.fmean(values) for values in by_seed.values()])
    return ((statistics.fmean(means), spread[1] if spread else math.nan), *cells)


def _over(values: Sequence[float]) -> tuple[float, float] | None:
    """Mean and standard deviation over the seeds (0 for one seed)."""
    if not values:
        return None
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def _cell(cell: tuple[float, float] | None) -> str:
    if cell is None:
        return NOT_RUN
    return f"{cell[0]:.4f} ± {cell[1]:.4f}" if cell[1] else f"{cell[0]:.4f}"
