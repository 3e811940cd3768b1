"""The GIF: every frame in it, within its limit, steady, and its verdict as the frame says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from sapatchcore.errors import DataError
from sapatchcore.show import drawing, gif
from sapatchcore.show.drawing import PREDICTED, TRUTH, Scale, font
from sapatchcore.show.gif import ACCEPT, REJECT, WIDTHS, Frame, choose, write_gif

SCALE = Scale(0.0, 2.0, 4.0)


def frame(number: int = 0, *, label: str = "good", size: tuple[int, int] = (60, 60), noisy: bool = False) -> Frame:
    """A grey image, or noise; where it is not good, a defect in its middle that was found."""
    rng = np.random.default_rng(number)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8) if noisy else np.full((*size, 3), 120, np.uint8)
    truth = np.zeros(size, np.bool_)
    truth[size[0] // 3 : size[0] // 2, size[1] // 3 : size[1] // 2] = label != "good"
    values = np.where(truth, 4, 0.5).astype(np.float32)
    if noisy:
        values += rng.random(size, np.float32)
    bad = label != "good"
    return Frame(
        f"{number:03}.png", label, image, truth, values, truth, 3.0 if bad else 1.0, 0.01, bad, "local" if bad else ""
    )


def decoded(path: Path) -> list[np.ndarray]:
    with Image.open(path) as image:
        return [np.asarray(part.convert("RGB")) for part in ImageSequence.Iterator(image)]


def share(picture: np.ndarray, colour: Sequence[int]) -> float:
    """Of the picture's pixels, those of this colour; the palette's lookup may be a few levels off."""
    return float((np.abs(picture.astype(int) - colour).max(2) <= 4).mean())


def test_file_is_an_endless_animation(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    frames = [frame(at, label=label) for at, label in enumerate(["good", "cut", "good", "bent"])]
    found = write_gif(iter(frames), path, SCALE, title="screw", milliseconds=500)
    assert (found.frames, found.dropped, found.bytes, found.width) == (4, 0, path.stat().st_size, WIDTHS[0])
    with Image.open(path) as image:
        assert image.n_frames == 4
        assert image.is_animated
        assert image.info["loop"] == 0
        for at in range(4):
            image.seek(at)
            assert image.info["duration"] == 500
    assert [child.name for child in tmp_path.iterdir()] == ["a.gif"]


def test_equal_images_stay_frames(tmp_path: Path) -> None:
    """The writer merges equal frames; the counter keeps them apart."""
    write_gif([frame(0)] * 12, tmp_path / "a.gif", SCALE, title="screw")
    assert len(decoded(tmp_path / "a.gif")) == 12


def test_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.gif", "b.gif"):
        write_gif([frame(at, label="cut", noisy=True) for at in range(2)], tmp_path / name, SCALE, title="screw")
    assert (tmp_path / "a.gif").read_bytes() == (tmp_path / "b.gif").read_bytes()


def test_verdicts_differ_at_a_glance(tmp_path: Path) -> None:
    bad = frame(0, label="cut")
    good = frame(0)
    frames = [bad, good, replace(bad, rejected=None), replace(bad, rejected=False), replace(good, rejected=True)]
    write_gif(frames, tmp_path / "a.gif", SCALE, title="screw")
    reject, accept, none, missed, alarm = decoded(tmp_path / "a.gif")
    for picture in (reject, alarm):
        assert share(picture, REJECT) > 0.04
    for picture in (accept, none, missed):
        assert share(picture, REJECT) < 0.005
    assert share(accept, ACCEPT) > 0.01
    assert share(none, ACCEPT) < 0.001
    assert share(missed, REJECT) > 10 * share(accept, REJECT)  # "WRONG" in its colour


def test_words_of_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    words: list[str] = []
    monkeypatch.setattr(drawing, "write_fitted", lambda _pen, _position, text, *_: words.append(text))
    bad = replace(frame(7, label="cut"), p_value=0.00312, score=41.234, kind="co-occurrence")
    cases = [
        bad,
        replace(bad, rejected=False),
        replace(frame(1), rejected=True),
        replace(bad, p_value=None, rejected=None),
    ]
    for case in cases:
        gif.draw_page(case, "7 / 9", 60, 60, SCALE, "screw")
    assert words[:4] == ["screw   007.png", "p = 0.0031   score 41.2   co-occurrence", "true label: cut", "correct"]
    assert words[7] == "WRONG: missed defect"
    assert words[11] == "WRONG: false alarm"
    assert words[13] == "score 41.2   co-occurrence"
    assert words[15] == ""


@pytest.mark.parametrize("width", [WIDTHS[0], WIDTHS[-1]])
def test_no_word_is_cut_or_runs_out_of_the_page(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words as long as those of the known categories stand in full; a longer one loses its middle, not its end."""
    drawn: list[str] = []
    write = gif.ImageDraw.ImageDraw.text

    def watch(self: object, xy: tuple[float, float], text: str, *args: object, **more: object) -> None:
        drawn.append(text)
        write(self, xy, text, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(gif.ImageDraw.ImageDraw, "text", watch)
    long = replace(
        frame(1, label="metal_contamination"), rejected=False, kind="co-occurrence", p_value=0.0123, score=123.4
    )
    picture = gif.draw_page(gif._reduced(long, width), "100 / 160", width, width, SCALE, "metal_nut")
    assert {"p = 0.012   score 123   co-occurrence", "true label: metal_contamination"} <= set(drawn)
    assert (np.asarray(picture)[:, -2:] == 255).all()
    drawn.clear()
    picture = gif.draw_page(
        gif._reduced(replace(long, name="x" * 400 + "end.png"), width), "1 / 1", width, width, SCALE, "nut"
    )
    name = next(text for text in drawn if text.endswith("end.png"))
    assert "..." in name
    assert name.startswith("nut")
    assert font(11).getlength(name) < picture.width


def test_panels_show_what_they_say() -> None:
    image, known, alone, mixed = (
        np.asarray(panel) for panel in gif._panels(frame(0, label="cut", size=(90, 90)), SCALE)
    )
    assert (image == 120).all()
    assert (known == TRUTH).all(2).any()
    assert (known[31:44, 31:44] == 120).all()
    np.testing.assert_array_equal(alone[35, 35], (252, 255, 164))  # inferno's brightest: 4 of 4
    assert (mixed == TRUTH).all(2).any()
    assert (mixed == PREDICTED).all(2).any()
    unknown = gif._panels(replace(frame(0), truth=None, predicted=None), SCALE)[1]
    assert (np.asarray(unknown)[0, 0] == 225).all()


def test_images_of_mixed_sizes_and_unknown_truths(tmp_path: Path) -> None:
    sizes = [(60, 60), (40, 90), (300, 40), (1, 1), (500, 700)]
    frames = [replace(frame(at, size=size), truth=None, predicted=None, p_value=None) for at, size in enumerate(sizes)]
    write_gif(frames, tmp_path / "a.gif", SCALE, title="screw")
    assert len({picture.shape for picture in decoded(tmp_path / "a.gif")}) == 1


def test_panels_shrink_before_frames_are_dropped(tmp_path: Path) -> None:
    frames = [frame(at, label="cut" if at % 2 else "good", noisy=True, size=(224, 224)) for at in range(4)]
    whole = write_gif(frames, tmp_path / "a.gif", SCALE, title="screw")
    shrunk = write_gif(frames, tmp_path / "b.gif", SCALE, title="screw", most_bytes=whole.bytes // 2)
    assert whole.width == WIDTHS[0]
    assert WIDTHS[0] > shrunk.width > WIDTHS[-1]
    assert shrunk.bytes == (tmp_path / "b.gif").stat().st_size <= whole.bytes // 2
    assert (shrunk.frames, shrunk.dropped) == (4, 0)


def test_frames_are_dropped_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [frame(at, label="cut" if at > 3 else "good", noisy=True) for at in range(8)]
    sets: list[list[str]] = []
    encoded = gif._encoded
    monkeypatch.setattr(
        gif, "_encoded", lambda kept, *rest: sets.append([one.label for one in kept]) or encoded(kept, *rest)
    )
    found = write_gif(frames, tmp_path / "a.gif", SCALE, title="screw", most_bytes=100_000)
    assert found.width == WIDTHS[-1]
    assert 2 <= found.frames < 8
    assert found.frames + found.dropped == 8
    assert (tmp_path / "a.gif").stat().st_size == found.bytes <= 100_000
    assert len(decoded(tmp_path / "a.gif")) == found.frames == len(sets[-1])
    left = Counter(sets[-1])
    assert abs(left["good"] - left["cut"]) <= 1


def test_limit_that_no_frame_meets(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"at least one frame. Got 1000, and one takes \d+"):
        write_gif([frame(0), frame(1)], tmp_path / "a.gif", SCALE, title="screw", most_bytes=1000)
    assert not list(tmp_path.iterdir())


def test_no_frames(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Got none"):
        write_gif([], tmp_path / "a.gif", SCALE, title="screw")


def test_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("a file")
    with pytest.raises(DataError, match=r"a\.gif cannot be written: .*name another file"):
        write_gif([frame(0)], tmp_path / "folder" / "a.gif", SCALE, title="screw")
    (tmp_path / "b.gif").mkdir()
    with pytest.raises(DataError, match="cannot be written"):
        write_gif([frame(0)], tmp_path / "b.gif", SCALE, title="screw")
    assert sorted(child.name for child in tmp_path.iterdir()) == ["b.gif", "folder"]
    assert (tmp_path / "folder").read_text() == "a file"


def test_what_stays_the_same_does_not_flicker(tmp_path: Path) -> None:
    """The legend and the heads are pixel for pixel the same in every frame, whatever the images hold."""
    frames = [frame(at, label="cut", noisy=True) for at in range(3)]
    write_gif(frames, tmp_path / "a.gif", SCALE, title="screw")
    pictures = decoded(tmp_path / "a.gif")
    foot = WIDTHS[0] // 4
    for picture in pictures[1:]:
        np.testing.assert_array_equal(picture[-foot:], pictures[0][-foot:])


@pytest.mark.parametrize("noisy", [False, True])
def test_last_entry_of_the_palette_is_kept_for_unchanged_pixels(noisy: bool) -> None:
    """The writer makes pixels of that entry transparent, so no pixel of a page may have it."""
    frames = [frame(at, label="cut", noisy=noisy) for at in range(2)]
    palette = gif._palette(frames, SCALE)
    entries = np.reshape(palette.getpalette("RGB"), (-1, 3))
    assert len(np.unique(entries, axis=0)) == len(entries) == 255
    white = Image.new("RGB", (4, 4), "white").quantize(palette=palette, dither=Image.Dither.NONE)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8))
    for picture in (white, noise.quantize(palette=palette, dither=Image.Dither.NONE)):
        assert np.asarray(picture).max() < 255


def test_choose_takes_each_label_in_turn() -> None:
    labels = ["cut"] * 4 + ["good"] * 6 + ["bent"]
    assert choose(labels, 5) == [10, 0, 4, 2, 7]  # bent, cut, good, then cut and good: each from its list's half
    assert choose(labels, 3) == [10, 0, 4]
    assert sorted(choose(labels, 100)) == list(range(11))
    assert choose(labels, 0) == choose([], 5) == []


def test_choose_does_not_fall_in_step_with_the_labels() -> None:
    labels = ["good", "cut"] * 20
    assert Counter(labels[at] for at in choose(labels, 20)) == {"good": 10, "cut": 10}
