"""Several networks in one detector: how options name them, and which options each of them has for itself.

``backbone`` "a+b" is the networks a and b together. ``weights`` and ``metric`` are one value for all of them, or one for each,
joined likewise; all other options are the same for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sapatchcore.errors import SettingsError

AND = "+"
OF_EACH = ("weights", "metric")


def names_of(backbone: str) -> list[str]:
    """ "a+b" → ["a", "b"]."""
    return [name.strip() for name in backbone.split(AND)]


def joined(values: Iterable[str]) -> str:
    """One value where all are the same, else all, joined."""
    every = list(values)
    return every[0] if len(set(every)) == 1 else AND.join(every)


def of_each(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The options of each network, in their order; of one network alone, ``options``."""
    names = names_of(str(options["backbone"]))
    if len(names) == 1:
        return [dict(options)]
    found: list[dict[str, Any]] = [{**options, "backbone": name} for name in names]
    for option in OF_EACH:
        if option in options:
            values = names_of(str(options[option]))
            for one, value in zip(found, values * len(names) if len(values) == 1 else values, strict=False):
                one[option] = value
    return found


def check_networks(options: Mapping[str, Any]) -> None:
    """Raises SettingsError where a network has no name, or one is named twice, or an option's values do not fit their number."""
    backbone = str(options["backbone"])
    names = names_of(backbone)
    if "" in names or len(set(names)) < len(names):
        wrong = "a name is empty" if "" in names else "a network is named twice"
        raise SettingsError(
            f"backbone must be one network's name, or those of different ones, joined by {AND}. Got {backbone!r}: {wrong}. "
            f"For example builtin{AND}efficientnet_lite2."
        )
    for option in OF_EACH:
        value = str(options[option])
        count = 1 if option == "weights" and len(names) == 1 else len(names_of(value))  # a file's name may have one
        if count not in (1, len(names)):
            raise SettingsError(
                f"{option} must be one value for all networks, or one for each, joined by {AND}. Got {value!r}, which is "
                f"{count}, and backbone {backbone!r}, which is {len(names)}."
            )
    if len(names) > 1 and options["image_score"] == "reweighted":
        raise SettingsError(
            "image_score 'reweighted' weighs a score by the neighbours in one memory bank. Got it for "
            f"{len(names)} networks, which have one each. Use image_score max or smoothed."
        )


def refuse_several(backbone: str, what: str) -> None:
    """Raises SettingsError for several networks. what: it works for one network alone."""
    if len(names_of(backbone)) > 1:
        raise SettingsError(f"{what} works for one network alone. Got backbone {backbone!r}.")
