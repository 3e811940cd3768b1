"""The documentation is true: its names exist, its links resolve, its commands parse, its tables are the code's."""

from __future__ import annotations

import ast
import importlib
import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripts import script

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    page
    for folder in (ROOT, ROOT / "docs", ROOT / "benchmarks")
    for page in folder.glob("*.md")
    if not page.name.startswith(".")
)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SOURCE = ROOT / "src/sapatchcore"


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, text) of each code block."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def prose(page: Path) -> str:
    return BLOCK.sub("", page.read_text(encoding="utf-8"))


def commands(page: Path) -> Iterator[list[str]]:
    """Every command of the page's bash blocks, split as a shell does."""
    for language, text in blocks(page):
        if language == "bash":
            for line in text.replace("\\\n", " ").splitlines():
                if line.strip():
                    yield shlex.split(line, comments=True)


def resolved(dotted: str) -> object:
    """The object that a dotted name means. Raises ImportError or AttributeError where there is none."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        try:
            found: object = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    raise ImportError(dotted)


def test_pages_are_found() -> None:
    names = {page.relative_to(ROOT).as_posix() for page in PAGES}
    assert {"README.md", "README.vi.md", "docs/algorithm.md", "benchmarks/README.md"} <= names


def test_settings_page_is_the_codes() -> None:
    page = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    expected = script("docs/generate_settings.py").settings_page()
    assert page == expected, "run: python docs/generate_settings.py > docs/settings.md"


TABLES = script("benchmarks/tables.py")
GENERATED = list(TABLES.parts(TABLES.measured()))


def test_every_page_with_marks_is_generated() -> None:
    marks = {
        (page.relative_to(ROOT).as_posix(), name)
        for page in PAGES
        for name in re.findall(r"<!-- (\w+):begin -->", page.read_text(encoding="utf-8"))
    }
    assert marks == {(page, name) for page, name, _ in GENERATED if name}


@pytest.mark.parametrize(("page", "name", "text"), GENERATED, ids=[f"{page} {name}" for page, name, _ in GENERATED])
def test_figures_are_the_measured_ones(page: str, name: str, text: str) -> None:
    found = (ROOT / page).read_text(encoding="utf-8")
    assert TABLES.marked(name, text) in found if name else found == text, "run: python -m benchmarks.tables"
    assert text


def test_benchmarks_readme_lists_every_script_and_no_other() -> None:
    folder = ROOT / "benchmarks"
    listed = re.findall(r"^\| `([\w/]+\.py)` \|", (folder / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    scripts = [path.relative_to(folder).as_posix() for path in folder.rglob("*.py") if path.name != "__init__.py"]
    assert sorted(listed) == sorted(scripts)


NAMES = sorted(
    {
        (page.relative_to(ROOT).as_posix(), name)
        for page in PAGES
        for name in re.findall(r"`(sapatchcore(?:\.\w+)+)`", prose(page))
        if not name.endswith((".py", ".safetensors", ".md"))
    }
)


def test_algorithm_names_functions() -> None:
    assert sum(page == "docs/algorithm.md" for page, _ in NAMES) > 15


@pytest.mark.parametrize(("page", "name"), NAMES)
def test_names_exist(page: str, name: str) -> None:
    assert resolved(name) is not None, page


def test_resolved_can_fail() -> None:
    with pytest.raises(AttributeError):
        resolved("sapatchcore.memory.coreset.no_such_function")


LINKS = sorted(
    {
        (page.relative_to(ROOT).as_posix(), link)
        for page in PAGES
        for link in re.findall(r"\]\(([^)\s]+)\)", prose(page))
        if not re.match(r"[a-z]+:", link)
    }
)


@pytest.mark.parametrize(("page", "link"), LINKS)
def test_relative_links_resolve(page: str, link: str) -> None:
    target, _, anchor = link.partition("#")
    file = (ROOT / page).parent / target if target else ROOT / page
    assert file.exists()
    if anchor:
        headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
        slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert anchor in slugs


def test_both_readmes_have_the_same_structure() -> None:
    english, vietnamese = ROOT / "README.md", ROOT / "README.vi.md"
    levels = [re.findall(r"^(#+) ", prose(page), re.MULTILINE) for page in (english, vietnamese)]
    assert levels[0] == levels[1]
    assert blocks(english) == blocks(vietnamese)
    figures = [re.findall(r"<!--.*?-->", prose(page)) for page in (english, vietnamese)]
    assert figures[0] == figures[1]
    links = [
        {link for link in re.findall(r"\]\(([^)]+)\)", prose(page)) if "README" not in link or "/" in link}
        for page in (english, vietnamese)
    ]
    assert links[0] == links[1]


def command_line() -> Any:
    cli = pytest.importorskip("sapatchcore.cli")
    import typer.main

    return typer.main.get_command(cli.app)


CALLS = [
    (page.relative_to(ROOT).as_posix(), " ".join(words[1:]))
    for page in PAGES
    for words in commands(page)
    if words[0] == "sapatchcore"
]


@pytest.mark.parametrize(("page", "call"), CALLS)
def test_commands_parse(page: str, call: str) -> None:
    name, *words = shlex.split(call)
    command = command_line().commands.get(name)
    assert command is not None, f"{page}: sapatchcore has no command {name}"
    # Parsed and not run: unknown options, missing arguments and extra words end in a UsageError.
    command.make_context(name, list(words))


def test_commands_can_fail_to_parse() -> None:
    fit = command_line().commands["fit"]
    with pytest.raises(Exception, match="no-such-option"):
        fit.make_context("fit", ["data", "-o", "x.safetensors", "--no-such-option"])


def test_values_of_options_in_commands_are_allowed() -> None:
    from sapatchcore.settings import Settings, settings_from

    for _, call in CALLS:
        options: dict[str, Any] = {}
        for option, value in itertools.pairwise(shlex.split(call)):
            name = option.removeprefix("--").replace("-", "_")
            if option.startswith("--") and name in Settings.model_fields:
                options[name] = float(value) if name == "coreset_ratio" else value
        settings_from(options)


def test_the_run_line_and_the_scripts_exist() -> None:
    for page in PAGES:
        for words in commands(page):
            if words[0] == "python":
                file = f"{words[2].replace('.', '/')}.py" if words[1] == "-m" else words[1]
                assert (ROOT / file).is_file(), f"{page.name}: {file}"
                for option, value in itertools.pairwise(words):
                    assert option != "--yaml_config" or (ROOT / value).is_file()
            if words[0] == "make" and (ROOT / "Makefile").is_file():
                targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
                assert set(words[1:]) <= set(targets)


@pytest.mark.parametrize("code", [text for page in PAGES for language, text in blocks(page) if language == "python"])
def test_python_examples_use_what_exists(code: str) -> None:
    from sapatchcore import Result, SAPatchCore
    from sapatchcore.settings import Settings

    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "SAPatchCore":
            assert {keyword.arg for keyword in node.keywords} <= set(Settings.model_fields)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner = {"detector": SAPatchCore, "result": Result}.get(node.value.id)
            fields = getattr(owner, "__dataclass_fields__", {})
            assert owner is None or hasattr(owner, node.attr) or node.attr in fields


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_pages_hold_no_path_of_one_machine(page: Path) -> None:
    assert not re.search(r"(?<![\w.])/(home|work|root|tmp|Users)/", page.read_text(encoding="utf-8"))
