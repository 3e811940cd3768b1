"""The model file of several products: the first one's tensors as its own file has them, the others' beside them, by number.

The tensors of product 1, 2, … begin with its number, as ``1.bank``; the network's, which all products share, are there once. The
header's ``products`` has the names, ``each`` what the header of each one's own file would be.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sapatchcore.embed.backbone import Backbone
from sapatchcore.learning.images import Updatable
from sapatchcore.memory.pooled import SCALES
from sapatchcore.model_file import Parts, Stored, describe, loaded, read_model, to_stored
from sapatchcore.together.model_file import apart, describe_model, intact, numbered

PRODUCTS, _EACH = "products", "each"


def stored_products(products: Mapping[str, Updatable], include_weights: bool, include_thumbnails: bool) -> Stored:
    """All that the model file of fitted products holds."""
    each = [
        to_stored(one.settings, one.embedder, one.bank, one._calibration, include_weights, include_thumbnails)
        for one in products.values()
    ]
    first = each[0]
    header = {**first.header, "calibration": None, PRODUCTS: list(products), _EACH: [one.header for one in each]}
    others = [replace(one, weights=None) for one in each[1:]]
    return replace(first, header=header, more={**first.more, **numbered(others, {})})


def load_products(path: Path, options: Mapping[str, Any]) -> dict[str, Parts]:
    """What ``stored_products`` stored, by the products' names, with ``options`` as of SAPatchCore.load. Raises as
    ``load_model_file``."""
    stored = read_model(path)
    each = _each(path, stored)
    found: dict[str, Parts] = {}
    network: Backbone | None = None
    for name, one in each.items():
        found[name] = loaded(path, one if network is None else replace(one, weights=network.weights), options, network)
        network = found[name][1].network
    with intact(path, "several products"):
        inputs = {(one.resize, one.crop) for one, _, _, _ in found.values()}
        if len(inputs) > 1 or any(bank.global_part is None for _, _, bank, _ in found.values()):
            raise ValueError("products with different inputs, or without a global part")
    return found


def describe_file(path: Path, stored: Stored) -> dict[str, Any]:
    """As ``describe_model``; of several products also what is each one's own, by its name below "products"."""
    if PRODUCTS not in stored.header:
        return describe_model(path, stored)
    found = {name: describe(path, one) for name, one in _each(path, stored).items()}
    own = ("training_images", "turned_copies", "bank", "covering_radius", "calibration", "temperature")
    products = {name: {entry: one[entry] for entry in own if entry in one} for name, one in found.items()}
    header = {name: value for name, value in stored.header.items() if name not in (PRODUCTS, _EACH)}
    whole = describe(path, replace(stored, header=header))
    return {
        **{name: value for name, value in whole.items() if name not in (*own, SCALES)},
        "calibration": None,
        PRODUCTS: products,
    }


def _each(path: Path, stored: Stored) -> dict[str, Stored]:
    """What each product's own file would hold, by their names."""
    with intact(path, "several products"):
        names, headers = stored.header[PRODUCTS], stored.header[_EACH]
        if len(set(names)) != len(headers) or len(headers) < 2 or not all(isinstance(name, str) for name in names):
            raise ValueError(f"products {names}")
        same = ("settings", "weights_sha256", "layers", "channels", "strides", "grid")
        if any(_of(one, same) != _of(headers[0], same) for one in headers):
            raise ValueError("products of different networks or settings")
        return dict(zip(names, apart(stored, headers, sharing=False), strict=True))


def _of(header: Mapping[str, Any], entries: tuple[str, ...]) -> str:
    """JSON of these entries; a temperature is each product's own where fit found it."""
    found = {entry: header[entry] for entry in entries}
    found["settings"] = {name: value for name, value in found["settings"].items() if name != "temperature"}
    return json.dumps(found, sort_keys=True)
