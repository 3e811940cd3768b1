"""Defects made on a user's own good images, as a data set in MVTec AD's layout with a sheet of examples, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from sapatchcore.data.sources import ImageSource, read_image, source_name
from sapatchcore.datasets.samples import GOOD, GROUND_TRUTH, TEST, TRAIN, named_folder
from sapatchcore.defects.foreground import LOOKED_AT, Foreground
from sapatchcore.defects.made import KINDS, VERSION, MadeDefect, generator, make_defect
from sapatchcore.defects.subject import Subject
from sapatchcore.errors import DataError, SettingsError
from sapatchcore.show.sheet import Example, sheet_png
from sapatchcore.synth.write import new_folder, png, write_below, write_facts

HELD_OUT_EVERY = 5  # good images: every fifth is tested on, the others are learned from
MOST_OF_A_KIND = 40  # made where no number is asked for
OTHERS_TRIED = 4  # further images tried where one does not allow a kind
SHOWN = 3  # examples of each kind on the sheet
SHEET = "examples.png"


@dataclass(frozen=True)
class WrittenDefects:
    """What lies on disk. train: good images to learn from. test: images of each kind, "good" first. left_out: the kinds that no
    image allowed. sheet: the picture of examples."""

    folder: Path
    version: int
    train: int
    test: dict[str, int]
    left_out: tuple[str, ...]
    sheet: Path


def write_defects(
    out: Path,
    images: Sequence[ImageSource],
    *,
    count: int | None = None,
    seed: int = 0,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> WrittenDefects:
    """Make defects on good images, as a data set in ``out``, a new or an empty folder.

    images: two or more. Every fifth, and at least one, is held out: as it is in test/good, and with made defects in test/<kind>;
    the others are in train/good. count: images of each kind; None: as many as are held out, at most MOST_OF_A_KIND. Where it is
    more than these, each is used more than once, for other defects. A made image depends on the images, its kind, its number
    and the seed alone. progress: called with the stage, images done and images in all.

    Raises SettingsError for a value out of range; DataError where there are fewer than two images, one cannot be used, they
    allow no defect, or ``out`` holds something or cannot be written. Until all is there nothing has the data set's name.
    """
    if seed < 0:
        raise SettingsError(f"seed must be 0 or more. Got {seed}.")
    if count is not None and count < 1:
        raise SettingsError(f"test must be 1 or more. Got {count}.")
    if len(images) < 2:
        raise DataError(f"Made defects need two good images or more, one of them held out. Got {len(images)}.")
    apart = set(range(HELD_OUT_EVERY - 1, len(images), HELD_OUT_EVERY)) or {len(images) - 1}
    held_out = [image for index, image in enumerate(images) if index in apart]
    learned = [image for index, image in enumerate(images) if index not in apart]
    count = min(len(held_out), MOST_OF_A_KIND) if count is None else count
    out = named_folder(out)
    with new_folder(out) as part:
        foreground = Foreground.of([read_image(one, source_name(one, index)) for index, one in _spread(learned)])
        total, done = len(images) + count * len(KINDS), 0

        def add(path: Path, content: bytes) -> None:
            write_below(part, path, content)

        def step() -> None:
            nonlocal done
            done += 1
            if progress is not None:
                progress("images", done, total)

        for folder, sources in ((Path(TRAIN, GOOD), learned), (Path(TEST, GOOD), held_out)):
            for number, source in enumerate(sources):
                add(folder / f"{number:03}.png", png(read_image(source, source_name(source, number))))
                step()

        @lru_cache(maxsize=2 * (1 + OTHERS_TRIED))
        def subject(index: int) -> Subject:
            return foreground.find(read_image(held_out[index], source_name(held_out[index], index)))

        made: dict[str, int] = dict.fromkeys(KINDS, 0)
        examples: dict[str, list[Example]] = {kind: [] for kind in KINDS}
        for number in range(count):
            for kind in KINDS:
                # What the first images do not allow, others of the same part do not either.
                hopeless = number > OTHERS_TRIED and not made[kind]
                found = None if hopeless else _made(subject, len(held_out), kind, number, seed, foreground)
                if found is not None:
                    made[kind] += 1
                    name = f"{number:03}"
                    add(Path(TEST, kind, f"{name}.png"), png(found.image))
                    add(Path(GROUND_TRUTH, kind, f"{name}_mask.png"), png(found.mask.astype("uint8") * 255))
                    if len(examples[kind]) < SHOWN:
                        examples[kind].append(Example(subject(found.source).image, found.image, found.mask, kind))
                step()
        left_out = tuple(kind for kind, number in made.items() if not number)
        if len(left_out) == len(KINDS):
            raise DataError(
                "The good images allow no defect: no part shows in those held out. Give images that show it."
            )
        add(Path(SHEET), sheet_png([one for some in examples.values() for one in some]))
        facts = {"scene": "defects", "version": VERSION, "seed": seed, "left_out": list(left_out)}
        write_facts(part, {**facts, "kinds": {kind: group for kind, group in KINDS.items() if made[kind]}})
    test = {GOOD: len(held_out), **{kind: number for kind, number in made.items() if number}}
    return WrittenDefects(out, VERSION, len(learned), test, left_out, out / SHEET)


def _spread(images: Sequence[ImageSource]) -> list[tuple[int, ImageSource]]:
    """As many of the images as a foreground looks at, evenly spaced, with their numbers."""
    step = max(1, len(images) // LOOKED_AT)
    return list(enumerate(images))[::step]


def _made(
    subject: Callable[[int], Subject], images: int, kind: str, number: int, seed: int, foreground: Foreground
) -> MadeDefect | None:
    """Defect ``number`` of its kind, on the image that is its turn, or on one of the next where that does not allow it."""
    random = generator(seed, number, kind)
    for index in range(min(1 + OTHERS_TRIED, images)):
        source = (number + index) % images
        made = make_defect(subject(source), kind, random, foreground)
        if made is not None:
            return MadeDefect(*made, kind, source)
    return None
