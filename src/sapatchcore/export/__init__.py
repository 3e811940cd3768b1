"""Exported models, for machines without PyTorch: ``export_model`` writes one, ``export/runtime.py`` scores images with it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from sapatchcore.errors import learn_needed

if TYPE_CHECKING:
    from sapatchcore.export.export import export_model

__all__ = ["export_model"]


def __getattr__(name: str) -> object:
    """``export_model`` on first use, as it needs PyTorch; the rest of this folder that scores images does not.

    Raises MissingPackageError where PyTorch is not installed.
    """
    if name not in __all__:
        raise AttributeError(f"module 'sapatchcore.export' has no attribute {name!r}")
    with learn_needed():
        return getattr(import_module("sapatchcore.export.export"), name)
