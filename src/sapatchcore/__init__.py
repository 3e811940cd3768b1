"""Visual inspection that learns from good images alone: SA-PatchCore.

images ─ data/ ─▶ embed/ ─▶ memory/ ─▶ score/ ─▶ verify/ show/ · export/ server/ records/ · scale/

``SAPatchCore().fit(good).predict(images)`` is the whole flow; ``detector.py`` shows it as the paper's steps.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from sapatchcore.errors import learn_needed

if TYPE_CHECKING:
    from sapatchcore.detector import SAPatchCore
    from sapatchcore.errors import (
        DataError,
        MetricError,
        MissingPackageError,
        ModelFileError,
        NotFittedError,
        SAPatchCoreError,
        SettingsError,
        WeightsError,
    )
    from sapatchcore.export.runtime import Exported, open_exported
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
    "Exported",
    "MetricError",
    "MissingPackageError",
    "ModelFileError",
    "NotFittedError",
    "Result",
    "SAPatchCore",
    "SAPatchCoreError",
    "Settings",
    "SettingsError",
    "Verdict",
    "WeightsError",
    "open_exported",
]

_MODULES = {
    "SAPatchCore": "detector",
    "Exported": "export.runtime",
    "open_exported": "export.runtime",
    "Result": "result",
    "Settings": "settings",
    "Drift": "score.drift",
    "Explanation": "score.explain",
    "Verdict": "score.verdict",
}  # all others: errors


def __getattr__(name: str) -> object:
    """Public names on first use: ``sapatchcore --help`` does not wait seconds for PyTorch.

    Raises MissingPackageError for a name that needs PyTorch where that is not installed. It is an ImportError, as
    ``from sapatchcore import SAPatchCore`` is expected to raise, and says what to install.
    """
    if name not in __all__:
        raise AttributeError(f"module 'sapatchcore' has no attribute {name!r}")
    with learn_needed():
        return getattr(import_module(f"sapatchcore.{_MODULES.get(name, 'errors')}"), name)
