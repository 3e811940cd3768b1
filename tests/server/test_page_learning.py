"""From "this was good" to a model that has learned it, on the page; and who may do what there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from live_page import MODEL, Watched, needs_chromium, running, watched, with_defect
from PIL import Image

from sapatchcore import SAPatchCore
from sapatchcore.server.options import ServerOptions
from sapatchcore.server.tokens import make_token

pytestmark = needs_chromium
ROLES = ("inspect", "feedback", "admin")


@pytest.fixture
def file(good: npt.NDArray[np.uint8], tmp_path: Path) -> Path:
    """A part that the model rejects, though it shall be good."""
    path = tmp_path / "new_lamp.png"
    Image.fromarray(with_defect(good[0])).save(path)
    return path


@pytest.fixture
def served(fitted: SAPatchCore, tmp_path: Path) -> Iterator[tuple[str, Path, dict[str, str]]]:
    """A server's address, its model file, and a token for each role."""
    models = tmp_path / "models"
    models.mkdir()
    fitted.save(models / f"{MODEL}.safetensors")
    tokens = {role: make_token(f"{role}-1", role, tmp_path / "tokens.yaml") for role in ROLES}
    options = ServerOptions(
        models=models, records=tmp_path / "r.sqlite", tokens=tmp_path / "tokens.yaml", keep_images="all"
    )
    with running(options) as address:
        yield address, models / f"{MODEL}.safetensors", tokens


def log_in(seen: Watched, token: str, *, keep: bool = False) -> None:
    seen.expected.append("401")  # Chromium itself notes every refused request
    seen.page.goto(seen.address)
    seen.page.fill("#token", token)
    if keep:
        seen.page.check("[name=keep]")
    seen.page.keyboard.press("Enter")


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_from_this_was_good_to_a_model_that_knows(
    browser: Any, served: tuple[str, Path, dict[str, str]], file: Path
) -> None:
    address, model, tokens = served
    before = digest(model)
    with watched(browser, address) as seen:
        page = seen.page
        log_in(seen, tokens["admin"])
        page.wait_for_selector("#model option", state="attached")
        seen.inspect(file)
        assert seen.verdict() == "reject"
        page.keyboard.press("g")
        page.wait_for_selector("[data-feedback=good][aria-pressed=true]")
        page.keyboard.press("l")
        page.wait_for_selector(".pool .card kept-image img")
        assert page.locator(".pool .card").count() == 1
        page.locator("[data-preview]").click()
        page.wait_for_selector("[data-preview-of]")
        text = page.locator(".preview").inner_text()
        assert "Images added" in text
        assert "REJECT" in text.split("Before")[-1]
        assert "ACCEPT" in text.split("Before")[-1]
        assert digest(model) == before  # so far nothing has changed
        page.locator("[data-update]").click()
        page.wait_for_selector("#dialog.show [data-apply]")
        page.locator("[data-apply]").click()
        page.wait_for_selector(".older")  # the list says that an earlier version decided
        assert digest(model) != before
        assert page.locator(".pool input:checked").count() == 0  # nobody learns it twice by accident
        page.keyboard.press("m")
        page.wait_for_function("hash => document.body.innerText.includes(hash)", arg=digest(model))
        page.keyboard.press("i")
        seen.inspect(file)
        assert seen.verdict() == "accept"


def test_roles_see_what_they_may_do(browser: Any, served: tuple[str, Path, dict[str, str]], file: Path) -> None:
    address, _, tokens = served
    for role in ROLES:
        with watched(browser, address) as seen:
            page = seen.page
            log_in(seen, tokens[role])
            page.wait_for_selector("#model option", state="attached")
            seen.inspect(file)
            assert page.locator(".judgement").count() == (role != "inspect")
            assert page.locator("a[href='#learn']").count() == (role != "inspect")
            if role == "inspect":
                page.keyboard.press("g")  # does nothing, and asks for nothing
                page.goto(f"{address}/#learn")
                page.wait_for_selector("main.inspect")
            page.keyboard.press("h")
            page.wait_for_selector("tr[data-record]")
            assert page.locator("[data-export]").count() == 2 * (role == "admin")
            if role != "inspect":
                page.keyboard.press("l")
                page.wait_for_selector(".learn")
                assert ("Only an admin" in page.locator(".learn").inner_text()) == (role == "feedback")
                assert page.locator("[data-preview]").count() == 0


def test_tokens_are_asked_for_once_and_kept_as_wished(browser: Any, served: tuple[str, Path, dict[str, str]]) -> None:
    address, _, tokens = served
    with watched(browser, address) as seen:
        page = seen.page
        log_in(seen, "wrong")
        page.wait_for_selector(".login .alert-danger")
        assert "token" in page.locator(".login .alert-danger").inner_text()
        page.fill("#token", tokens["inspect"])
        page.keyboard.press("Enter")
        page.wait_for_selector("#model option", state="attached")
        page.reload()  # of the same tab: still known
        page.wait_for_selector("#model option", state="attached")
        assert page.evaluate("() => localStorage.getItem('sapatchcore-token')") is None
        page.locator("#log-out").click()
        page.wait_for_selector("#token")
        log_in(seen, tokens["inspect"], keep=True)
        page.wait_for_selector("#model option", state="attached")
        assert page.evaluate("() => localStorage.getItem('sapatchcore-token')") == tokens["inspect"]
        assert not any(tokens["inspect"] in url for url in seen.requests)  # never in an address
