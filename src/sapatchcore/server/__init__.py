"""Inspection over HTTP, with a page for people: ``create_app`` gives the application for any ASGI server."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sapatchcore.server.app import create_app

__all__ = ["create_app"]


def __getattr__(name: str) -> object:
    """``create_app`` on first use: its packages are an extra."""
    if name not in __all__:
        raise AttributeError(f"module 'sapatchcore.server' has no attribute {name!r}")
    return getattr(import_module("sapatchcore.server.app"), name)
