"""The page's files: third-party ones as published, texts complete in both languages, nothing that its policy forbids."""

from __future__ import annotations

import hashlib
import json
import re
import string
from pathlib import Path
from typing import Any

import pytest
from hatchling.builders.wheel import WheelBuilder
from scripts import script

import sapatchcore

PAGE = Path(sapatchcore.__file__).parent / "server" / "page"
VENDOR = PAGE / "vendor"
ROOT = Path(__file__).parents[2]
OWN = sorted(path for path in PAGE.rglob("*") if path.is_file() and VENDOR not in path.parents)
LANGUAGES = ("en", "vi")
# Texts whose key is put together: `t(`view-${view}`)`; each is one of those that the words hold.
MADE = re.compile(r"\bt\(\s*`([a-z-]*)\$\{[^}]*\}([a-z-]*)`")
# Everywhere else a key stands in quotes, be it in t("…") itself or in a list that t takes its keys from.
QUOTED = re.compile(r'"([a-z][a-z-]*)"')


def words(language: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((PAGE / "words" / f"{language}.json").read_text(encoding="utf-8"))
    return found


def scripts() -> dict[str, str]:
    return {str(path.relative_to(PAGE)): path.read_text(encoding="utf-8") for path in OWN if path.suffix == ".js"}


def test_vendored_files_are_as_published() -> None:
    listed = {}
    for package in json.loads((VENDOR / "VENDORED.json").read_text(encoding="utf-8"))["packages"]:
        assert package["source"] == f"npm:{package['name']}@{package['version']}"
        assert package["integrity"].startswith("sha512-")
        assert f"{package['name']}/LICENSE" in package["files"]
        listed |= package["files"]
    present = {
        path.relative_to(VENDOR).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in VENDOR.rglob("*")
        if path.is_file() and path.name != "VENDORED.json"
    }
    assert present == listed


def test_the_tool_takes_what_is_there() -> None:
    tool = script("tools/vendor_page.py")
    listed = json.loads((VENDOR / tool.LIST).read_text(encoding="utf-8"))["packages"]
    expected = {name: {f"{name}/{file}" for file in files.values()} for name, files in tool.FILES.items()}
    assert {package["name"]: set(package["files"]) for package in listed} == expected


def test_both_languages_say_everything() -> None:
    english, vietnamese = (words(language) for language in LANGUAGES)
    assert list(english) == list(vietnamese)
    for key in english:
        places = [
            {name for form in forms(entry) for _, name, _, _ in string.Formatter().parse(form) if name}
            for entry in (english[key], vietnamese[key])
        ]
        assert places[0] == places[1], key
        assert all(form.strip() for entry in (english[key], vietnamese[key]) for form in forms(entry)), key
        assert not isinstance(english[key], dict) or set(english[key]) == {"one", "other"}, key
        assert not isinstance(vietnamese[key], dict) or set(vietnamese[key]) == {"other"}, key
    same = {key for key in english if english[key] == vietnamese[key]}
    assert same <= {"camera", "backbone", "attention", "format-onnx", "format-openvino"}


def forms(entry: str | dict[str, str]) -> list[str]:
    return [entry] if isinstance(entry, str) else list(entry.values())


def test_every_text_is_used_and_there() -> None:
    known, said, everything = set(words("en")), set(), "\n".join(scripts().values())
    for before, after in MADE.findall(everything):
        some = {key for key in known if key.startswith(before) and key.endswith(after)}
        assert some, f"{before}…{after}"
        said |= some
    said |= set(QUOTED.findall(everything)) & known
    assert known - said == set()
    assert set(re.findall(r'\bt\(\s*"([a-z-]+)"', everything)) <= known


@pytest.mark.parametrize("path", OWN, ids=lambda path: str(path.relative_to(PAGE)))
def test_own_files_keep_to_the_policy(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert path.parent.name == "words" or len(text.splitlines()) <= 250
    addresses = set(re.findall(r"https?://[^\s\"'<]+", text)) - {"http://www.w3.org/2000/svg"}
    assert {address for address in addresses if "localhost" not in address} == set()
    if path.suffix == ".js":
        # Server's texts go in as text: nothing here makes HTML of them, or runs them, or sets a style as an attribute.
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|unsafe|\beval\b|new Function", text
        )
        assert not re.search(r"\sstyle=|\son[a-z]+=", text)
    if path.suffix == ".html":
        assert not re.search(r"\sstyle=|\son[a-z]+=|<style|<script(?![^>]*\ssrc=)", text)


def test_the_wheel_has_every_file() -> None:
    builder = WheelBuilder(str(ROOT))
    packed = {Path(file.path) for file in builder.recurse_included_files()}
    missing = [path for path in PAGE.rglob("*") if path.is_file() and path not in packed]
    assert missing == []
