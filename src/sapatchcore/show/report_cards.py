"""The pictures of a report: one test image with its maps, and each cause with the nearest good patch.

Every picture is drawn once, small, as WebP inside the page. Each kind of map has one scale for the whole set. A patch and
its nearest good one are cut out alike, from what the network saw of either image, so that one compares like with like.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image, ImageDraw

from sapatchcore.data.images import read_mask, read_thumbnail
from sapatchcore.data.pixels import prepare
from sapatchcore.datasets.samples import Sample
from sapatchcore.result import Result
from sapatchcore.score.anomaly_score import anomaly_map, part_map
from sapatchcore.score.explain import Cause, Explanation
from sapatchcore.score.regions import is_whole
from sapatchcore.show import drawing
from sapatchcore.show.drawing import INK, PREDICTED, TRUTH, Float32, Scale, UInt8Array
from sapatchcore.show.maps import legend, scale_for

PANEL, MAP, SMALL = 400, 256, 144  # pixels of a picture's longer side: the image, its maps, the pictures of a cause
AROUND = 7  # cells a side that a cut-out shows, the patch in its middle
QUALITY = 84  # WebP
LEGEND = (460, 46)  # width, height
MAPS = ("anomaly map", "local part", "context part", "global part")  # the last where there is one
Share = tuple[float, float, float, float]  # top, left, height, width, of a picture's height and width


@dataclass(frozen=True)
class Picture:
    """source: a data: address. width, height: pixels. caption; alt: the same for those who cannot see it."""

    source: str
    width: int
    height: int
    caption: str
    alt: str


@dataclass(frozen=True)
class Scales:
    """Of the anomaly map, in units of the pixel threshold where there is one; of its local and its context part; and of what each
    place adds to global score², None without a global part."""

    whole: Scale
    local: Scale
    context: Scale
    whole_image: Scale | None = None

    @classmethod
    def of(cls, result: Result, false_reject: float | None) -> Scales:
        """One scale each, for all images: dark at a typical patch, brightest at the largest; of the global part dark at 0, since
        what lies below makes an image more usual."""
        parts = []
        for values in (result.local_patches, result.context_patches):
            typical = float(np.median(values))
            parts.append(Scale(typical, None, max(float(values.max()), typical + 1e-6)))
        if result.global_patches is not None:
            parts.append(Scale(0.0, None, max(float(result.global_patches.max()), 1e-6)))
        return cls(scale_for(result, false_reject), *parts)

    def legend(self) -> Picture:
        """The anomaly map's colours with their scores, and the key of both lines."""
        alt = f"Colours of the anomaly map: dark from {self.whole.low:.4g}, brightest from {self.whole.high:.4g}"
        if self.whole.threshold is not None:
            alt += f", pixel threshold {self.whole.threshold:.4g}"
        return _picture(legend(*LEGEND, self.whole), MAPS[0], alt, lossless=True)

    def ramps(self) -> list[tuple[str, str, str]]:
        """The parts' maps: caption with the unit, and the numbers of the darkest and the brightest colour."""
        captions = (f"{MAPS[1]} in scores", f"{MAPS[2]} in scores", f"{MAPS[3]} in shares of global score²")
        scales = (self.local, self.context, self.whole_image)
        return [
            (caption, f"{scale.low:.4g}", f"{scale.high:.4g}")
            for caption, scale in zip(captions, scales, strict=True)
            if scale is not None
        ]


@dataclass(frozen=True)
class CausePictures:
    """One cause. words: where, how large, how high. pictures: the patch, the nearest good one, its whole image, and where
    the context was drawn from. good: the name of the good image."""

    words: str
    pictures: tuple[Picture, ...]
    good: str


def panels(
    result: Result, index: int, sample: Sample, image: UInt8Array, scales: Scales, pixel_threshold: float | None
) -> tuple[Picture, ...]:
    """The image with contours, and its maps: three, four with a global part. image: (h, w, 3) uint8."""
    size, seen = result.sizes[index], (result.resize, result.crop)
    pixels = drawing.shaded(_resized(image, _within(size, min(PANEL, max(MAP, *size)))), seen)
    words = [] if is_whole(*seen) else ["the dark border was not inspected"]
    if pixel_threshold is not None:  # the regions as they are in the image's own pixels
        found = result.maps[index] > pixel_threshold
        pixels = drawing.contours(pixels, drawing.resized_mask(found, pixels.shape[:2]), PREDICTED, "solid")
        words.append("predicted regions solid")
    if sample.masks is None:
        words.append("ground truth not known")
    elif sample.masks:
        truth = read_mask(sample.masks, size)
        pixels = drawing.contours(pixels, drawing.resized_mask(truth, pixels.shape[:2]), TRUTH, "dashed")
        words.append("ground truth dashed")
    pictures = [_picture(pixels, "image", f"{sample.path.name}: {', '.join(words) or 'image'}")]

    small = _within(size, MAP)
    ground = _resized(image, small)
    scores, how = result.patch_scores[index], (small, result.resize, result.crop)
    maps = (
        (anomaly_map(scores, *how), scales.whole),
        (part_map(scores, result.local_patches[index], *how), scales.local),
        (part_map(scores, result.context_patches[index], *how), scales.context),
    )
    for caption, (values, scale) in zip(MAPS, maps, strict=False):
        drawn = drawing.overlay(ground, values, scale, truth=None, predicted=None, seen=seen)
        pictures.append(_picture(drawn, caption, f"{caption.capitalize()} of {sample.path.name}"))
    if result.global_patches is not None and scales.whole_image is not None:
        drawn = shares_over(ground, anomaly_map(result.global_patches[index], *how), scales.whole_image)
        alt = f"{MAPS[3].capitalize()} of {sample.path.name}"
        pictures.append(_picture(drawing.shaded(drawn, seen), MAPS[3], alt))
    return tuple(pictures)


def shares_over(image: UInt8Array, values: Float32, scale: Scale) -> UInt8Array:
    """(h, w, 3) uint8: the image in grey, heat where places add to a sum, clear at 0 and below. A sum of many small shares has
    no threshold to stand out from: the colours are as opaque as can be from a third of the largest share on."""
    return drawing.heat(image, values, scale, drawing.ramp(values, -scale.high / 3, scale.high / 3))


def cause_pictures(
    explanation: Explanation, result: Result, image: UInt8Array, limit: float, names: dict[str, str]
) -> tuple[CausePictures, ...]:
    """The pictures of an image's causes. limit: the pixel threshold. names: what the report calls each training image."""
    seen = prepare(image, result.resize, result.crop)
    height, width = result.patch_scores.shape[1:]
    found = []
    for number, cause in enumerate(explanation.causes, start=1):
        row, column = cause.cell
        own = (row / height, column / width, 1 / height, 1 / width)
        good = ", ".join(filter(None, (names.get(cause.good.image, cause.good.image), cause.good.turned)))
        pictures = [_picture(cut_out(seen, own), "this image", "The patch in question, boxed, and what is around it")]
        if cause.good.thumbnail:
            thumbnail = read_thumbnail(cause.good.thumbnail)
            box = cause.good.thumbnail_box
            cut = _picture(
                cut_out(thumbnail, box), "nearest good", "The nearest good patch, boxed, and what is around it"
            )
            pictures += [cut, _picture(boxed(thumbnail, box, SMALL), "found in", f"The patch in {good}")]
        drawn, share = drawn_over(seen, cause.drawn_from, own)
        alt = f"Where the patch's context was drawn from; the largest place has {share:.0%} of it"
        pictures.append(_picture(drawn, "context from", alt))
        found.append(CausePictures(_words(cause, number, limit), tuple(pictures), good))
    return tuple(found)


def cut_out(picture: UInt8Array, box: Share) -> UInt8Array:
    """(SMALL, SMALL, 3) uint8: AROUND cells of the picture, the boxed one in the middle or as near to it as the border lets."""
    starts, sides = [], []
    for pixels, start, extent in zip(picture.shape[:2], box[:2], box[2:], strict=True):
        side = min(AROUND * extent, 1.0) * pixels
        starts.append(min(max((start + extent / 2) * pixels - side / 2, 0), pixels - side))
        sides.append(side)
    (top, left), (height, width) = starts, sides
    part = (left, top, left + width, top + height)
    cut = Image.fromarray(picture).resize((SMALL, SMALL), Image.Resampling.BICUBIC, box=part)
    inside = (
        (box[0] * picture.shape[0] - top) / height,
        (box[1] * picture.shape[1] - left) / width,
        box[2] * picture.shape[0] / height,
        box[3] * picture.shape[1] / width,
    )
    return boxed(np.asarray(cut), inside, SMALL)


def boxed(picture: UInt8Array, box: Share, side: int) -> UInt8Array:
    """The picture with its longer side ``side``, and a cased line around the box, outside of it."""
    pixels = _resized(picture, _within((picture.shape[0], picture.shape[1]), side))
    page = Image.fromarray(pixels)
    pen, (height, width) = ImageDraw.Draw(page), pixels.shape[:2]
    top, left = box[0] * height, box[1] * width
    corners = (round(left), round(top), round(left + box[3] * width) - 1, round(top + box[2] * height) - 1)
    for colour, far in ((INK, 3), (PREDICTED, 2), (PREDICTED, 1)):  # a tiny box keeps its lines apart
        pen.rectangle((corners[0] - far, corners[1] - far, corners[2] + far, corners[3] + far), outline=colour)
    return np.asarray(page)


def drawn_over(seen: UInt8Array, shares: Float32, box: Share) -> tuple[UInt8Array, float]:
    """Where a patch's context score comes from, as heat over the image in grey, the patch boxed.

    seen: (h, w, 3) uint8, what the network saw. shares: (h, w) float32 of context²; those below 0 lower it, and stay
    clear. Also returns the largest share of the sum, in [0, 1] where none lowers it.
    """
    size = _within((seen.shape[0], seen.shape[1]), SMALL)
    positive = Image.fromarray(np.maximum(shares, 0))
    values: Float32 = np.asarray(positive.resize((size[1], size[0]), Image.Resampling.BILINEAR))
    part = values / np.float32(max(float(values.max()), 1e-30))
    picture = shares_over(_resized(seen, size), part, Scale(0.0, None, 1.0))
    total = float(shares.sum())
    return boxed(picture, box, SMALL), max(float(shares.max()), 0.0) / total if total > 0 else 0.0


def _words(cause: Cause, number: int, limit: float) -> str:
    if cause.region is None:
        return "No pixel above the pixel threshold: the image's worst patch"
    top, left, height, width = cause.region.box
    by = f", most by {cause.network}" if cause.network else ""
    times = f", peak {cause.region.peak / limit:.2f}× the pixel threshold" if limit > 0 else ""
    return f"Region {number}: {width}×{height} px at ({left}, {top}), {cause.region.area} px{times}{by}"


def _within(size: tuple[int, int], side: int) -> tuple[int, int]:
    """(h, w) with the longer side ``side``."""
    share = side / max(size)
    return max(1, round(size[0] * share)), max(1, round(size[1] * share))


def _resized(image: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    if image.shape[:2] == size:
        return image
    smaller = size[0] < image.shape[0]
    how = Image.Resampling.LANCZOS if smaller else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), how, reducing_gap=3.0 if smaller else None))


def _picture(pixels: UInt8Array, caption: str, alt: str, *, lossless: bool = False) -> Picture:
    out = io.BytesIO()
    save = partial(Image.fromarray(pixels).save, out, "WEBP")
    save(lossless=True, quality=80, method=4) if lossless else save(quality=QUALITY, method=2)
    source = "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode("ascii")
    return Picture(source, pixels.shape[1], pixels.shape[0], caption, alt)
