"""Test images as one GIF that cycles: what each looks like, where its defect is, what was found, and the verdict.

All frames share one palette and are never dithered, so that what does not change does not flicker. The panels are as
large as the limit of bytes allows.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from sapatchcore.atomic import atomic_write
from sapatchcore.data.images import read_mask
from sapatchcore.data.sources import read_image
from sapatchcore.datasets.samples import Dataset
from sapatchcore.errors import DataError
from sapatchcore.result import Result
from sapatchcore.score.verdict import Verdict
from sapatchcore.show.colours import INK, PAPER, UInt8Array, colours
from sapatchcore.show.overlay import PREDICTED, TRUTH, Mask, Scale, overlay, scale_of
from sapatchcore.show.page import ACCEPT, FAINT, REJECT, Frame, draw_page

WIDTHS = tuple(range(224, 95, -16))  # of a panel, in pixels; below the last one words would be too small
COLOURS = 255  # of the palette; the 256th stands for "as in the frame before"
SAMPLE = 60_000  # pixels from which the palette is made; more take seconds and change nothing that one sees
TRIAL = 6  # frames that tell how large all will be


@dataclass(frozen=True)
class GifFacts:
    """What was written. frames: in the GIF; dropped: left out as they did not fit; bytes: the file's; width: a panel's."""

    frames: int
    dropped: int
    bytes: int
    width: int


def choose(labels: Sequence[str], most: int) -> list[int]:
    """The places of at most ``most`` images, to be shown in this order: one of each label in turn, labels sorted.

    labels: n texts. Of each label's images, those that lie evenly in their order: never by how they turned out.
    """
    places = {label: [at for at, other in enumerate(labels) if other == label] for label in sorted(set(labels))}
    turns = [(turn, label) for turn in range(len(labels)) for label in places if turn < len(places[label])]
    turns = turns[: max(most, 0)]
    counts = Counter(label for _, label in turns)
    return [places[label][turn * len(places[label]) // counts[label]] for turn, label in turns]


def scale_for(result: Result, false_reject: float | None) -> Scale:
    """One scale for all maps of ``result``: dark at a typical patch, the pixel threshold in it where there is one."""
    typical, largest = float(np.median(result.patch_scores)), float(result.patch_scores.max())
    if result.calibration is None:
        return Scale(typical, None, max(largest, typical + 1e-6))
    return scale_of(result.pixel_threshold(false_reject), low=typical, high=largest)


def frames_of(result: Result, dataset: Dataset, places: Iterable[int], false_reject: float | None) -> Iterator[Frame]:
    """The test images at ``places`` as frames, each read when it is asked for.

    result: of ``dataset.test``, in its order. Without calibration there is no verdict, and no predicted region.
    """
    verdicts: Sequence[Verdict | None] = [None] * len(result)
    limit = 0.0
    if result.calibration is not None:
        verdicts, limit = result.verdicts(false_reject), result.pixel_threshold(false_reject)
    for at in places:
        sample, verdict, values = dataset.test[at], verdicts[at], result.maps[at]
        yield Frame(
            name=f"{sample.path.parent.name}/{sample.path.name}",
            label=sample.label,
            image=read_image(sample.path),
            truth=None if sample.masks is None else read_mask(sample.masks, result.sizes[at]),
            values=values,
            predicted=None if verdict is None else values > limit,
            score=float(result.scores[at]),
            p_value=None if verdict is None else verdict.p_value,
            rejected=None if verdict is None else verdict.rejected,
            kind=verdict.kind if verdict is not None else "",
        )


def pages(frames: Iterable[Frame], scale: Scale, *, title: str) -> Iterator[tuple[str, UInt8Array]]:
    """Each frame's label, and the frame as a picture of its own, (h, w, 3) uint8."""
    for number, frame in enumerate(frames, start=1):
        small = _reduced(frame, WIDTHS[0])
        page = draw_page(small, str(number), WIDTHS[0], small.image.shape[0], scale, title)
        yield frame.label, np.asarray(page)


def write_gif(
    frames: Iterable[Frame],
    path: Path,
    scale: Scale,
    *,
    title: str,
    milliseconds: int = 900,
    most_bytes: int = 8_000_000,
) -> GifFacts:
    """Write the frames in their order, for ever in a circle, into at most ``most_bytes``.

    frames: of any image sizes; each is scaled down when it is taken, so that a generator holds one large image at a time.
    title: as the category's name. milliseconds: for each frame, a multiple of 10. Where the frames do not fit even with
    the smallest panels, some are left out, evenly over their labels (see ``choose``).
    Raises DataError where there are no frames, where not even one fits, and where the file cannot be written.
    """
    small = [_reduced(frame, WIDTHS[0]) for frame in frames]
    if not small:
        raise DataError("A GIF needs at least one frame. Got none. Give at least one scored image.")
    palette = _palette(small, scale)

    def encode(chosen: Sequence[Frame], width: int) -> bytes:
        return _encoded([_reduced(frame, width) for frame in chosen], width, palette, scale, title, milliseconds)

    kept, data, width = small, b"", 0
    trial = _fewer(small, TRIAL)
    for width in WIDTHS:
        expected = len(encode(trial, width)) / len(trial) * len(small)
        if expected <= 1.1 * most_bytes or width == WIDTHS[-1]:  # a trial tells it to about a tenth
            data = encode(small, width)
            if len(data) <= most_bytes:
                break
    while len(data) > most_bytes:
        if len(kept) == 1:
            raise DataError(
                f"most_bytes must hold at least one frame. Got {most_bytes}, and one takes {len(data)}. Allow more bytes."
            )
        fit = int(0.97 * len(kept) * most_bytes / len(data))
        kept = _fewer(small, max(1, min(fit, len(kept) - 1)))
        data = encode(kept, width)

    def sentence(error: OSError) -> str:
        return f"{path} cannot be written: {error.strerror or error}. Free space, or name another file for the GIF."

    with atomic_write(path, DataError, sentence, make_folder=True) as part:
        part.write_bytes(data)
    return GifFacts(len(kept), len(small) - len(kept), len(data), width)


def _fewer(frames: Sequence[Frame], most: int) -> list[Frame]:
    """At most ``most`` of the frames, evenly over their labels, in their order."""
    return [frames[at] for at in sorted(choose([frame.label for frame in frames], most))]


def _reduced(frame: Frame, width: int) -> Frame:
    """The frame at a panel's size: as wide as it, or 1.5 times as high where the image is a tall one."""
    tall, wide = frame.image.shape[:2]
    share = min(width / wide, 1.5 * width / tall)
    size = (max(1, round(share * wide)), max(1, round(share * tall)))
    return replace(
        frame,
        image=np.asarray(Image.fromarray(frame.image).resize(size, Image.Resampling.LANCZOS)),
        values=np.asarray(Image.fromarray(frame.values).resize(size, Image.Resampling.BILINEAR)),
        truth=None if frame.truth is None else _reduced_mask(frame.truth, size),
        predicted=None if frame.predicted is None else _reduced_mask(frame.predicted, size),
    )


def _reduced_mask(mask: Mask, size: tuple[int, int]) -> Mask:
    """A pixel of the small mask is True where any of the large one's is: no speck is lost."""
    return np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)) > 0


def _palette(frames: Sequence[Frame], scale: Scale) -> Image.Image:
    """The one palette of all frames: the page's own colours, the legend's, and the best for the panels themselves."""
    own = np.array([PAPER, INK, FAINT, REJECT, ACCEPT, PREDICTED, TRUTH, (150, 150, 150), (225, 225, 225)])
    bar = np.rint(colours(np.linspace(0, 1, 65, dtype=np.float32), (0, 1)))
    fixed = np.concatenate([own, bar])
    seen = []
    for frame in frames:
        mixed = overlay(frame.image, frame.values, scale, truth=None, predicted=None)
        seen += [picture[::3, ::3].reshape(-1, 3) for picture in (frame.image, mixed)]
    pixels = np.concatenate(seen)
    strip = Image.fromarray(pixels[None, :: 1 + len(pixels) // SAMPLE])
    found = strip.quantize(COLOURS - len(fixed), Image.Quantize.MEDIANCUT, kmeans=1).getpalette("RGB") or []
    spare = [(255, 0, level) for level in range(256)]  # where the images have few colours
    # Each once, as Pillow's writer mixes up twins.
    entries = list(
        dict.fromkeys(map(tuple, np.concatenate([fixed, np.reshape(found, (-1, 3)), spare]).astype(int).tolist()))
    )
    palette = Image.new("P", (1, 1))
    palette.putpalette([level for entry in entries[:COLOURS] for level in entry])
    return palette


def _encoded(
    frames: Sequence[Frame], width: int, palette: Image.Image, scale: Scale, title: str, milliseconds: int
) -> bytes:
    """The GIF's bytes. frames: at their final size."""
    height = max(frame.image.shape[0] for frame in frames)
    counts = (f"{at} / {len(frames)}" for at in range(1, len(frames) + 1))
    pages = (
        draw_page(frame, count, width, height, scale, title).quantize(palette=palette, dither=Image.Dither.NONE)
        for frame, count in zip(frames, counts, strict=True)
    )
    out = io.BytesIO()
    first = next(pages)
    first.save(
        out,
        "GIF",
        save_all=True,
        append_images=pages,
        duration=milliseconds,
        loop=0,
        optimize=True,
        palette=bytes(palette.getpalette("RGB") or ()),
        transparency=COLOURS,
    )
    return out.getvalue()
