"""From a scored image to what is recorded and answered: verdict, regions, maps as pictures, explanation."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from sapatchcore.data.transform import Size
from sapatchcore.result import Result
from sapatchcore.server.batching import Place
from sapatchcore.server.schemas import (
    CauseSeen,
    ExplanationSeen,
    FoundRegion,
    GoodPatchSeen,
    MapPictures,
)
from sapatchcore.server.worker import apart
from sapatchcore.show.drawing import colours, ramp

if TYPE_CHECKING:
    from sapatchcore.score.explain import Explanation

Float32 = npt.NDArray[np.float32]
MapKind = Literal["none", "grey", "colour"]
MOST_MAP_PIXELS = 4_000_000  # of an answered map: it is smooth, so a smaller one shows the same
MOST_CAUSES = 3
_STEPS = 1024  # of the colours' table
_COMPRESSION = 1  # of the PNGs, of 9: five times as fast, a tenth larger


@dataclass(frozen=True)
class Pictures:
    """What an answer shows beside its numbers."""

    regions: list[FoundRegion]
    maps: MapPictures | None
    explanation: ExplanationSeen | None


def pictures_of(place: Place, rate: float | None, kind: MapKind, explain: bool) -> Pictures:
    """Regions, and what was asked for. explain: only where the job said so, and the model can."""
    result = place.result
    limit = None if rate is None else result.pixel_threshold(rate)
    regions = [] if rate is None else result.regions(0, rate)
    return Pictures(
        [FoundRegion(box=list(one.box), area=one.area, peak=one.peak) for one in regions],
        None if kind == "none" else _maps(result, kind, limit),
        _explained(place, rate) if explain and rate is not None else None,
    )


def _maps(result: Result, kind: MapKind, limit: float | None) -> MapPictures:
    result = replace(result, sizes=(_map_size(result.sizes[0]),))
    whole = result.maps[0]
    largest = float(whole.max())
    scale = max(largest, 1.25 * limit if limit is not None and kind == "colour" else 0.0) or 1.0
    full = limit if limit else scale / 2
    usual = 0.0 if result.calibration is None else min(result.calibration.typical, 0.9 * full)
    pictures: dict[str, Any] = {}
    for name, values in (("whole", whole), ("local", result.local_maps[0]), ("context", result.context_maps[0])):
        picture = _grey(values, scale) if kind == "grey" else _colour(values, scale, usual, full)
        pictures[name] = _png(picture)
    return MapPictures(**pictures, scale=scale)


def _map_size(size: Size) -> Size:
    shrink = (MOST_MAP_PIXELS / (size[0] * size[1])) ** 0.5
    return size if shrink >= 1 else (max(1, int(size[0] * shrink)), max(1, int(size[1] * shrink)))


def _grey(values: Float32, scale: float) -> Image.Image:
    return Image.fromarray((values * (65535 / scale) + 0.5).astype(np.uint16))  # no value is negative, or beyond scale


def _colour(values: Float32, scale: float, usual: float, full: float) -> Image.Image:
    """As opaque as in the report's overlays."""
    steps = np.linspace(0, scale, _STEPS, dtype=np.float32)
    opacity = ramp(steps, usual, full)
    table = np.concatenate((colours(steps, (0.0, scale)), 255 * opacity[:, None]), axis=1)
    table[opacity == 0] = 0  # what nobody sees need not be stored
    places = (values * ((_STEPS - 1) / scale) + 0.5).astype(np.uint16)
    return Image.fromarray(np.rint(table).astype(np.uint8)[places], "RGBA")


def _png(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=_COMPRESSION)
    return base64.b64encode(file.getvalue()).decode("ascii")


def _explained(place: Place, rate: float) -> ExplanationSeen:
    ask = partial(place.scored.explain, place.at, false_reject=rate, most=MOST_CAUSES)
    found: Explanation = apart("explain", ask).result()
    causes = []
    for cause in found.causes:
        good = cause.good
        seen = GoodPatchSeen(
            image=good.image,
            box=list(good.box),
            thumbnail=base64.b64encode(good.thumbnail).decode("ascii") or None,
            thumbnail_box=list(good.thumbnail_box),
        )
        causes.append(
            CauseSeen(
                box=list(cause.region.box) if cause.region is not None else None,
                score=cause.score,
                local=cause.local,
                context=cause.context,
                good=seen,
                drawn_from=cause.drawn_from.tolist(),
            )
        )
    return ExplanationSeen(causes=causes)
