"""What can go wrong, as a handful of exceptions.

Every message is one or two sentences that say what is wrong, what was found, what is allowed and what to do:
"coreset_ratio must be in (0, 1]. Got 3.0. Use 0.1 for 10 %." The command line prints the message alone.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SAPatchCoreError(Exception):
    """Base of all errors of this package. ``exit_code`` is what the command line ends with."""

    exit_code = 1


class SettingsError(SAPatchCoreError, ValueError):
    """An option or a configuration key is unknown, or its value is outside its range (wrong use)."""

    exit_code = 2


class DataError(SAPatchCoreError, ValueError):
    """A folder, an image or a mask cannot be used."""


class WeightsError(SAPatchCoreError):
    """The backbone or its weights cannot be had, or do not fit together."""


class ModelFileError(SAPatchCoreError):
    """A model file cannot be written, or is damaged, altered, or from a newer format."""


class NotFittedError(SAPatchCoreError, RuntimeError):
    """predict or save was asked of a detector that has not learned from good images yet."""


class MetricError(SAPatchCoreError, ValueError):
    """A metric was asked of labels or scores for which it is not defined."""


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """ " Did you mean 'x'?" for the allowed word nearest to ``word``, or "" where none is near."""
    names = list(allowed)
    by_lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return f" Did you mean {by_lower[near[0]]!r}?" if near else ""
