"""The report in a browser: it opens from a file, asks for nothing, and its controls work, by mouse and by keyboard."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sapatchcore.show.report import write_report

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no Chromium at {CHROMIUM}")


@dataclass
class Watched:
    """A page, and all that it did which it should not."""

    page: Any
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def names(self) -> list[str]:
        """Of the cards that are shown, in their order."""
        return self.page.locator("#cards > .card:not([hidden]) .open").all_text_contents()

    def count(self) -> str:
        return self.page.locator("#count").inner_text()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as running:
        found = running.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def file(made: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(path, made.detector, made.dataset, made.evaluation, seconds={"score": 1.0})
    return path


@pytest.fixture
def watched(browser: Any, file: Path) -> Iterator[Watched]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    seen = Watched(page)
    page.on("request", lambda request: seen.requests.append(request.url))
    page.on(
        "console", lambda message: seen.errors.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.on("dialog", lambda dialog: (seen.dialogs.append(dialog.message), dialog.dismiss()))
    page.route("**/*", lambda route: route.continue_() if route.request.url.startswith("file:") else route.abort())
    page.goto(file.as_uri())
    yield seen
    # Whatever a test did, nothing was asked for, nothing failed, and no hostile name ran.
    assert [url for url in seen.requests if not url.startswith("data:")] == [file.as_uri()]
    assert seen.errors == []
    assert seen.dialogs == []
    context.close()


def test_opens_with_all_its_parts(watched: Watched, made: Any) -> None:
    page = watched.page
    assert page.title() == "Inspection report: parts"
    assert page.locator("h2:visible").all_inner_texts()[:3] == ["Verdicts", "Figures", "Images"]
    assert page.locator(".plot svg").count() == 4
    assert page.locator("#cards > .card").count() == 9
    assert watched.count() == "showing 9 of 9"
    rejected = int((made.evaluation.result.scores > made.evaluation.result.threshold()).sum())
    assert page.locator("#cards .verdict.reject").count() == rejected > 0
    assert page.locator("#cards .verdict.accept").count() == 9 - rejected > 0
    assert page.locator("#cards .mistake-tag").count() == page.locator("#cards .card.mistake").count()


def test_pictures_are_drawn(watched: Watched) -> None:
    watched.page.evaluate("Promise.all([...document.images].map(i => { i.loading = 'eager'; return i.decode(); }))")
    sizes = watched.page.evaluate("[...document.images].map(i => [i.naturalWidth, i.naturalHeight])")
    assert len(sizes) > 9 * 8
    assert all(width > 0 and height > 0 for width, height in sizes)


def test_default_order_is_worst_first(watched: Watched, made: Any) -> None:
    result, labels = made.evaluation.result, made.evaluation.labels
    limit = result.threshold()
    wrong = [(score > limit) != (label != "good") for score, label in zip(result.scores, labels, strict=True)]
    classes = watched.page.locator("#cards > .card").evaluate_all("all => all.map(one => one.className)")
    assert [("mistake" in one) for one in classes] == sorted(wrong, reverse=True)


def test_sorting(watched: Watched) -> None:
    page = watched.page

    def numbers(key: str) -> list[float]:
        records = page.evaluate("JSON.parse(document.getElementById('records').textContent)")
        by_id = {f"card-{record['index']}": record[key] for record in records}
        return [by_id[one] for one in page.locator("#cards > .card").evaluate_all("all => all.map(one => one.id)")]

    first = watched.names()
    page.select_option("[name=sort]", "score")
    assert numbers("score") == sorted(numbers("score"), reverse=True)
    page.select_option("[name=sort]", "p_value")
    assert numbers("p_value") == sorted(numbers("p_value"))
    page.select_option("[name=sort]", "name")
    assert [name for name in watched.names() if name.startswith("good")] == [f"good/{n:03}.png" for n in range(4)]
    assert watched.names() != first
    page.select_option("[name=sort]", "rank")
    assert watched.names() == first


def test_filters(watched: Watched, made: Any) -> None:
    page = watched.page
    result, labels = made.evaluation.result, made.evaluation.labels
    verdicts = result.verdicts()
    page.select_option("[name=label]", "dent")
    assert watched.count() == "showing 3 of 9"
    assert all(name.startswith("dent/") for name in watched.names())
    page.select_option("[name=label]", "</script>")
    assert watched.count() == "showing 2 of 9"
    page.select_option("[name=label]", "")
    for chosen, expected in {
        "accepted": sum(not one.rejected for one in verdicts),
        "rejected": sum(one.rejected for one in verdicts),
        "wrong": sum(one.rejected != (label != "good") for one, label in zip(verdicts, labels, strict=True)),
        "": 9,
    }.items():
        page.select_option("[name=verdict]", chosen)
        assert watched.count() == f"showing {expected} of 9"
    kind = next(one.kind for one in verdicts if one.kind)
    page.select_option("[name=kind]", kind)
    assert watched.count() == f"showing {sum(one.kind == kind for one in verdicts)} of 9"


def test_search(watched: Watched) -> None:
    page = watched.page
    page.fill("[name=search]", "GOOD 002")
    assert watched.names() == ["good/002.png"]
    page.fill("[name=search]", "onerror=alert")
    assert watched.names() == ["dent/<img src=x onerror=alert(1)>.png"]
    page.fill("[name=search]", "nothing has this name")
    assert watched.count() == "showing 0 of 9"
    assert page.locator("#none").is_visible()
    page.fill("[name=search]", "")
    assert watched.count() == "showing 9 of 9"
    assert page.locator("#none").is_hidden()


def test_dialog_by_keyboard(watched: Watched) -> None:
    page, dialog = watched.page, watched.page.locator("#large")
    assert dialog.is_hidden()
    names = watched.names()
    page.locator("[name=search]").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == names[0]
    page.keyboard.press("Enter")
    assert dialog.is_visible()
    assert page.locator("#large-name").inner_text() == names[0]
    assert dialog.locator(".panels img").count() == 5
    page.keyboard.press("ArrowRight")
    assert page.locator("#large-name").inner_text() == names[1]
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")  # there is none before the first
    assert page.locator("#large-name").inner_text() == names[0]
    page.keyboard.press("Escape")
    assert dialog.is_hidden()
    assert page.evaluate("document.activeElement.textContent") == names[0]


def test_dialog_by_mouse(watched: Watched) -> None:
    page, dialog = watched.page, watched.page.locator("#large")
    page.locator("#cards .card .panels img").nth(5).click()
    assert page.locator("#large-name").inner_text() == watched.names()[1]
    wide = dialog.locator(".panels img").first.bounding_box()["width"]
    assert wide > 1.5 * page.locator("#cards .card .panels img").first.bounding_box()["width"]
    page.locator("#close").click()
    assert dialog.is_hidden()


def test_hostile_names_are_inert(watched: Watched) -> None:
    page = watched.page
    page.locator(".open", has_text="onerror").click()
    assert page.locator("#large-name").inner_text() == "dent/<img src=x onerror=alert(1)>.png"
    assert page.locator("#large-name img").count() == 0
    page.keyboard.press("Escape")
    page.wait_for_timeout(100)
    assert page.locator("img[src='x']").count() == 0
    assert page.locator("script").count() == 2


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_the_screen_and_can_be_read(watched: Watched, width: int, scheme: str) -> None:
    page = watched.page
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    contrasts = page.evaluate(CONTRAST, ["h1", ".note", ".verdict.reject", ".verdict.accept", ".mistake-tag", ".numbers",
                                         "button.open", ".card figcaption", ".labels", ".about-tables th"])  # fmt: skip
    assert {name: value for name, value in contrasts.items() if value < 4.5} == {}


def test_print(watched: Watched) -> None:
    page = watched.page
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator("#controls").is_hidden()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("#cards > .card").first.is_visible()
    assert page.pdf().startswith(b"%PDF")


def test_without_scripts(browser: Any, file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(file.as_uri())
    assert page.locator("#cards > .card").count() == 9
    assert page.locator("#controls").is_hidden()
    context.close()


def test_policy_refuses_requests(watched: Watched) -> None:
    refused = watched.page.evaluate(
        """() => new Promise(done => {
            document.addEventListener("securitypolicyviolation", event => done(event.violatedDirective));
            const image = new Image();
            image.src = "http://localhost:9/a.png";
        })"""
    )
    assert refused.startswith("img-src")
    assert all(re.search("Content Security Policy", error) for error in watched.errors)
    watched.errors.clear()
    watched.requests.remove("http://localhost:9/a.png")  # asked for by this test, and refused


# WCAG 2.2's contrast of an element's text and the ground that it stands on, of the first of each.
CONTRAST = """selectors => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const found = {};
  for (const selector of selectors) {
    const element = document.querySelector(selector);
    if (!element) continue;
    let ground = element;
    while (ground && (parse(getComputedStyle(ground).backgroundColor)[3] ?? 1) === 0) ground = ground.parentElement;
    const both = [getComputedStyle(element).color, getComputedStyle(ground ?? document.body).backgroundColor];
    const [a, b] = both.map(parse).map(light).sort((x, y) => y - x);
    found[selector] = (a + 0.05) / (b + 0.05);
  }
  return found;
}"""
