"""The inspector's part of the page, end to end: a real server, a real model, headless Chromium."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from live_page import MODEL, Watched, needs_chromium, running, watched, write_images
from PIL import Image

from sapatchcore import SAPatchCore
from sapatchcore.server.options import ServerOptions

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def files(good: npt.NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_images(tmp_path_factory.mktemp("files"), good)


@pytest.fixture(scope="module")
def address(fitted: SAPatchCore, whole_fitted: SAPatchCore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served")
    (folder / "models").mkdir()
    fitted.save(folder / "models" / f"{MODEL}.safetensors")
    whole_fitted.save(folder / "models" / "whole.safetensors")
    (folder / "models" / "cut.safetensors").write_bytes(b"not a model")
    with running(ServerOptions(models=folder / "models", records=folder / "r.sqlite", keep_images="all")) as found:
        yield found


@pytest.fixture
def seen(browser: Any, address: str) -> Iterator[Watched]:
    with watched(browser, address) as found:
        found.open()
        assert found.page.locator("#model").input_value() == MODEL  # the one that is ready, not the first
        yield found


def transfer(page: Any, files: list[Path]) -> Any:
    """A DataTransfer in the page that holds the files, as a drag or the clipboard brings it."""
    contents = [[file.name, base64.b64encode(file.read_bytes()).decode()] for file in files]
    return page.evaluate_handle(
        """files => {
          const found = new DataTransfer();
          for (const [name, content] of files) {
            const bytes = Uint8Array.from(atob(content), letter => letter.charCodeAt(0));
            found.items.add(new File([bytes], name, { type: name.endsWith('.png') ? 'image/png' : 'text/plain' }));
          }
          return found;
        }""",
        contents,
    )


def picture(page: Any) -> npt.NDArray[np.int16]:
    """(h, w, 3) int16: what the picture shows now."""
    shot = page.locator(".stage svg").screenshot()
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(np.int16)


def test_dropped_images_get_their_verdicts(seen: Watched, files: dict[str, Path], fitted: SAPatchCore) -> None:
    page = seen.page
    dropped = [files["good 0"], files["bad 0"]]
    data = transfer(page, dropped)
    page.dispatch_event("body", "dragenter", {"dataTransfer": data})
    page.wait_for_selector(".drop-over")
    page.dispatch_event("body", "drop", {"dataTransfer": data})
    seen.finished(2)
    page.wait_for_selector(".drop-over", state="detached")
    assert seen.verdict() == "reject"
    assert page.locator(".word strong").inner_text() == "REJECT"
    expected = fitted.predict([str(file) for file in dropped]).verdicts(1 / 11)
    assert expected[1].p_value == pytest.approx(1 / 11)
    assert "None of 10 good parts looks this unusual. p = 0.091" in page.locator(".p-words").inner_text()
    reason = expected[1].sentence.split(": ")[1]
    assert reason.capitalize() in page.locator(".why").inner_text()
    assert "REJECT. bad_0.png" in page.locator("#announce").inner_text()
    assert page.locator(".tally").inner_text().split() == ["✓", "1", "✕", "1"]
    page.locator(".thumb").first.click()
    page.wait_for_selector(".band.accept")
    assert page.locator(".name").inner_text() == "good_0.png"


def test_pasted_images_get_their_verdicts(seen: Watched, files: dict[str, Path]) -> None:
    data = transfer(seen.page, [files["bad 1"]])
    seen.page.evaluate(
        "data => document.body.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, bubbles: true }))", data
    )
    seen.finished(1)
    assert seen.verdict() == "reject"
    assert seen.page.locator(".name").inner_text() == "bad_1.png"


def test_what_is_no_image_is_said_where_one_looks(seen: Watched, tmp_path: Path, files: dict[str, Path]) -> None:
    page = seen.page
    text = tmp_path / "list.txt"
    text.write_text("no image")
    page.dispatch_event("body", "drop", {"dataTransfer": transfer(page, [text])})
    page.wait_for_selector("#toast.shown")
    assert "list.txt is not an image" in page.locator("#toast").inner_text()
    cut = tmp_path / "<img src=x onerror=alert(1)>.png"
    cut.write_bytes(files["good 0"].read_bytes()[:200])
    seen.expected.append("422")  # Chromium itself notes every refused request
    seen.inspect(cut)
    assert seen.verdict() == "failed"
    assert "cannot be decoded: image file is truncated" in page.locator(".band .p-words").inner_text()
    assert page.locator(".name").inner_text() == cut.name  # as text
    page.locator("[data-retry]").click()
    page.wait_for_selector(".thumb.failed")


def test_a_model_with_a_global_part_has_a_layer_of_its_own(
    seen: Watched, files: dict[str, Path], whole_fitted: SAPatchCore, tmp_path: Path
) -> None:
    page = seen.page
    seen.inspect(files["bad 2"])
    assert page.locator("button[data-layer]").count() == 4
    page.keyboard.press("4")
    assert page.locator(".stage svg[data-layer=whole]").count() == 1, "a key without its layer"
    page.locator("#model").select_option("whole")
    seen.inspect(files["bad 3"])
    assert page.locator("button[data-layer]").count() == 5
    page.keyboard.press("b")
    page.keyboard.press("0")
    page.wait_for_selector(".stage svg[data-layer=none]")
    plain = picture(page)
    page.keyboard.press("4")
    page.wait_for_selector(".stage svg[data-layer=global_part]")
    assert np.abs(picture(page) - plain).max() > 40
    (score,) = whole_fitted.predict([str(files["bad 3"])]).global_scores
    said = page.locator(".numbers dl div", has_text="Global").inner_text()
    assert float(said.split()[1]) == pytest.approx(float(score), rel=1e-3)
    assert "of usual" in said
    page.locator(".thumb").first.click()  # of the model without: the map instead
    page.wait_for_selector(".stage svg[data-layer=whole]")
    assert page.locator("button[data-layer]").count() == 4
    dark = tmp_path / "dark.png"
    Image.fromarray(np.asarray(Image.open(files["good 1"])) // 5).save(dark)
    seen.inspect(dark)
    (note,) = {line for line in page.locator("[data-notes]").inner_text().splitlines() if "Darker" in line}
    page.keyboard.press("h")
    page.locator("tr[data-record]").first.click()
    (score,) = whole_fitted.predict([str(dark)]).global_scores
    said = page.locator(".record-body dl div", has_text="Global").inner_text()
    assert float(said.split()[1]) == pytest.approx(float(score), rel=1e-3)
    assert page.locator(".record-body [data-notes]").inner_text() == note


def test_layers_and_opacity_show_in_the_picture(seen: Watched, files: dict[str, Path]) -> None:
    page = seen.page
    seen.inspect(files["bad 2"])
    page.keyboard.press("b")  # without outlines
    shown = {}
    for key, layer in enumerate(("none", "whole", "local", "context")):
        page.keyboard.press(str(key))
        page.wait_for_selector(f".stage svg[data-layer={layer}]")
        shown[layer] = picture(page)
    for layer in ("whole", "local", "context"):
        assert np.abs(shown[layer] - shown["none"]).max() > 40
    assert np.abs(shown["local"] - shown["context"]).max() > 10
    page.keyboard.press("1")
    away = []
    for opacity in ("0", "0.5", "1"):
        page.locator("#opacity").evaluate(
            "(input, value) => { input.value = value; input.dispatchEvent(new Event('input', { bubbles: true })); }",
            opacity,
        )
        page.wait_for_selector(f"image.layer[opacity='{opacity}']")
        away.append(float(np.abs(picture(page) - shown["none"]).mean()))
    assert away[0] < 0.5  # nothing of the map
    assert away[1] == pytest.approx(away[2] / 2, rel=0.1)
    page.keyboard.press("b")
    page.wait_for_selector("rect.line.region")
    outlined = picture(page)
    cyan, yellow = (np.abs(outlined - colour).max(2) < 20 for colour in ((80, 230, 255), (255, 210, 63)))
    assert (cyan | yellow).any()  # a region's line, or the chosen one's


def test_nearest_good_patches_with_their_boxes(seen: Watched, files: dict[str, Path], fitted: SAPatchCore) -> None:
    page = seen.page
    seen.inspect(files["bad 3"])
    (expected,) = fitted.explain([str(files["bad 3"])], false_reject=1 / 11)
    assert page.locator(".pair").count() == len(expected.causes)
    good = expected.causes[0].good
    assert page.locator(".pair figcaption").nth(1).inner_text() == good.image
    box = page.locator(".thumbnail rect.line").first
    drawn = [float(box.get_attribute(name)) for name in ("y", "x", "height", "width")]
    assert drawn == pytest.approx([100 * share for share in good.thumbnail_box])
    page.wait_for_function("() => document.querySelector('.thumbnail img').naturalWidth > 0")


def test_a_camera_on_request_and_live(seen: Watched) -> None:
    page = seen.page
    page.keyboard.press("c")
    page.wait_for_function("() => document.querySelector('video')?.videoWidth > 0")
    assert page.locator("select[data-camera] option").count() >= 1
    page.keyboard.press("Space")
    seen.finished(1)
    assert page.locator(".name").inner_text().startswith("camera-")
    page.select_option("select[data-live]", "1")
    seen.finished(3)
    page.select_option("select[data-live]", "0")
    page.keyboard.press("c")
    page.wait_for_selector("video", state="detached")


def test_by_keyboard_alone(seen: Watched, files: dict[str, Path]) -> None:
    page = seen.page
    chosen = [str(files[name]) for name in ("good 4", "bad 4", "good 5", "bad 5")]
    page.on("filechooser", lambda chooser: chooser.set_files(chosen))
    page.wait_for_timeout(300)  # until the browser hands its chooser over
    page.keyboard.press("o")
    seen.finished(4)
    name = page.locator(".name")
    assert name.inner_text() == "bad_5.png"
    steps = {
        "Home": "good_4.png",
        "ArrowRight": "bad_4.png",
        "ArrowLeft": "good_4.png",
        "n": "bad_4.png",
        "End": "bad_5.png",
    }
    for key, expected in steps.items():
        page.keyboard.press(key)
        page.wait_for_function("text => document.querySelector('.name').innerText === text", arg=expected)
    page.keyboard.press("g")
    page.wait_for_selector("[data-feedback=good][aria-pressed=true]")
    page.keyboard.press("d")
    page.wait_for_selector("[data-feedback=defect][aria-pressed=true]")
    page.keyboard.press("u")
    page.wait_for_selector("[data-feedback=defect][aria-pressed=false]")
    page.keyboard.press("+")
    page.wait_for_selector(".stage.zoomed")
    page.keyboard.press("z")
    page.wait_for_selector(".stage.zoomed", state="detached")
    for key, view in (
        ("r", "rate"),
        ("h", "history"),
        ("l", "learn"),
        ("t", "drift"),
        ("m", "models"),
        ("i", "inspect"),
    ):
        page.keyboard.press(key)
        page.wait_for_selector(f"main.{view}")
    page.keyboard.press("?")
    page.wait_for_selector("#dialog.show")
    assert page.locator("#dialog kbd").count() > 20
    page.keyboard.press("Escape")
    page.wait_for_selector("#dialog.show", state="detached")
    page.keyboard.press("Tab")  # whatever has the focus can be seen
    assert page.evaluate("() => getComputedStyle(document.activeElement).outlineWidth") == "3px"


def test_a_server_that_is_busy_or_away(seen: Watched, files: dict[str, Path]) -> None:
    page = seen.page
    answers = [
        lambda route: route.fulfill(status=503, headers={"Retry-After": "1"}, json={"error": "The queue is full."}),
        lambda route: route.abort("connectionrefused"),
    ]
    seen.expected += ["503", "ERR_CONNECTION_REFUSED"]
    page.route("**/inspect?*", lambda route: answers.pop(0)(route) if answers else route.continue_())
    page.set_input_files("#files", str(files["good 6"]))
    page.wait_for_function(
        "() => document.querySelector('.band').innerText.includes('The queue is full. Again in 1 second.')"
    )
    page.wait_for_selector("[data-banner=offline]")
    seen.finished(1)
    assert seen.verdict() == "accept"
    page.wait_for_selector("[data-banner=offline]", state="detached")


def test_an_image_that_breaks_the_connection_is_given_up(seen: Watched, files: dict[str, Path]) -> None:
    page = seen.page
    seen.expected.append("ERR_CONNECTION_RESET")
    page.route("**/inspect?*", lambda route: route.abort("connectionreset"), times=3)
    seen.inspect(files["good 6"])
    assert seen.verdict() == "failed"
    assert "may be too large" in page.locator(".band").inner_text()
    page.keyboard.press("a")
    page.wait_for_selector(".band.accept")


@pytest.mark.parametrize("size", [(1024, 600), (1280, 800), (3840, 2160)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_readable_at_two_metres(
    browser: Any, address: str, files: dict[str, Path], size: tuple[int, int], scheme: str
) -> None:
    options = {"viewport": {"width": size[0], "height": size[1]}, "color_scheme": scheme}
    with watched(browser, address, **options) as seen:
        seen.open()
        for name in ("bad 7", "good 7"):
            seen.inspect(files[name])
            assert pixels(seen.page, ".word strong") >= 96
            assert pixels(seen.page, ".p-words") >= 26
            assert contrast(seen.page, ".band") >= 7
            box = seen.page.locator(".stage svg").bounding_box()
            assert min(box["width"], box["height"]) >= 200  # the picture has room
            wide = seen.page.evaluate(
                "() => [document.documentElement.scrollWidth, document.documentElement.scrollHeight]"
            )
            assert wide == list(size)  # nothing has to be scrolled into view


def pixels(page: Any, selector: str) -> float:
    return float(page.locator(selector).evaluate("element => parseFloat(getComputedStyle(element).fontSize)"))


def contrast(page: Any, selector: str) -> float:
    """WCAG's contrast of a text's colour on its background's colour."""
    colours = page.locator(selector).evaluate(
        "element => [getComputedStyle(element).color, getComputedStyle(element).backgroundColor]"
    )
    light = []
    for colour in colours:
        channels = np.array([int(part) for part in colour[4:-1].split(",")]) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        light.append(float(linear @ (0.2126, 0.7152, 0.0722)))
    return (max(light) + 0.05) / (min(light) + 0.05)


def test_in_vietnamese(browser: Any, address: str, files: dict[str, Path]) -> None:
    with watched(browser, address, locale="vi-VN") as seen:
        seen.open()
        page = seen.page
        assert page.evaluate("() => document.documentElement.lang") == "vi"
        seen.inspect(files["bad 8"])
        assert page.locator(".word strong").inner_text() == "LOẠI"
        assert "p = 0,091" in page.locator(".p-words").inner_text()
        page.select_option("#language", "en")
        page.wait_for_function("() => document.querySelector('.word strong').innerText === 'REJECT'")
        page.reload()  # remembered
        page.wait_for_function("() => document.documentElement.lang === 'en'")


def test_on_a_phone(browser: Any, address: str, files: dict[str, Path]) -> None:
    with watched(browser, address, viewport={"width": 390, "height": 844}) as seen:
        seen.open()
        seen.inspect(files["bad 9"])
        assert seen.page.evaluate("() => document.documentElement.scrollWidth") == 390
        assert seen.page.locator(".word strong").bounding_box()["width"] < 390


def test_the_api_is_described_without_internet(browser: Any, address: str) -> None:
    with watched(browser, address) as seen:
        seen.page.goto(f"{address}/docs")
        seen.page.wait_for_selector(".opblock")
        assert "/v1/models/{name}/inspect" in seen.page.locator("#api").inner_text().replace("​", "")
