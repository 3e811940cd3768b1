"""The engineer's part of the page, end to end: rate, history, learning on, drift, models, tokens."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from live_page import MODEL, Watched, add_records, needs_chromium, running, watched, write_images
from PIL import Image

from sapatchcore import SAPatchCore
from sapatchcore.score.threshold import rank
from sapatchcore.server.options import ServerOptions

pytestmark = needs_chromium
CALIBRATION = 10  # images that ``fitted`` has learned from
EARLIER = 620  # records before the tests begin; in the last 120 the parts have drifted


@pytest.fixture(scope="module")
def files(good: npt.NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_images(tmp_path_factory.mktemp("files"), good)


@pytest.fixture(scope="module")
def folder(fitted: SAPatchCore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("served")
    (found / "models").mkdir()
    fitted.save(found / "models" / f"{MODEL}.safetensors")
    (found / "models" / "cut.safetensors").write_bytes(b"not a model")
    rng = np.random.default_rng(0)
    ranks = np.concatenate((rng.integers(1, CALIBRATION + 2, EARLIER - 120), rng.integers(3, 5, 120))).tolist()
    labels = [
        ("good", "defect", None)[int(kind)] if rank < 4 else None
        for kind, rank in zip(rng.integers(0, 3, EARLIER), ranks, strict=True)
    ]
    model_hash = hashlib.sha256((found / "models" / f"{MODEL}.safetensors").read_bytes()).hexdigest()
    add_records(found / "r.sqlite", model_hash, CALIBRATION, ranks, labels)
    return found


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with running(ServerOptions(models=folder / "models", records=folder / "r.sqlite", keep_images="all")) as found:
        yield found


@pytest.fixture
def seen(browser: Any, address: str) -> Iterator[Watched]:
    with watched(browser, address) as found:
        found.open()
        yield found


def asked(address: str, path: str) -> Any:
    with urllib.request.urlopen(f"{address}/v1/{path}", timeout=120) as answer:
        return json.load(answer)


def counts(page: Any) -> dict[str, tuple[int, int]]:
    """What the rate's cards say: before and after, by their names."""
    cards = page.locator(".count").all()
    found = {}
    for card in cards:
        before, after = (int(card.locator(which).inner_text()) for which in (".before", ".after"))
        found[card.get_attribute("data-count")] = (before, after)
    return found


def test_another_rate_shows_at_once_what_it_changes(seen: Watched, address: str, files: dict[str, Path]) -> None:
    page = seen.page
    page.keyboard.press("r")
    page.wait_for_selector(".counts")
    requests = len(seen.requests)
    records = asked(address, f"records?model={MODEL}&limit=500")["records"]
    rates = [1 / 11, 0.1, 0.12, 0.15, 0.2]
    page.keyboard.press("ArrowLeft")
    seen_rates = set()
    for _ in range(2 * len(rates)):
        page.keyboard.press("ArrowLeft")
    for rate in rates:
        page.wait_for_function(
            "text => document.querySelector('.slider input').ariaValueText.startsWith(text)", arg=f"{100 * rate:.3g}%"
        )
        seen_rates.add(page.locator(".slider output b").inner_text())
        rejected = [one["p_value"] * (CALIBRATION + 1) <= rank(rate, CALIBRATION) + 1e-9 for one in records]
        before = [one["verdict"] == "reject" for one in records]
        label = [one["feedback"] for one in records]
        assert counts(page) == {
            "rejected": (sum(before), sum(rejected)),
            "good": tuple(
                sum(one and said == "good" for one, said in zip(which, label, strict=True))
                for which in (before, rejected)
            ),
            "missed": tuple(
                sum(not one and said == "defect" for one, said in zip(which, label, strict=True))
                for which in (before, rejected)
            ),
        }
        changed = {str(one["record"]) for one, was, now in zip(records, before, rejected, strict=True) if was != now}
        assert {row.get_attribute("data-record") for row in page.locator("tr[data-record]").all()} == changed
        page.keyboard.press("ArrowRight")
    assert len(seen_rates) == len(rates)
    assert len(seen.requests) == requests  # at once: nothing was asked for
    page.locator("[data-use]").click()
    page.keyboard.press("i")
    seen.inspect(files["good 0"])
    assert asked(address, "records?limit=1")["records"][0]["false_reject"] == pytest.approx(0.2)
    assert "1 in 5" in page.locator(".promise").inner_text()


@pytest.mark.parametrize("calibration", [3, 10, 99, 330])
def test_rejected_is_what_the_server_would_say(seen: Watched, calibration: int) -> None:
    """The page's rule, p ≤ rate, against the package's ``rank``, for every p-value and every rate of the slider."""
    p_values = [number / (calibration + 1) for number in range(1, calibration + 2)]
    rates, rejected = seen.page.evaluate(
        """async ([values, smallest]) => {
          const { rates, rejectedAt } = await import('/page/js/engineer/counting.js');
          const found = rates(smallest);
          return [found, found.map(rate => values.map(p => rejectedAt(p, rate)))];
        }""",
        [p_values, 1 / (calibration + 1)],
    )
    assert rates[0] == 1 / (calibration + 1)
    assert rates == sorted(rates)
    assert rates[-1] == 0.2 or calibration == 3
    expected = [[number <= rank(rate, calibration) for number in range(1, calibration + 2)] for rate in rates]
    assert rejected == expected


def test_history_finds_records(seen: Watched, address: str) -> None:
    page = seen.page
    page.keyboard.press("h")
    page.wait_for_selector("tr[data-record]")
    newest = asked(address, "records?limit=1")["records"][0]["record"]
    assert page.locator("tr[data-record]").count() == 50
    page.locator("[data-page=older]").click()
    page.wait_for_selector(f"tr[data-record='{newest - 50}']")
    page.locator("[data-page=newer]").click()
    page.wait_for_selector(f"tr[data-record='{newest}']")

    def shown(query: str, missing: str) -> None:
        expected = asked(address, f"records?model={MODEL}&limit=50&{query}")["records"]
        assert expected or "tray_9999" in query
        page.wait_for_function(
            "numbers => [...document.querySelectorAll('tr[data-record]')].map(row => row.dataset.record).join() === numbers",
            arg=",".join(str(one["record"]) for one in expected),
        )
        assert missing not in page.locator(".records tbody").inner_text()

    page.select_option("[data-filter=verdict]", "reject")
    shown("verdict=reject", "ACCEPT")
    page.select_option("[data-filter=kind]", "co-occurrence")
    shown("verdict=reject&kind=co-occurrence", "Local")
    page.select_option("[data-filter=feedback]", "defect")
    shown("verdict=reject&kind=co-occurrence&feedback=defect", "This was good")
    for name in ("verdict", "kind", "feedback"):
        page.select_option(f"[data-filter={name}]", "")
    page.fill("[data-filter=file_name]", "tray_001")
    shown("file_name=*tray_001*", "tray_0020")
    page.fill("[data-filter=file_name]", "")
    page.fill("[data-filter=until]", "2020-01-01")
    page.wait_for_selector(".alert-info")
    page.fill("[data-filter=until]", "")
    page.fill("[data-filter=since]", "2020-01-01")
    page.wait_for_selector("tr[data-record]")


def test_a_record_opens_by_key_and_takes_feedback(seen: Watched, address: str, files: dict[str, Path]) -> None:
    page = seen.page
    seen.inspect(files["bad 1"])
    number = asked(address, "records?limit=1")["records"][0]["record"]
    page.keyboard.press("h")
    page.wait_for_selector(f"tr[data-record='{number}']")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    page.wait_for_selector("#dialog.show kept-image img")
    assert page.locator("#dialog-title").inner_text() == f"Record {number}"
    assert page.evaluate("() => document.querySelector('kept-image img').naturalWidth") == 64
    page.fill("#note", "<b>lamp</b> out")
    page.locator("#dialog [data-feedback=defect]").click()
    page.wait_for_function("() => document.querySelector('#dialog').innerText.includes('<b>lamp</b> out')")
    record = asked(address, f"records/{number}")
    assert (record["feedback"], record["feedback_note"]) == ("defect", "<b>lamp</b> out")
    page.locator("[data-again]").click()
    seen.finished(2)
    assert seen.verdict() == "reject"


def test_records_as_a_file(seen: Watched) -> None:
    page = seen.page
    page.keyboard.press("h")
    page.wait_for_selector("tr[data-record]")
    page.select_option("[data-filter=verdict]", "reject")
    with page.expect_download() as download:
        page.locator("[data-export=csv]").click()
    assert download.value.suggested_filename == "records.csv"
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8-sig"))))
    assert len(rows) > 50
    assert {row["verdict"] for row in rows} == {"reject"}
    with page.expect_download() as download:
        page.locator("[data-export=parquet]").click()
    assert Path(download.value.path()).read_bytes()[:4] == b"PAR1"


def test_the_drift_chart_and_its_alarm(seen: Watched, address: str) -> None:
    page = seen.page
    page.wait_for_selector("[data-banner=drift]")  # wherever one is
    page.keyboard.press("t")
    page.wait_for_selector("[data-drift=alarm]")
    found = asked(address, f"models/{MODEL}/drift")
    text = page.locator("[data-drift=alarm]").inner_text()
    assert f"record {found['alarm']}" in text
    assert f"record {found['since']}" in text
    assert page.locator("line-chart canvas").count() == 2
    for chart in page.locator("line-chart").all():
        drawn = np.asarray(Image.open(io.BytesIO(chart.locator("canvas").screenshot())).convert("RGB")).reshape(-1, 3)
        assert len(np.unique(drawn, axis=0)) > 20
    medians = page.evaluate(
        "async () => (await import('/page/js/engineer/drift.js')).runningMedian([0.9, 0.1, 0.5, 0.7, 0.3, 0.2], 3)"
    )
    assert medians == [None, None, 0.5, 0.5, 0.5, 0.3]


def test_models_and_their_errors(seen: Watched, address: str) -> None:
    page = seen.page
    page.keyboard.press("m")
    for model in asked(address, "models")["models"]:
        card = page.locator(f"[data-model='{model['name']}']")
        card.wait_for()
        assert (model["hash"] or "cut off") in card.inner_text()
        assert ("failed" in card.inner_text()) == (model["state"] == "failed")
