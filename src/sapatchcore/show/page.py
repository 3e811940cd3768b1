"""One test image as a page: the image, its ground truth, its map, both together, and the verdict in large letters."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image, ImageDraw

from sapatchcore.show.colours import INK, PAPER, Colour, Float32, UInt8Array
from sapatchcore.show.overlay import TRUTH, Mask, Scale, contours, font, heat, legend, overlay

HEADS = ("image", "ground truth", "anomaly map", "overlay")
REJECT: Colour = (190, 60, 0)  # vermilion, filled; ACCEPT is an open box: two things in grey print too
ACCEPT: Colour = (0, 95, 60)
FAINT: Colour = (90, 90, 90)


@dataclass(frozen=True)
class Frame:
    """One test image. name: its file. label: "good" or the defect. image: (h, w, 3) uint8. truth: (h, w) bool, True
    where defective, None where not known. values: (h, w) float32, its anomaly map. predicted: (h, w) bool or None.
    rejected: the verdict, None where there is none. kind: "local", "co-occurrence", "both" or ""."""

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


def draw_page(frame: Frame, count: str, width: int, height: int, scale: Scale, title: str) -> Image.Image:
    """An RGB picture. frame: no larger than a panel. count: "3 / 40". width, height: of each panel. title: as a category."""
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
    _write(pen, (gap, gap), f"{title}   {frame.name}", room, round(words.size), INK, "la")
    for place, panel in enumerate(_panels(frame, scale)):
        x = gap + place * (width + gap)
        pen.text((x + width / 2, top - gap // 2), HEADS[place], FAINT, font(words.size - 1), anchor="md")
        canvas.paste(panel, (x + (width - panel.width) // 2, top + (height - panel.height) // 2))
    y = top + height + gap
    _verdict(pen, frame, (gap, y, canvas.width - gap, y + band))
    canvas.paste(Image.fromarray(legend(canvas.width - 2 * gap, foot, scale)), (gap, y + band + gap))
    return canvas


def _verdict(pen: ImageDraw.ImageDraw, frame: Frame, box: tuple[int, int, int, int]) -> None:
    """The band with the verdict, large, and beside it what it stands on and whether it is right."""
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
    facts = [f"score {frame.score:.3g}"]
    if frame.p_value is not None:
        facts.insert(0, f"p = {frame.p_value:.2g}")
    if frame.kind:
        facts.append(frame.kind)
    right_or_wrong, mark = "", INK
    if frame.rejected is not None and frame.rejected == (frame.label != "good"):
        right_or_wrong, mark = "correct", ACCEPT
    elif frame.rejected is not None:
        right_or_wrong, mark = "WRONG: " + ("false alarm" if frame.rejected else "missed defect"), REJECT
    x = left + block + tall // 5
    lines = [("   ".join(facts), INK), (f"true label: {frame.label}", INK), (right_or_wrong, mark)]
    size = max(11, round(tall / 3.7))
    for place, (text, colour) in enumerate(lines):
        y = top + (place + 0.5) * tall / 3
        _write(pen, (x, y), text, right - x, size, colour, "lm")


def _write(
    pen: ImageDraw.ImageDraw, place: tuple[float, float], text: str, room: float, size: int, ink: Colour, anchor: str
) -> None:
    """The text in at most ``room`` pixels: in smaller letters where it is longer, and with its middle left out where that
    does not help."""
    least = min(size, 11)
    while size > least and font(size).getlength(text) > room:
        size -= 1
    kept, shown = len(text), text
    while kept > 2 and font(size).getlength(shown) > room:
        kept -= 1
        shown = text[: kept // 2] + "..." + text[len(text) - (kept - kept // 2) :]
    pen.text(place, shown, ink, font(size), anchor=anchor)


def _panels(frame: Frame, scale: Scale) -> list[Image.Image]:
    """The four panels of a frame at their final size."""
    if frame.truth is None:
        known = Image.new("RGB", frame.image.shape[1::-1], (225, 225, 225))
        text = "no ground\ntruth known"
        middle = (known.width / 2, known.height / 2)
        ImageDraw.Draw(known).text(middle, text, INK, font(max(11, known.width // 10)), anchor="mm", align="center")
    else:
        known = Image.fromarray(contours(frame.image, frame.truth, TRUTH, "dashed"))
    mixed = overlay(frame.image, frame.values, scale, truth=frame.truth, predicted=frame.predicted)
    alone = heat(frame.image, frame.values, scale, 1.0)  # the legend's colours themselves; the overlay says where
    return [Image.fromarray(frame.image), known, Image.fromarray(alone), Image.fromarray(mixed)]
