"""What can go wrong, as a handful of exceptions.

Every message is one or two sentences that say what is wrong, what was found, what is allowed and what to do:
"coreset_ratio must be in (0, 1]. Got 3.0. Use 0.1 for 10 %." The command line prints the message alone.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

# What the extra "learn" installs, by the names that are imported.
LEARN = frozenset(("einops", "huggingface_hub", "safetensors", "scipy", "timm", "torch"))


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


class RecordsError(SAPatchCoreError):
    """The inspection records cannot be opened, read or written: no folder, no server, a full disk, a damaged file."""


class ScaleError(SAPatchCoreError):
    """A cluster does not answer, or lost more of its machines than the work can bear."""


class NotFittedError(SAPatchCoreError, RuntimeError):
    """predict or save was asked of a detector that has not learned from good images yet."""


class MissingPackageError(SAPatchCoreError, ImportError):
    """What was asked for needs a package that is not installed here."""


class MetricError(SAPatchCoreError, ValueError):
    """A metric was asked of labels or scores for which it is not defined."""


def install(extra: str) -> str:
    """The command that installs what ``extra`` names; quoted, since some shells read brackets themselves."""
    return f'pip install "sapatchcore[{extra}]"'


@contextmanager
def learn_needed() -> Iterator[None]:
    """For a block that may import what learns: a package of ``LEARN`` that is missing becomes a sentence with the remedy.

    Raises MissingPackageError. Any other module that is not found goes on as it is: that is a defect, not a choice.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in LEARN:
            raise
        raise MissingPackageError(
            f"Learning and model files need PyTorch and its companions, and {error.name} is not installed: "
            f"{install('learn')}. Exported models (.onnx, .xml) need none of them.",
            name=error.name,
        ) from None


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """ " Did you mean 'x'?" for the allowed word nearest to ``word``, or "" where none is near."""
    names = list(allowed)
    by_lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return f" Did you mean {by_lower[near[0]]!r}?" if near else ""
