"""A report's records: what CSV, JSON and page have in common, and their order."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sapatchcore.errors import DataError
from sapatchcore.show import report_rows
from sapatchcore.show.report_rows import mistake, report_csv, shown, worst_first
from sapatchcore.show.report_rows import report_rows as rows_of


class TestRows:
    def test_one_record_an_image(self, made: Any) -> None:
        rows = rows_of(made.detector, made.dataset, made.evaluation)
        result = made.evaluation.result
        verdicts = result.verdicts()
        json.dumps(rows, allow_nan=False)
        for index, (row, verdict) in enumerate(zip(rows, verdicts, strict=True)):
            assert list(row) == list(report_rows.COLUMNS)
            assert row["path"] == result.paths[index]
            assert row["label"] == made.evaluation.labels[index]
            assert row["verdict"] == ("reject" if verdict.rejected else "accept")
            assert (row["score"], row["p_value"], row["kind"]) == (verdict.score, verdict.p_value, verdict.kind)
            assert row["reason"] == verdict.sentence
            assert row["ratio"] == pytest.approx(verdict.score / verdict.threshold)
            assert row["local_share"] + row["context_share"] == pytest.approx(1)
            assert row["local_share"] == pytest.approx(verdict.local_share), (
                "of the patches' score, not of the fused one"
            )
            assert row["global_score"] == pytest.approx(verdict.global_score)
            assert row["global_ratio"] == pytest.approx(verdict.global_ratio, rel=1e-5)
            assert row["good_image"] in made.detector.provenance[0]
            regions = result.regions(index)[:3]
            assert [tuple(one["box"]) for one in row["regions"]] == [one.box for one in regions]
            assert [one["area"] for one in row["regions"]] == [one.area for one in regions]

    def test_without_calibration(self, made: Any) -> None:
        evaluation = replace(made.evaluation, result=replace(made.evaluation.result, calibration=None))
        rows = rows_of(made.detector, made.dataset, evaluation)
        assert {row["verdict"] for row in rows} == {None}
        assert all(row["score"] > 0 for row in rows)
        assert {row["global_ratio"] for row in rows} == {None}
        result = replace(evaluation.result, global_scores=None, global_patches=None)
        rows = rows_of(made.detector, made.dataset, replace(evaluation, result=result))
        assert {row["global_score"] for row in rows} == {None}
        json.dumps(rows, allow_nan=False)

    def test_csv_says_the_same(self, made: Any) -> None:
        rows = rows_of(made.detector, made.dataset, made.evaluation)
        found = list(csv.DictReader(io.StringIO(report_csv(rows))))
        assert len(found) == len(rows)
        for flat, row in zip(found, rows, strict=True):
            assert flat["path"] == row["path"]
            assert float(flat["score"]) == row["score"]
            assert float(flat["global_score"]) == row["global_score"]
            assert json.loads(flat["regions"]) == row["regions"]
            assert flat["good_box"] == " ".join(map(str, row["good_box"]))

    def test_files(self, tmp_path: Path, made: Any) -> None:
        rows = rows_of(made.detector, made.dataset, made.evaluation)
        parts = (made.detector, made.dataset, made.evaluation)
        report_rows.write_rows(*parts, csv_file=tmp_path / "a" / "r.csv", json_file=tmp_path / "r.json")
        assert (tmp_path / "a" / "r.csv").read_bytes().decode() == report_csv(rows)
        found = json.loads((tmp_path / "r.json").read_text())
        assert found["verdicts"] == json.loads(json.dumps(rows))
        assert found["image_auroc"] == made.evaluation.image_auroc
        report_rows.write_rows(*parts)
        assert sorted(one.name for one in tmp_path.iterdir()) == ["a", "r.json"]
        with pytest.raises(DataError, match="another file with `csv_file`"):
            report_rows.write_rows(*parts, csv_file=tmp_path / "r.json" / "r.csv")


class TestOrder:
    def result(self, scores: list[float]) -> Any:
        return SimpleNamespace(scores=np.array(scores, np.float32))

    def test_worst_first(self) -> None:
        labels = ["good", "good", "good", "dent", "dent", "dent"]
        scores = [1.0, 9.0, 5.5, 4.0, 9.0, 5.0]
        wrong = [mistake(score > 5, label) for score, label in zip(scores, labels, strict=True)]
        assert wrong == ["", "false reject", "false reject", "missed defect", "", "missed defect"]
        # The false reject by 4, the missed by 1, the false reject by ½, the missed by 0; then what is right, nearest first.
        assert worst_first(self.result(scores), labels, wrong, 5.0) == [1, 3, 2, 5, 0, 4]

    def test_without_threshold(self) -> None:
        assert worst_first(self.result([1.0, 3.0, 2.0]), ["good"] * 3, [""] * 3, None) == [1, 2, 0]

    def test_large_sets_keep_every_mistake(self) -> None:
        wrong = ["" if index % 10 else "missed defect" for index in range(100)]
        found = shown(wrong, 40)
        assert len(found) == 40
        assert set(range(0, 100, 10)) <= set(found)
        assert found == sorted(set(found))
        others = np.diff([index for index in found if index % 10])
        assert others.max() <= 2 * others.mean() + 1
        assert shown(wrong, 5) == list(range(0, 100, 10))
        assert shown(wrong, 1000) == list(range(100))
