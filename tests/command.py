"""The command line in the test's own process."""

from __future__ import annotations

import sys

from sapatchcore import cli


def run(*arguments: object) -> int:
    """The exit code of ``sapatchcore arguments``."""
    before, sys.argv = sys.argv, ["sapatchcore", *map(str, arguments)]
    try:
        return cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = before
