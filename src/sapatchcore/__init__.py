"""Visual inspection that learns from good images alone: SA-PatchCore.

images ─ data/ ─▶ embed/ ─▶ memory/ ─▶ score/ ─▶ verify/ ─▶ show/ · deploy/

``SAPatchCore().fit(good).predict(images)`` is the whole flow; ``detector.py`` and ``pipeline.py`` show it as the paper's steps.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sapatchcore.detector import SAPatchCore
    from sapatchcore.errors import (
        DataError,
        MetricError,
        ModelFileError,
        NotFittedError,
        SAPatchCoreError,
        SettingsError,
        WeightsError,
    )
    from sapatchcore.result import Result
    from sapatchcore.score.drift import Drift
    from sapatchcore.score.explain import Explanation
    from sapatchcore.score.verdict import Verdict
    from sapatchcore.settings import Settings

__version__ = "0.1.0"

__all__ = [
    "DataError",
    "Drift",
    "Explanation",
    "MetricError",
    "ModelFileError",
    "NotFittedError",
    "Result",
    "SAPatchCore",
    "SAPatchCoreError",
    "Settings",
    "SettingsError",
    "Verdict",
    "WeightsError",
]

_MODULES = {
    "SAPatchCore": "detector",
    "Result": "result",
    "Settings": "settings",
    "Drift": "score.drift",
    "Explanation": "score.explain",
    "Verdict": "score.verdict",
}  # all others: errors


def __getattr__(name: str) -> object:
    """Public names on first use: ``sapatchcore --help`` does not wait seconds for PyTorch."""
    if name not in __all__:
        raise AttributeError(f"module 'sapatchcore' has no attribute {name!r}")
    return getattr(import_module(f"sapatchcore.{_MODULES.get(name, 'errors')}"), name)
