"""The report's content and errors, on small made images; how it behaves in a browser is tested beside it."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sapatchcore import SAPatchCore
from sapatchcore.datasets.samples import Dataset, Sample
from sapatchcore.errors import DataError, SettingsError
from sapatchcore.show import report
from sapatchcore.show.report import WrittenReport, write_report
from sapatchcore.show.report_figures import Count, _realised, percent
from sapatchcore.show.report_rows import explained, report_csv, report_rows
from sapatchcore.verify.evaluate import Evaluation, evaluate_result

SECONDS = {"score": 1.25}


class Page(HTMLParser):
    """Every start tag with its attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def written(tmp_path: Path, made: Any, **options: Any) -> tuple[WrittenReport, str]:
    path = tmp_path / "report.html"
    parts = {"detector": made.detector, "dataset": made.dataset, "evaluation": made.evaluation, **options}
    found = write_report(path, **{"seconds": SECONDS, **parts})
    return found, path.read_text(encoding="utf-8")


def subset(made: Any, keep: list[int], *, masks: bool = True) -> tuple[Dataset, Evaluation]:
    """The data set and evaluation of some of the test images."""
    samples = tuple(made.dataset.test[index] for index in keep)
    if not masks:
        samples = tuple(Sample(one.path, one.label, () if one.is_good else None) for one in samples)
    dataset = replace(made.dataset, test=samples)
    whole = made.evaluation.result
    picked: dict[str, Any] = {
        name: tuple(getattr(whole, name)[index] for index in keep) for name in ("paths", "sizes", "appearance")
    }
    for name in (
        "scores",
        "local_scores",
        "context_scores",
        "patch_scores",
        "local_patches",
        "context_patches",
        "neighbours",
        "global_scores",
        "global_patches",
    ):
        picked[name] = getattr(whole, name)[keep]
    return dataset, evaluate_result(replace(whole, **picked), dataset)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, made: Any) -> tuple[WrittenReport, str]:
    """The report of ``made`` as it is, and its text."""
    return written(tmp_path_factory.mktemp("plain"), made)


class TestPage:
    def test_what_was_written(self, plain: tuple[WrittenReport, str], made: Any) -> None:
        found, text = plain
        assert found.path.name == "report.html"
        assert found.bytes == found.path.stat().st_size == len(text.encode())
        assert (found.images, found.shown) == (9, 9)
        result, labels = made.evaluation.result, made.evaluation.labels
        wrong = sum(
            (s > result.threshold()) != (label != "good") for s, label in zip(result.scores, labels, strict=True)
        )
        assert found.mistakes == wrong

    def test_sections_in_order(self, plain: tuple[WrittenReport, str]) -> None:
        _, text = plain
        page = Page(text)
        marks = [
            "Inspection report: parts", "Data set", "Model", "Verdicts", "false reject", "Threshold from good images.",
            "Promised: at most", "has seen labels", "Image-Level AUC", "Pixel-Level AUC", "Pixel F1 Score",
            "Image-level AUC of each defect", "95 % interval", "Scores", "ROC", "Precision and recall", "Per-region overlap",
            "Images", "showing 9 of 9", "Model, settings and versions", "Covering radius", "Calibration", "Settings",
            "coreset_ratio", "Versions", "torch", "Time", "1.2 s",
        ]  # fmt: skip
        at = 0
        for mark in marks:
            assert mark in page.text[at:], mark
            at = page.text.index(mark, at)

    def test_verdict_table_counts(self, plain: tuple[WrittenReport, str], made: Any) -> None:
        _, text = plain
        table = text[text.index('<table class="verdicts">') : text.index("</table>")]
        rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in table.split("<tr")[2:]]
        result, names = made.evaluation.result, np.array(made.evaluation.labels)
        rejected = result.scores > result.threshold()
        counted = {}
        for row in rows:
            counted[html.unescape(row[0])] = tuple(int(cell) for cell in row[1:4])
        expected = {}
        for label, where in {
            "good": names == "good", "defective": names != "good", "dent": names == "dent", "</script>": names == "</script>",
        }.items():  # fmt: skip
            found = int(rejected[where].sum())
            expected[label] = (int(where.sum()), int(where.sum()) - found, found)
        assert counted == expected

    def test_a_card_an_image(self, plain: tuple[WrittenReport, str]) -> None:
        _, text = plain
        page = Page(text)
        cards = [attributes for tag, attributes in page.tags if tag == "li" and "card" in (attributes["class"] or "")]
        assert len(cards) == 9
        assert len({card["id"] for card in cards}) == 9
        images = [attributes for tag, attributes in page.tags if tag == "img"]
        assert all(image["alt"] and (image["src"] or "").startswith("data:image/webp;base64,") for image in images)
        # Five panels a card, and at least the patch, the good one, where it is from, and the context's places.
        assert len(images) >= 9 * (5 + 4) + 1
        assert len(re.findall(r"global score <b>[0-9.]+</b>, <b>[0-9.]+×</b> of usual", text)) == 9

    def test_nothing_comes_from_elsewhere(self, plain: tuple[WrittenReport, str]) -> None:
        _, text = plain
        page = Page(text)
        policy = next(dict(a)["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
        assert (policy or "").startswith(
            "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
        )
        for tag, attributes in page.tags:
            for name in ("src", "href", "xlink:href", "srcset", "poster", "action", "data"):
                value = attributes.get(name) or ""
                assert not value or value.startswith(("data:", "#")), (tag, value[:80])
            assert not [name for name in attributes if name.startswith("on")]
        assert "@import" not in text
        assert not re.search(r"url\((?!#)", text)
        assert ("html", {"lang": "en"}) in page.tags

    def test_hostile_names_are_text(self, plain: tuple[WrittenReport, str]) -> None:
        _, text = plain
        page = Page(text)
        assert [tag for tag, _ in page.tags].count("script") == 2
        assert text.count("</script>") == 2
        assert not [1 for tag, attributes in page.tags if tag == "img" and attributes.get("src") == "x"]
        assert "dent/<img src=x onerror=alert(1)>.png" in page.text
        records = json.loads(re.findall(r'id="records">(.*?)</script>', text, re.DOTALL)[0])
        assert {record["label"] for record in records} == {"good", "dent", "</script>"}

    def test_same_input_same_bytes(self, tmp_path: Path, plain: tuple[WrittenReport, str], made: Any) -> None:
        assert written(tmp_path, made)[1] == plain[1]

    def test_date_is_the_callers(self, tmp_path: Path, plain: tuple[WrittenReport, str], made: Any) -> None:
        assert "<dt>Date</dt>" not in plain[1]
        assert "<dd>1 May</dd>" in written(tmp_path, made, date="1 May")[1]

    def test_rate_is_used(self, tmp_path: Path, made: Any) -> None:
        _, text = written(tmp_path, made, false_reject=0.5)
        assert f"The threshold {made.evaluation.result.threshold(0.5):.4g}" in text
        assert "about 50\N{NO-BREAK SPACE}% are rejected" in text

    def test_explanations_at_hand_are_used(
        self, tmp_path: Path, plain: tuple[WrittenReport, str], made: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        result = made.evaluation.result
        reasons = explained(made.detector, result, range(len(result)), None)
        monkeypatch.setattr(report, "explained", None)
        assert written(tmp_path, made, explanations=reasons)[1] == plain[1]

    def test_progress(self, tmp_path: Path, made: Any) -> None:
        told: list[tuple[str, int, int | None]] = []
        written(tmp_path, made, progress=lambda *stage: told.append(stage))
        assert ("explain", 9, 9) in told
        assert told[-9:] == [("report", done, 9) for done in range(1, 10)]

    @pytest.mark.parametrize(
        ("share", "text"),
        [(0, "0 %"), (0.01234, "1.23 %"), (1, "100 %"), (1e-5, "0.001 %"), (1e-9, "less than 0.001 %")],
    )
    def test_percent(self, share: float, text: str) -> None:
        assert percent(share).replace("\N{NO-BREAK SPACE}", " ") == text

    def test_chance_of_so_many_false_rejects(self, made: Any) -> None:
        # Of 1 calibration image and the rate ½, a good image is rejected if it is the larger of two: ½. Of two good ones
        # both are, if they are the two largest of three: the calibration image is the smallest, 1/3.
        calibration = made.evaluation.result.calibration
        one = type(calibration)(
            **{
                name: getattr(calibration, name)[:1]
                if name not in ("source", "image_score", "neighbors")
                else getattr(calibration, name)
                for name in calibration.__dataclass_fields__
            }
        )
        result = replace(made.evaluation.result, calibration=one)
        words = _realised(replace(made.evaluation, result=result), (Count("good", 2, 2),), 0.5)
        assert "here 2 of 2" in words
        assert "as many or more occur in 33.3" in words

    def test_a_sample_of_a_large_set_is_said(self, tmp_path: Path, made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(report, "IMAGES", 5)
        found, text = written(tmp_path, made)
        assert found.shown == max(5, found.mistakes or 0)
        assert f"The gallery shows {found.shown} of 9 test images: all {found.mistakes} mistakes" in Page(text).text


class TestAbsent:
    def test_without_calibration(self, tmp_path: Path, made: Any) -> None:
        evaluation = replace(made.evaluation, result=replace(made.evaluation.result, calibration=None))
        found, text = written(tmp_path, made, evaluation=evaluation)
        words = Page(text).text
        assert found.mistakes is None
        assert "There are no verdicts" in words
        assert "REJECT" not in words
        assert "p-value" not in words
        assert "has seen labels" in words
        assert 'name="verdict"' not in text
        scores = [
            record["score"] for record in json.loads(re.findall(r'id="records">(.*?)</script>', text, re.DOTALL)[0])
        ]
        assert scores == sorted(scores, reverse=True)
        assert 'class="causes"' not in text

    def test_without_defects(self, tmp_path: Path, made: Any) -> None:
        keep = [index for index, label in enumerate(made.evaluation.labels) if label == "good"]
        dataset, evaluation = subset(made, keep)
        _, text = written(tmp_path, made, dataset=dataset, evaluation=evaluation)
        words = Page(text).text
        assert "no defective test image: nothing is known of missed defects" in words
        assert "There is no defective test image." in words
        assert "AUROC is not defined without positives" in words
        assert words.count("Not drawn:") == 3
        assert "has seen labels" not in words

    def test_without_good_images(self, tmp_path: Path, made: Any) -> None:
        keep = [index for index, label in enumerate(made.evaluation.labels) if label != "good"]
        dataset, evaluation = subset(made, keep)
        _, text = written(tmp_path, made, dataset=dataset, evaluation=evaluation)
        words = Page(text).text
        assert "no good test image" in words
        assert "AUROC is not defined without negatives (label 0, good)" in words

    def test_without_masks(self, tmp_path: Path, made: Any) -> None:
        dataset, evaluation = subset(made, list(range(9)), masks=False)
        _, text = written(tmp_path, made, dataset=dataset, evaluation=evaluation)
        assert "ground truth not known" in text
        assert "not defined: no ground-truth masks" in Page(text).text
        assert "ground truth dashed" not in text

    def test_single_image_of_a_defect_has_no_interval(self, tmp_path: Path, made: Any) -> None:
        labels = made.evaluation.labels
        keep = [index for index, label in enumerate(labels) if label != "</script>"] + [labels.index("</script>")]
        dataset, evaluation = subset(made, keep)
        assert (
            "2 or more images of each class"
            in Page(written(tmp_path, made, dataset=dataset, evaluation=evaluation)[1]).text
        )

    def test_thumbnails_left_out(self, tmp_path: Path, made: Any) -> None:
        path = tmp_path / "model.safetensors"
        made.detector.save(path, include_thumbnails=False)
        _, text = written(tmp_path, made, detector=type(made.detector).load(path, device="cpu"))
        assert "found in" not in text
        assert "nearest good patch:" in text


class TestErrors:
    def test_unwritable(self, tmp_path: Path, made: Any) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(DataError, match="cannot be written"):
            write_report(tmp_path / "file" / "r.html", made.detector, made.dataset, made.evaluation, seconds=SECONDS)

    def test_a_failure_leaves_the_old_report(self, tmp_path: Path, made: Any) -> None:
        path = tmp_path / "report.html"
        path.write_text("old")
        broken = replace(
            made.dataset, test=(replace(made.dataset.test[0], path=tmp_path / "no.png"), *made.dataset.test[1:])
        )
        with pytest.raises(DataError, match=r"no\.png"):
            write_report(path, made.detector, broken, made.evaluation, seconds=SECONDS)
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_rate_that_cannot_be_promised(self, tmp_path: Path, made: Any) -> None:
        with pytest.raises(SettingsError, match="12 calibration images"):
            written(tmp_path, made, false_reject=0.001)

    def test_another_data_set(self, tmp_path: Path, made: Any) -> None:
        with pytest.raises(ValueError, match="one score an image"):
            written(tmp_path, made, dataset=replace(made.dataset, test=made.dataset.test[:2]))

    def test_a_name_that_is_no_text(self, tmp_path: Path, made: Any) -> None:
        dataset = replace(
            made.dataset,
            test=tuple(replace(one, label="good" if one.is_good else "d\udcff") for one in made.dataset.test),
        )
        evaluation = evaluate_result(made.evaluation.result, dataset)
        _, text = written(tmp_path, made, dataset=dataset, evaluation=evaluation)
        assert "d?" in text


class TestUnlike:
    def test_notes_stand_on_the_card(self, tmp_path: Path, made: Any) -> None:
        result = made.evaluation.result
        unlike = replace(result, appearance=((2.0, 1.0, 0.0), *result.appearance[1:]))
        evaluation = evaluate_result(unlike, made.dataset)
        _, text = written(tmp_path, made, evaluation=evaluation)
        assert "Darker than the training images: mean brightness 1%" in Page(text).text
        assert "Darker than the training images" not in Page(written(tmp_path, made)[1]).text
        rows = report_rows(made.detector, made.dataset, evaluation)
        assert [row["notes"] for row in rows] == [list(notes) for notes in unlike.notes]
        first = next(csv.DictReader(io.StringIO(report_csv(rows))))
        assert first["notes"] == " ".join(unlike.notes[0])

    def test_what_a_crop_leaves_out(self, tmp_path: Path, made: Any) -> None:
        words = "was not inspected: the model looks at the middle alone"
        _, whole = written(tmp_path, made)
        assert words not in Page(whole).text
        assert "dark border" not in whole
        options = {**made.detector.settings.model_dump(), "crop": 32}
        detector = SAPatchCore(**options).fit([sample.path for sample in made.dataset.train])
        result = detector.predict([sample.path for sample in made.dataset.test])
        evaluation = evaluate_result(result, made.dataset)
        _, text = written(tmp_path, made, detector=detector, evaluation=evaluation)
        share = percent(1 - 32 * 32 / (detector.settings.resize[0] * detector.settings.resize[1]))
        assert f"{share} of it, {words}" in text
        assert text.count("the dark border was not inspected") == len(result)
