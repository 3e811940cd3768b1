"""Plots as SVG text: what is in them, that they follow the page, and that the same input gives the same bytes."""

from __future__ import annotations

import builtins
import re
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib
import numpy as np
import pytest

from sapatchcore.errors import SAPatchCoreError
from sapatchcore.show import plots
from sapatchcore.show.plots import DASHES, HATCHES, OKABE_ITO, Line, curves, histogram, require_packages
from sapatchcore.verify.curves import Curve, precision_recall_curve, roc_curve

SVG = "{http://www.w3.org/2000/svg}"
LABELS = np.repeat([0, 1], [20, 30])
SCORES = np.random.default_rng(0).normal(size=50) + LABELS


def groups() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {name: rng.normal(3 + at, 1, 30) for at, name in enumerate(("calibration, good", "test, good", "dent"))}


def scores_histogram(names: Mapping[str, np.ndarray] | None = None) -> str:
    lines = [Line(4.0, "threshold from good images"), Line(3.5, "best F1: has seen labels", seen_labels=True)]
    return histogram(groups() if names is None else names, lines, "Scores")


def roc() -> str:
    drawn = {"all defects": roc_curve(LABELS, SCORES), "dent": roc_curve(LABELS[:40], SCORES[:40])}
    return curves(drawn, ("false", "true"), "ROC", diagonal=True, marks=[(0.1, 0.6, "threshold")])


def precision_recall() -> str:
    return curves({"AP": precision_recall_curve(LABELS, SCORES)}, ("recall", "precision"), "PR", level=0.6)


def pro() -> str:
    drawn = {"PRO": Curve(np.array([0, 0.1, 0.3]), np.array([0, 0.7, 0.8]))}
    return curves(drawn, ("false", "overlap"), "PRO", limit=0.3)


ALL = [scores_histogram, roc, precision_recall, pro]


def words(svg: str) -> str:
    return " ".join("".join(one.itertext()) for one in ET.fromstring(svg).iter(f"{SVG}text"))


@pytest.mark.parametrize("draw", ALL)
def test_is_one_svg_for_a_page(draw: Callable[[], str]) -> None:
    svg = draw()
    root = ET.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    assert root.get("viewBox")
    assert root.get("width") is None  # as wide as the page lets it
    assert root.get("role") == "img"
    title = root.find(f"{SVG}title")
    assert title is not None
    assert title.text in ("Scores", "ROC", "PR", "PRO")
    assert "currentColor" in svg
    assert not re.search(r"#(010203|040506|000000|ffffff)|<style|<metadata|<!DOCTYPE|<\?xml", svg)
    assert not re.search(r"(href|src)=\"(?!#)", svg)  # nothing is fetched
    assert len(svg) < 60_000


@pytest.mark.parametrize("draw", ALL)
def test_same_input_same_bytes(draw: Callable[[], str]) -> None:
    assert draw() == draw()


def test_same_bytes_in_another_process(run_python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    code = (
        "import sys; import numpy as np\n"
        "from sapatchcore.show.plots import Line, histogram\n"
        "groups = {'good': np.arange(9.0), 'dent': np.arange(5.0, 12.0)}\n"
        "sys.stdout.write(histogram(groups, [Line(6.0, 'threshold')], 'Scores'))"
    )
    both = [run_python(code, env={"PYTHONHASHSEED": seed, "PATH": ""}) for seed in ("1", "2")]
    assert both[0].stdout.startswith("<svg"), both[0].stderr
    assert both[0].stdout == both[1].stdout


def test_globals_stay_as_they_were() -> None:
    before = dict(matplotlib.rcParams)
    scores_histogram()
    assert dict(matplotlib.rcParams) == before


def test_histogram_names_groups_counts_and_lines() -> None:
    found = words(scores_histogram())
    for word in ("calibration, good (30)", "dent (30)", "threshold from good images", "has seen labels"):
        assert word in found


def test_groups_differ_in_colour_and_hatch() -> None:
    svg = scores_histogram()
    assert all(colour.lower() in svg.lower() for colour in OKABE_ITO[:3])
    assert len(set(re.findall(r'<pattern id="(\w+)"', svg))) == 2  # the first group has none
    assert len(set(OKABE_ITO)) == len(OKABE_ITO)
    # More groups than colours: the pair of colour and hatch is still another.
    pairs = {(OKABE_ITO[at % len(OKABE_ITO)], HATCHES[at % len(HATCHES)]) for at in range(20)}
    assert len(pairs) == 20


def test_thresholds_are_drawn_in_every_row() -> None:
    dotted = re.findall(
        r"stroke-dasharray[^;\"]*; stroke-dashoffset: 0; stroke: currentColor; stroke-width: 1.6", scores_histogram()
    )
    assert len(dotted) == 3 + 1  # the rows and the legend


def test_lines_differ_in_dashes() -> None:
    assert len({str(dash) for dash in DASHES}) == len(DASHES)
    svg = roc()
    solid, dashed = (re.search(rf"<path[^>]*stroke: {colour}[^>]*>", svg, re.IGNORECASE) for colour in OKABE_ITO[:2])
    assert solid is not None
    assert "dasharray" not in solid[0]
    assert "stroke-dasharray" in svg[svg.lower().index(OKABE_ITO[1].lower()) - 200 :][:400]
    assert dashed is not None


def test_empty_groups_are_left_out() -> None:
    found = words(histogram({"good": np.arange(3.0), "dent": np.array([])}, [], "Scores"))
    assert "good (3)" in found
    assert "dent" not in found


def test_one_value_everywhere() -> None:
    assert "good (2)" in words(histogram({"good": np.array([0.0, 0.0])}, [], "Scores"))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "name", ["</text><script>", "$\\frac{1$", "_private", "a$b$", "vết xước", "損傷", "&amp;", "x" * 90]
)
def test_names_are_only_text(name: str) -> None:
    svg = histogram({"good": np.arange(5.0), name: np.arange(5.0)}, [], name)
    assert "<script" not in svg
    found = words(svg)
    assert (name if len(name) <= plots.NAME else name[: plots.NAME - 1] + "…") in found
    title = ET.fromstring(svg).find(f"{SVG}title")
    assert title is not None
    assert title.text == name
    assert name in words(curves({f"defect {name}": roc_curve(LABELS, SCORES)}, ("x", "y"), "ROC"))


@pytest.mark.parametrize("missing", ["matplotlib", "jinja2"])
def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    imported = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name.split(".")[0] == missing:
            raise ModuleNotFoundError(f"No module named {name!r}")
        return imported(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SAPatchCoreError, match=rf'{missing}.*pip install "sapatchcore\[report\]"'):
        require_packages()
