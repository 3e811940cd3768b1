"""The three result tables, as text, Markdown, CSV and JSON."""

from __future__ import annotations

import pytest

from sapatchcore.verify.tables import Run, as_csv, as_json, as_markdown, as_text, result_tables


def test_tables_average_over_what_ran() -> None:
    def one(model: str, name: str, seed: int, value: float | None) -> Run:
        return Run(model, name, seed, {"image_auroc": value, "pixel_auroc": None, "pixel_f1": 0.5})

    runs = [
        one("SA-PatchCore", "screw", 0, 0.6),
        one("SA-PatchCore", "screw", 1, 0.8),
        one("SA-PatchCore", "grid", 0, 0.9),
    ]
    image, pixel, _ = tables = result_tables(runs)
    assert image.columns[0] == "Avg"
    assert image.columns[1:4] == ("Carpet", "Grid", "Leather")
    (_, cells) = image.rows[0]
    assert cells[0] is not None
    assert cells[0][0] == pytest.approx((0.7 + 0.9) / 2)
    assert cells[image.columns.index("Screw")] == pytest.approx((0.7, 0.1 * 2**0.5))
    assert cells[image.columns.index("Zipper")] is None
    assert all(cell is None for cell in pixel.rows[0][1])
    assert "0.7000 ± 0.1414" in as_markdown(tables)
    lines = as_text(tables).splitlines()
    assert lines[:3] == [
        "Image-Level AUC     SA-PatchCore",
        "───────────────  ───────────────",
        "Avg              0.8000 ± 0.0354",  # 0.75 with seed 0, 0.8 with seed 1
    ]
    assert "Image-Level AUC,SA-PatchCore,Zipper,," in as_csv(tables)
    assert as_json(tables, runs)["tables"]["Image-Level AUC"]["SA-PatchCore"]["Zipper"] is None
