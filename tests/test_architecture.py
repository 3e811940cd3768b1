"""The house: its order of folders, its size, the length of predict's path, and the page that describes it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scripts import ROOT, script

from sapatchcore import SAPatchCore

SOURCE = ROOT / "src/sapatchcore"
MOST_MODULES = 166
MOST_FILES, MOST_LINES = 10, 1600  # of one predict

# From the first to the last: each imports only from those before it, and from itself.
ORDER = (
    *(
        "errors",
        "networks",
        "presets",
        "settings",
        "atomic",
        "data",
        "datasets",
        "defects",
        "embed",
        "memory",
        "score",
        "result",
        "learning",
        "tuning",
        "model_file",
        "together",
        "products",
    ),
    *(
        "detector",
        "verify",
        "show",
        "synth",
        "export",
        "open_model",
        "records",
        "server",
        "scale",
        "demo",
        "tnvision",
        "cli",
    ),
)
MODULES = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """The package's modules that a file imports anywhere, dotted, without the package's own name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "sapatchcore":
            inside = node.module.split(".")[1:]
            yield from (".".join(inside or [one.name]) for one in node.names)
        elif isinstance(node, ast.Import):
            yield from (one.name.partition(".")[2] for one in node.names if one.name.split(".")[0] == "sapatchcore")


def has_code(path: Path) -> bool:
    """Whether there is more in a file than a docstring."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return any(not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) for node in body)


def stage(dotted: str) -> int:
    return ORDER.index(dotted.split(".")[0])


def test_every_folder_has_its_place_in_the_order() -> None:
    found = {name.split("/")[0].removesuffix(".py") for name in MODULES} - {"__init__"}
    assert found == set(ORDER)


@pytest.mark.parametrize("name", [name for name in MODULES if name != "__init__.py"])
def test_imports_go_to_earlier_stages_alone(name: str) -> None:
    own = stage(name.split("/")[0].removesuffix(".py"))
    later = [module for module in imports(SOURCE / name) if module != "__version__" and stage(module) > own]
    assert later == []


def test_there_are_few_modules_and_none_is_long() -> None:
    with_code = [name for name in MODULES if has_code(SOURCE / name)]
    assert len(with_code) <= MOST_MODULES
    lengths = {name: len((SOURCE / name).read_text(encoding="utf-8").splitlines()) for name in MODULES}
    assert {name: lines for name, lines in lengths.items() if lines > 300} == {}


def test_a_class_name_is_one_class() -> None:
    seen: dict[str, str] = {}
    twice = []
    for name in MODULES:
        for node in ast.walk(ast.parse((SOURCE / name).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and seen.setdefault(node.name, name) != name:
                twice.append(f"{node.name}: {seen[node.name]}, {name}")
    assert twice == []


def test_predict_runs_through_few_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    detector = SAPatchCore(weights="random", coreset_ratio=0.2)  # 313 rows: enough to leave some out
    detector.fit(rng.integers(0, 256, (2, 256, 256, 3), dtype=np.uint8))
    Image.fromarray(rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)).save(tmp_path / "image.png")
    lines = script("tools/predict_path.py").executed(detector, tmp_path / "image.png")
    assert {"detector.py", "embed/attention.py", "memory/search/products.py", "score/anomaly_score.py"} <= set(lines)
    assert len(lines) <= MOST_FILES
    assert sum(lines.values()) <= MOST_LINES


def test_the_page_names_every_file_and_no_other() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    table, _, rest = text.partition("## The import rule")
    rows = set(re.findall(r"^\| `([\w/]+\.py)` \|", table, flags=re.MULTILINE))
    assert rows == {name for name in MODULES if not name.endswith("__init__.py")}
    named = set(re.findall(r"`((?:[\w]+/)*\w+\.py)`", rest[: rest.index("| planned |")]))
    assert [name for name in named if not (SOURCE / name).is_file() and not (ROOT / name).is_file()] == []


def test_the_page_states_the_order() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    block = text[text.index("## The import rule") : text.index("`tests/test_architecture.py`")]
    words = re.findall(r"[a-z_]+", block.split("before it:")[1])
    assert sorted(words[:3]) == sorted(ORDER[:3])
    assert tuple(words[3:]) == ORDER[3:]
