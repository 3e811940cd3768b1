"""The model file of several networks: the first one's tensors as a single network's file has them, the others' beside them.

The tensors of network 1, 2, … begin with its number, as ``1.bank`` and ``1.weights.…``; one that is the same as the first
network's, as are the training images' names, is written once. The header's ``networks`` has what each network's own would say,
``scale`` what brings them to one scale; the tensor ``together.peaks`` (n,) float32 is the largest value of each good image's map.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch

from sapatchcore.errors import ModelFileError
from sapatchcore.learning.images import Updatable
from sapatchcore.memory.training import TrainingImage
from sapatchcore.model_file import HEADER, Parts, Stored, describe, loaded, read_model, to_stored
from sapatchcore.networks import names_of, of_each
from sapatchcore.score.calibration import Calibration, Float32
from sapatchcore.score.together import CommonScale
from sapatchcore.settings import Settings, settings_from

NETWORKS, SCALE, PEAKS = "networks", "scale", "together.peaks"
_BANK = ("bank", "bank.image", "bank.cell")
_WEIGHTS = "weights."


@dataclass(frozen=True)
class Loaded:
    """settings: of all networks. networks: what each has learned. peaks: (n,) float32 of the calibration, None without one."""

    settings: Settings
    networks: list[Parts]
    scale: CommonScale | None
    peaks: Float32 | None


def holds(path: Path, entry: str) -> bool:
    """Whether a model file's header has ``entry``, NETWORKS for one; False where it cannot be read: ``read_model`` says why."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return entry in json.loads((file.metadata() or {})[HEADER])
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError, RuntimeError):
        return False


def stored_together(
    settings: Settings,
    networks: Sequence[Updatable],
    scale: CommonScale,
    calibration: Calibration | None,
    include_weights: bool,
    include_thumbnails: bool,
) -> Stored:
    """All that the model file of fitted networks holds. settings, scale, calibration: of all."""
    training = _pictured(networks)
    each = [
        to_stored(
            one.settings,
            one.embedder,
            replace(one.bank, training=training),
            one._calibration,
            include_weights,
            include_thumbnails,
        )
        for one in networks
    ]
    first = each[0]
    more = {**first.more, **numbered(each[1:], first.more)}
    if calibration is not None:
        more[PEAKS] = torch.from_numpy(calibration.peaks)
    header = {
        "settings": settings.model_dump(mode="json"),
        "versions": first.header["versions"],
        "calibration": first.header["calibration"],
        NETWORKS: [one.header for one in each],
        SCALE: asdict(scale),
    }
    return replace(first, header=header, more=more)


def numbered(others: Sequence[Stored], shared: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of ``others`` to stand beside a first one's: each begins with its number, from 1 on. shared: the first one's,
    of which those that are the same are left out."""
    found = {}
    for number, one in enumerate(others, start=1):
        tensors = {"bank": one.bank, "bank.image": one.images, "bank.cell": one.cells, **one.more}
        tensors |= {_WEIGHTS + name: value for name, value in (one.weights or {}).items()}
        for name, value in tensors.items():
            same = shared.get(name)
            if same is None or not torch.equal(same, value):
                found[f"{number}.{name}"] = value.detach().cpu().contiguous().clone()
    return found


def load_together(path: Path, options: Mapping[str, Any]) -> Loaded:
    """What ``stored_together`` stored, with ``options`` as of SAPatchCore.load. Raises as ``load_model_file``."""
    stored = read_model(path)
    with intact(path):
        scale, each = _scale_from(stored.header[SCALE]), apart(stored, stored.header[NETWORKS])
        fitted = dict(stored.header["settings"])
        if [one.header["settings"]["backbone"] for one in each] != names_of(fitted["backbone"]):
            raise ValueError("other networks than its settings name")
    settings = settings_from({**fitted, "device": "auto", **options})
    own = of_each({"weights": settings.weights, **options, "backbone": settings.backbone})
    networks = []
    for one, given in zip(each, own, strict=True):
        given.pop("backbone")
        networks.append(loaded(path, one, given))
    with intact(path):
        return _together(settings, networks, scale, stored)


def describe_model(path: Path, stored: Stored) -> dict[str, Any]:
    """As ``describe``; of several networks also what is each one's own, by its name below "networks"."""
    if NETWORKS not in stored.header:
        return describe(path, stored)
    with intact(path):
        each = apart(stored, stored.header[NETWORKS])
        found = {one.header["settings"]["backbone"]: describe(path, one) for one in each}
    kept = ("bank", "network_weights", "network", "layers", "channels", "strides", "grid", "covering_radius")
    networks = {}
    for name, one in found.items():
        own = {option: one.get(option, one["settings"][option]) for option in ("weights", "metric", "temperature")}
        networks[name] = {**{entry: one[entry] for entry in kept if entry in one}, **own}
    whole = describe(path, stored)
    for entry in ("bank", "network_weights"):
        whole[entry] = ", ".join(one[entry] for one in networks.values())
    return {**whole, NETWORKS: networks}


def _together(settings: Settings, networks: list[Parts], scale: CommonScale, stored: Stored) -> Loaded:
    """Raises ValueError where what was stored of the networks does not fit together."""
    first, _, bank, calibration = networks[0]
    if first.resize != settings.resize and not settings.keep_aspect:
        raise ValueError("networks with another input than its settings name")
    for own, _, other, scores in networks[1:]:
        if (own.resize, own.crop, own.image_score) != (first.resize, first.crop, first.image_score):
            raise ValueError("networks with different inputs or scores")
        if list(bank.training) != list(other.training):
            raise ValueError("networks that learned from different images")
        if (scores is None) != (calibration is None) or (
            scores is not None and calibration is not None and not np.array_equal(scores.images, calibration.images)
        ):
            raise ValueError("networks with scores of different images")
    if (settings.global_part == "none") != (scale.fusion is None) or len(scale.units) != len(networks):
        raise ValueError(f"a common scale of {len(scale.units)} networks")
    peaks = None
    if calibration is not None:
        peaks = stored.more[PEAKS].numpy()
        if peaks.shape != calibration.scores.shape or not np.isfinite(peaks).all():
            raise ValueError(f"{peaks.shape} largest values of maps")
    if settings.image_score != stored.header["settings"]["image_score"]:  # as the networks' own scores were
        return Loaded(settings, networks, None, None)
    return Loaded(settings, networks, scale, peaks)


def _scale_from(header: Mapping[str, Any]) -> CommonScale:
    """Raises KeyError, TypeError or ValueError where it is none."""
    units, of_global = (tuple(float(one) for one in header[name]) for name in ("units", "global_units"))
    fusion = None if header["fusion"] is None else tuple(float(one) for one in header["fusion"])
    positive = (*units, *of_global, *(fusion or ())[1::2])
    if not units or not all(math.isfinite(one) and one > 0 for one in positive):
        raise ValueError(f"a common scale of {header}")
    if (fusion is None and of_global) or (fusion is not None and (len(of_global), len(fusion)) != (len(units), 4)):
        raise ValueError(f"a common scale of {header}")
    return CommonScale(units, of_global, fusion)


def apart(stored: Stored, headers: Sequence[dict[str, Any]], sharing: bool = True) -> list[Stored]:
    """What the file of each alone would hold. headers: of each. sharing: what one has no tensor of its own for is the first
    one's."""
    first = {name: value for name, value in stored.more.items() if name != PEAKS and not name[0].isdigit()}
    found = [replace(stored, header=headers[0], more=first)]
    for number, header in enumerate(headers[1:], start=1):
        prefix = f"{number}."
        own = {name.removeprefix(prefix): value for name, value in stored.more.items() if name.startswith(prefix)}
        bank, images, cells = (own.pop(name) for name in _BANK)
        weights = {name.removeprefix(_WEIGHTS): own.pop(name) for name in list(own) if name.startswith(_WEIGHTS)}
        more = {**first, **own} if sharing else own
        found.append(Stored(header, bank, images.long(), cells.long(), weights or None, more))
    return found


def _pictured(networks: Sequence[Updatable]) -> list[TrainingImage]:
    """The training images, each with a picture where any network's bank has a patch of it."""
    found = list(networks[0].bank.training)
    for one in networks[1:]:
        found = [mine if mine.thumbnail else other for mine, other in zip(found, one.bank.training, strict=True)]
    return found


@contextmanager
def intact(path: Path, what: str = "several networks") -> Iterator[None]:
    """What does not fit together becomes a sentence. A file's checksum has no key, so that anybody can write one that fits."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ModelFileError(
            f"{path} does not hold what a model of {what} holds ({type(error).__name__}: {reason}). Make it anew."
        ) from None
