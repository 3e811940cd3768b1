"""The repository's scripts as modules, for the tests."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))  # as ``python -m benchmarks.core.fit`` has it


def script(name: str) -> Any:
    """The script ``name``, a path below the repository, as a module: of ``benchmarks`` the package's own, else a new one that
    finds its neighbours as when it is run."""
    if name.startswith("benchmarks/"):
        return importlib.import_module(name.removesuffix(".py").replace("/", "."))
    path = ROOT / name
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module
