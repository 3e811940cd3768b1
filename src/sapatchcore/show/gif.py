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
import scipy.ndimage  # noqa: F401 - what draws the lines: where it is missing, that is said before any image is read
from PIL import Image, ImageDraw

from sapatchcore.atomic import atomic_write
from sapatchcore.data.images import read_mask
from sapatchcore.data.sources import read_image
from sapatchcore.datasets.samples import Dataset
from sapatchcore.errors import DataError
from sapatchcore.result import Result
from sapatchcore.score.verdict import Verdict
from sapatchcore.show import drawing
from sapatchcore.show.drawing import INK, PAPER, Colour, Float32, Mask, Scale, Seen, UInt8Array, font
from sapatchcore.show.maps import legend

WIDTHS = tuple(range(224, 95, -16))  # of a panel, in pixels; below the last one words would be too small
COLOURS = 255  # of the palette; the 256th stands for "as in the frame before"
SAMPLE = 60_000  # pixels from which the palette is made; more take seconds and change nothing that one sees
TRIAL = 6  # frames that tell how large all will be
HEADS = ("image", "ground truth", "anomaly map", "overlay")
REJECT: Colour = (190, 60, 0)  # vermilion, filled; ACCEPT is an open box: two things in grey print too
ACCEPT: Colour = (0, 95, 60)
FAINT: Colour = (90, 90, 90)
BLANK: Colour = (225, 225, 225)


@dataclass(frozen=True)
class Frame:
    """One test image. name: its file. label: "good" or the defect. image: (h, w, 3) uint8. truth: (h, w) bool, True
    where defective, None where not known. values: (h, w) float32, its anomaly map. predicted: (h, w) bool or None.
    rejected: the verdict, None where there is none. kind: "local", "co-occurrence", "unclear" or "". seen: what was
    inspected, None for all."""

    name: str
    label: str
    image: UInt8Array
    truth: Mask | None
    values: Float32
    predicted: Mask | None
    score: float
    p_value: float | None
    rejected: bool | None
    kind: str
    seen: Seen | None = None


@dataclass(frozen=True)
class WrittenGif:
    """frames: in the GIF; dropped: left out as they did not fit; bytes: of the file; width: of a panel, in pixels."""

    frames: int
    dropped: int
    bytes: int
    width: int


def choose(labels: Sequence[str], most: int) -> list[int]:
    """The indices of at most ``most`` images, to be shown in this order: one of each label in turn, labels sorted.

    labels: n texts. Of each label, images at even steps of their order: never by how they turned out.
    """
    indices = {label: [i for i, other in enumerate(labels) if other == label] for label in sorted(set(labels))}
    order = [(turn, label) for turn in range(len(labels)) for label in indices if turn < len(indices[label])]
    order = order[: max(most, 0)]
    counts = Counter(label for _, label in order)
    return [indices[label][turn * len(indices[label]) // counts[label]] for turn, label in order]


def frames_of(result: Result, dataset: Dataset, indices: Iterable[int], false_reject: float | None) -> Iterator[Frame]:
    """These test images as frames, each read when it is asked for.

    result: of ``dataset.test``, in its order. Without calibration there is no verdict, and no predicted region.
    Raises DataError where an image or a mask cannot be read.
    """
    verdicts: Sequence[Verdict | None] = [None] * len(result)
    limit = 0.0
    if result.calibration is not None:
        verdicts, limit = result.verdicts(false_reject), result.pixel_threshold(false_reject)
    for i in indices:
        sample, verdict, values = dataset.test[i], verdicts[i], result.maps[i]
        yield Frame(
            name=f"{sample.path.parent.name}/{sample.path.name}",
            label=sample.label,
            image=read_image(sample.path),
            truth=None if sample.masks is None else read_mask(sample.masks, result.sizes[i]),
            values=values,
            predicted=None if verdict is None else values > limit,
            score=float(result.scores[i]),
            p_value=None if verdict is None else verdict.p_value,
            rejected=None if verdict is None else verdict.rejected,
            kind=verdict.kind if verdict is not None else "",
            seen=(result.resize, result.crop),
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
) -> WrittenGif:
    """Write the frames in their order, as a GIF that repeats for ever, into at most ``most_bytes``.

    frames: of any image sizes; each is scaled down when it is taken, so that a generator holds one large image at a time.
    title: such as the category's name. milliseconds: of each frame, a multiple of 10. Where the frames do not fit even
    with the smallest panels, some are left out, evenly over their labels (see ``choose``).
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
    return WrittenGif(len(kept), len(small) - len(kept), len(data), width)


def _fewer(frames: Sequence[Frame], most: int) -> list[Frame]:
    """At most ``most`` of the frames, evenly over their labels, in their order."""
    return [frames[i] for i in sorted(choose([frame.label for frame in frames], most))]


def _reduced(frame: Frame, width: int) -> Frame:
    """The frame at a panel's size: as wide as it, or 1.5 times as high where the image is a tall one."""
    tall, wide = frame.image.shape[:2]
    share = min(width / wide, 1.5 * width / tall)
    height, width = max(1, round(share * tall)), max(1, round(share * wide))
    return replace(
        frame,
        image=np.asarray(Image.fromarray(frame.image).resize((width, height), Image.Resampling.LANCZOS)),
        values=np.asarray(Image.fromarray(frame.values).resize((width, height), Image.Resampling.BILINEAR)),
        truth=None if frame.truth is None else drawing.resized_mask(frame.truth, (height, width)),
        predicted=None if frame.predicted is None else drawing.resized_mask(frame.predicted, (height, width)),
    )


def _palette(frames: Sequence[Frame], scale: Scale) -> Image.Image:
    """The one palette of all frames: the page's own colours, the legend's, and the best for the panels themselves."""
    own = np.array([PAPER, INK, FAINT, REJECT, ACCEPT, drawing.PREDICTED, drawing.TRUTH, (150, 150, 150), BLANK])
    bar = np.rint(drawing.colours(np.linspace(0, 1, 65, dtype=np.float32), (0, 1)))
    fixed = np.concatenate([own, bar])
    seen = []
    for frame in frames:
        mixed = drawing.overlay(frame.image, frame.values, scale, truth=None, predicted=None, seen=frame.seen)
        seen += [picture[::3, ::3].reshape(-1, 3) for picture in (frame.image, mixed)]
    pixels = np.concatenate(seen)
    strip = Image.fromarray(pixels[None, :: 1 + len(pixels) // SAMPLE])
    found = strip.quantize(COLOURS - len(fixed), Image.Quantize.MEDIANCUT, kmeans=1).getpalette("RGB") or []
    spare = [(255, 0, level) for level in range(256)]  # where the images have few colours
    everything = np.concatenate([fixed, np.reshape(found, (-1, 3)), spare]).astype(int).tolist()
    entries = list(dict.fromkeys(map(tuple, everything)))  # each once: Pillow's writer confuses equal ones
    palette = Image.new("P", (1, 1))
    palette.putpalette([level for entry in entries[:COLOURS] for level in entry])
    return palette


def _encoded(
    frames: Sequence[Frame], width: int, palette: Image.Image, scale: Scale, title: str, milliseconds: int
) -> bytes:
    """The GIF's bytes. frames: at their final size."""
    height = max(frame.image.shape[0] for frame in frames)
    drawn = (
        draw_page(frame, f"{number} / {len(frames)}", width, height, scale, title)
        for number, frame in enumerate(frames, start=1)
    )
    quantised = (page.quantize(palette=palette, dither=Image.Dither.NONE) for page in drawn)
    out = io.BytesIO()
    next(quantised).save(
        out,
        "GIF",
        save_all=True,
        append_images=quantised,
        duration=milliseconds,
        loop=0,
        optimize=True,
        palette=bytes(palette.getpalette("RGB") or ()),
        transparency=COLOURS,
    )
    return out.getvalue()


def draw_page(frame: Frame, count: str, width: int, height: int, scale: Scale, title: str) -> Image.Image:
    """The frame as an RGB picture: four panels, the verdict in large letters, the legend.

    frame: no larger than a panel. count: such as "3 / 40". width, height: of a panel, in pixels.
    """
    gap = max(4, width // 28)
    words = font(max(13, width // 11))
    line = round(1.35 * words.size)
    foot = max(40, width // 4)  # of the legend
    top = gap + 2 * line + gap // 2
    whole = 4 * width + 5 * gap
    band = round(min(3.7 * line, whole / 9))
    canvas = Image.new("RGB", (whole, top + height + band + foot + 3 * gap), PAPER)
    pen = ImageDraw.Draw(canvas)
    pen.text((canvas.width - gap, gap), count, INK, words, anchor="ra")
    room = canvas.width - 3 * gap - words.getlength(count)
    drawing.write_fitted(pen, (gap, gap), f"{title}   {frame.name}", room, round(words.size), INK, "la")
    for column, (head, panel) in enumerate(zip(HEADS, _panels(frame, scale), strict=True)):
        x = gap + column * (width + gap)
        pen.text((x + width / 2, top - gap // 2), head, FAINT, font(words.size - 1), anchor="md")
        canvas.paste(panel, (x + (width - panel.width) // 2, top + (height - panel.height) // 2))
    y = top + height + gap
    _verdict(pen, frame, (gap, y, canvas.width - gap, y + band))
    canvas.paste(Image.fromarray(legend(canvas.width - 2 * gap, foot, scale)), (gap, y + band + gap))
    return canvas


def _verdict(pen: ImageDraw.ImageDraw, frame: Frame, box: tuple[int, int, int, int]) -> None:
    """The band with the verdict, large, beside it its figures and whether it is right."""
    left, top, right, bottom = box
    tall = bottom - top
    middle = (top + bottom) / 2
    block = round(3.6 * tall)
    word = {True: "REJECT", False: "ACCEPT", None: "no verdict"}[frame.rejected]
    ink = {True: PAPER, False: ACCEPT, None: FAINT}[frame.rejected]
    fill, edge = (REJECT, REJECT) if frame.rejected else (PAPER, ink)
    pen.rectangle((left, top, left + block, bottom), fill, edge, max(2, tall // 16))
    large = font(round(tall * (0.85 if frame.rejected is not None else 0.6)))
    pen.text((left + block / 2, middle), word, ink, large, anchor="mm", stroke_width=max(1, tall // 40))
    figures = [] if frame.p_value is None else [f"p = {frame.p_value:.2g}"]
    figures += [f"score {frame.score:.3g}", *([frame.kind] if frame.kind else [])]
    right_or_wrong, mark = "", INK
    if frame.rejected is not None and frame.rejected == (frame.label != "good"):
        right_or_wrong, mark = "correct", ACCEPT
    elif frame.rejected is not None:
        right_or_wrong, mark = "WRONG: " + ("false alarm" if frame.rejected else "missed defect"), REJECT
    x = left + block + tall // 5
    lines = [("   ".join(figures), INK), (f"true label: {frame.label}", INK), (right_or_wrong, mark)]
    size = max(11, round(tall / 3.7))
    for line, (text, colour) in enumerate(lines):
        y = top + (line + 0.5) * tall / 3
        drawing.write_fitted(pen, (x, y), text, right - x, size, colour, "lm")


def _panels(frame: Frame, scale: Scale) -> list[Image.Image]:
    """The four panels of a frame at their final size."""
    if frame.truth is None:
        truth = Image.new("RGB", frame.image.shape[1::-1], BLANK)
        text = "no ground\ntruth known"
        middle = (truth.width / 2, truth.height / 2)
        ImageDraw.Draw(truth).text(middle, text, INK, font(max(11, truth.width // 10)), anchor="mm", align="center")
    else:
        truth = Image.fromarray(drawing.contours(frame.image, frame.truth, drawing.TRUTH, "dashed"))
    mixed = drawing.overlay(
        frame.image, frame.values, scale, truth=frame.truth, predicted=frame.predicted, seen=frame.seen
    )
    # At full opacity the map has the legend's very colours; the overlay says where in the image they lie.
    alone = drawing.heat(frame.image, frame.values, scale, 1.0)
    return [Image.fromarray(frame.image), truth, Image.fromarray(alone), Image.fromarray(mixed)]
