"""Decoding and step 1 of the paper: every mode with pixel values that one checks by head; torchvision, which the authors use."""

from __future__ import annotations

import contextlib
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from torchvision import transforms

from sapatchcore.data.images import read_mask
from sapatchcore.data.pixels import appearance, crop_box, prepare
from sapatchcore.data.sources import read_image, source_name
from sapatchcore.errors import DataError, SettingsError


def _png16(path: Path, colour_type: int, channels: int, values: list[int]) -> Path:
    """A 16-bit PNG of one row, which Pillow cannot write: every channel of pixel i holds values[i]."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + b"".join(struct.pack(">H", value) * channels for value in values)
    header = struct.pack(">IIBBBBB", len(values), 1, 16, colour_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


RED = (200, 30, 60)


@pytest.mark.parametrize(
    ("image", "expected", "tolerance"),
    [
        (Image.new("RGB", (3, 2), RED), RED, 0),
        (Image.new("L", (3, 2), 77), (77, 77, 77), 0),
        (Image.new("1", (3, 2), 1), (255, 255, 255), 0),
        (Image.new("LA", (3, 2), (77, 0)), (77, 77, 77), 0),
        (Image.new("RGBA", (3, 2), (*RED, 0)), RED, 0),
        (Image.new("RGBX", (3, 2), (*RED, 9)), RED, 0),
        (Image.new("RGBA", (3, 2), (*RED, 255)).convert("RGBa"), RED, 0),
        (Image.new("LA", (3, 2), (77, 255)).convert("La"), (77, 77, 77), 0),
        (Image.new("RGB", (3, 2), RED).convert("P", palette=Image.Palette.ADAPTIVE), RED, 0),
        (Image.new("CMYK", (3, 2), (255, 0, 0, 0)), (0, 255, 255), 0),
        (Image.new("RGB", (3, 2), RED).convert("YCbCr"), RED, 2),
        (Image.new("HSV", (3, 2), (0, 255, 255)), (255, 0, 0), 0),
        (Image.new("LAB", (3, 2), (113, 192, 158)), RED, 2),
        (Image.new("I;16", (3, 2), 65535), (255, 255, 255), 0),
        (Image.new("I;16B", (3, 2), 386), (2, 2, 2), 0),
        (Image.new("I;16L", (3, 2), 385), (1, 1, 1), 0),
        (Image.new("I", (3, 2), 257 * 100), (100, 100, 100), 0),
        (Image.new("F", (3, 2), 0.5), (128, 128, 128), 0),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else None,
)
def test_every_mode_becomes_rgb(image: Image.Image, expected: tuple[int, int, int], tolerance: int) -> None:
    pixels = read_image(image)
    assert pixels.shape == (2, 3, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert np.abs(pixels.astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp"])
def test_every_file_format_is_decoded(tmp_path: Path, suffix: str) -> None:
    Image.new("RGB", (8, 5), RED).save(tmp_path / f"x.{suffix}")
    pixels = read_image(tmp_path / f"x.{suffix}")
    assert pixels.shape == (5, 8, 3)
    assert np.abs(pixels.astype(int) - RED).max() <= 6  # JPEG and WebP lose some


def test_palette_with_transparency_keeps_the_colour_and_does_not_warn(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, 1, 2, 3])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "x.png", transparency=bytes([0, 128]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(tmp_path / "x.png").tolist() == [[list(RED), [1, 2, 3]]]


def test_16_bit_grey_is_scaled_and_rounded(tmp_path: Path) -> None:
    values = [0, 128, 129, 257, 385, 386, 32768, 65535]
    expected = [0, 0, 1, 1, 1, 2, 128, 255]
    for path in (_png16(tmp_path / "x.png", 0, 1, values), tmp_path / "x.tif"):
        if path.suffix == ".tif":
            Image.fromarray(np.array([values], np.uint16)).save(path)
        assert read_image(path)[0, :, 0].tolist() == expected


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (6, 4), (4, 2)])
def test_16_bit_colour_is_scaled_not_clipped(tmp_path: Path, colour_type: int, channels: int) -> None:
    values = [0, 256, 32768, 65535]
    pixels = read_image(_png16(tmp_path / "x.png", colour_type, channels, values))
    assert pixels[0].tolist() == [[0] * 3, [1] * 3, [128] * 3, [255] * 3]


@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bit_colour_tiff_is_scaled(tmp_path: Path, order: str) -> None:
    values = np.array([0, 256, 32768, 65535]).repeat(3).astype(f"{order}u2").tobytes()
    tags = [(256, 3, 4), (257, 3, 1), (258, 3, 8), (259, 3, 1), (262, 3, 2), (273, 4, 200), (277, 3, 3)]
    tags += [(278, 3, 1), (279, 4, len(values))]
    body = struct.pack(f"{order}H", len(tags))
    for tag, kind, value in tags:
        if tag == 258:  # three numbers, which lie at byte 180
            body += struct.pack(f"{order}HHII", tag, kind, 3, 180)
        else:
            body += struct.pack(f"{order}HHI", tag, kind, 1)
            body += struct.pack(f"{order}I", value) if kind == 4 else struct.pack(f"{order}HH", value, 0)
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8) + body + b"\0" * 4
    data = head.ljust(180, b"\0") + struct.pack(f"{order}HHH", 16, 16, 16)
    (tmp_path / "x.tif").write_bytes(data.ljust(200, b"\0") + values)
    assert read_image(tmp_path / "x.tif")[0, :, 2].tolist() == [0, 1, 128, 255]


def test_integers_and_floats_out_of_range_are_refused() -> None:
    with pytest.raises(DataError, match=r"integers from -1 to 7.*0 to 65535"):
        read_image(Image.fromarray(np.array([[-1, 7]], np.int32)))
    with pytest.raises(DataError, match=r"floats from 0 to 255\. Allowed: 0 to 1"):
        read_image(Image.fromarray(np.array([[0, 255]], np.float32)))
    with pytest.raises(DataError, match="NaN or infinite"):
        read_image(Image.fromarray(np.array([[0, np.nan]], np.float32)))
    with pytest.raises(DataError, match=r"part 7.*NaN"):
        read_image(Image.fromarray(np.array([[0, np.inf]], np.float32)), name="part 7")


@pytest.mark.parametrize("suffix", ["tif", "webp"])
def test_the_first_frame_counts(tmp_path: Path, suffix: str) -> None:
    first, second = Image.new("RGB", (4, 4), (0, 0, 0)), Image.new("RGB", (4, 4), (255, 255, 255))
    first.save(tmp_path / f"x.{suffix}", save_all=True, append_images=[second])
    assert read_image(tmp_path / f"x.{suffix}").max() == 0


# What a viewer shows, of the stored row [10, 20]; only 1 leaves it as it is.
TURNED = {
    1: [[10, 20]],
    2: [[20, 10]],
    3: [[20, 10]],
    4: [[10, 20]],
    5: [[10], [20]],
    6: [[10], [20]],
    7: [[20], [10]],
    8: [[20], [10]],
}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    image = Image.fromarray(np.array([[10, 20]], np.uint8))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / f"x.{suffix}"
    image.save(path, exif=exif)
    expected = TURNED[orientation]
    assert read_image(path)[:, :, 0].tolist() == expected
    if suffix == "png":  # Pillow 13 itself turns an uncompressed TIFF wrongly when it is opened by name
        with Image.open(path) as opened:
            assert read_image(opened)[:, :, 0].tolist() == expected
    mask = read_mask([path], np.shape(expected))
    assert mask.all()


def test_orientation_of_a_jpeg_mask_keeps_its_threshold(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("L", (8, 16), 90).save(tmp_path / "x.jpg", exif=exif)
    assert not read_mask([tmp_path / "x.jpg"], (8, 16)).any()


def test_an_rgb_array_is_not_copied_and_grey_is_repeated() -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert read_image(array) is array
    turned = read_image(array[:, ::-1])
    assert turned.flags.c_contiguous
    assert turned.tolist() == array[:, ::-1].tolist()
    grey = array[:, :, 0]
    for one in (grey, grey[:, :, None]):
        assert read_image(one).tolist() == np.stack([grey] * 3, axis=2).tolist()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 8, 9), np.uint8), r"shape \(3, 8, 9\), uint8.*transpose\(1, 2, 0\)"),
        (np.zeros((3, 8, 9), np.float32), r"\(3, 8, 9\), float32.*transpose"),
        (np.zeros((8, 9, 4), np.uint8), r"Drop the alpha channel"),
        (np.zeros((2, 8, 9, 3), np.uint8), r"one by one"),
        (np.zeros((8, 9, 3)), r"float64\. Scale it to 0\.\.255"),
        (np.full((8, 9, 3), np.nan), r"It holds NaN"),
        (np.zeros((8, 9), np.uint16), r"uint16.*257"),
        (np.zeros((8, 9), bool), r"bool.*\* 255"),
        (np.zeros((0, 9, 3), np.uint8), r"at least one pixel\. Got shape \(0, 9, 3\)"),
        (np.zeros(5, np.uint8), r"shape \(5,\)"),
        (np.zeros((8, 9, 2), np.uint8), r"shape \(8, 9, 2\)"),
    ],
)
def test_other_arrays_are_refused(array: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_image(array)


def test_other_objects_are_refused() -> None:
    with pytest.raises(DataError, match="Got list"):
        read_image([1, 2])  # type: ignore[arg-type]
    with pytest.raises(DataError, match="has no pixels"):
        read_image(Image.new("RGB", (0, 5)))
    closed = Image.new("RGB", (2, 2))
    closed.close()
    with pytest.raises(DataError, match=r"image 3 \(mode RGB\) cannot be decoded"):
        read_image(closed, name=source_name(closed, 3))


def test_missing_and_folder_and_empty_and_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no\.png does not exist"):
        read_image(tmp_path / "no.png")
    with pytest.raises(DataError, match="is a folder"):
        read_image(str(tmp_path))
    (tmp_path / "x.png").touch()
    with pytest.raises(DataError, match=r"x\.png is empty \(0 bytes\)"):
        read_image(tmp_path / "x.png")
    (tmp_path / "x.png").write_text("no image at all")
    with pytest.raises(DataError, match=r"x\.png \(15 bytes\) is not an image.*PNG, JPEG"):
        read_image(tmp_path / "x.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "x.gif")
    with pytest.raises(DataError, match="is not an image that can be read"):
        read_image(tmp_path / "x.gif")


@pytest.mark.parametrize(("suffix", "format_name"), [("png", "PNG"), ("jpg", "JPEG"), ("bmp", "BMP"), ("tif", "TIFF")])
def test_a_truncated_file_is_named_with_size_and_mode(tmp_path: Path, suffix: str, format_name: str) -> None:
    path = tmp_path / f"x.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    data = path.read_bytes()[:3000]
    path.write_bytes(data)
    with pytest.raises(DataError, match=rf"x\.{suffix} \(3000 bytes, {format_name}, mode RGB\) cannot be"):
        read_image(path)


def test_a_file_cut_anywhere_is_refused_or_whole(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    for suffix in ("png", "jpg", "bmp", "tif", "webp"):
        path = tmp_path / f"x.{suffix}"
        Image.fromarray(noise).save(path)
        data, whole = path.read_bytes(), read_image(path)
        for length in range(0, len(data), 7):
            path.write_bytes(data[:length])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's own, about TIFF tags
                with contextlib.suppress(DataError):
                    assert np.array_equal(read_image(path), whole)


def test_huge_images_warn_never_and_are_refused_at_pillows_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("L", (10, 10)).save(tmp_path / "x.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)
        assert read_image(tmp_path / "x.png").shape == (10, 10, 3)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
        with pytest.raises(DataError, match="more than 80 pixels"):
            read_image(tmp_path / "x.png")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files through /proc")
def test_no_file_stays_open(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    good = write_image(tmp_path / "x.png")
    (tmp_path / "bad.png").write_bytes(good.read_bytes()[:45])
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        read_image(good)
        read_mask([good], (4, 6))
        with pytest.raises(DataError):
            read_image(tmp_path / "bad.png")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def _noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_tall_image_too_is_resized_along_its_rows_first() -> None:
    """Pillow 13 takes the cheaper order: with it, another version would see other pixels."""
    image = _noise(700, 200)
    across = Image.fromarray(image).resize((64, 700), Image.Resampling.LANCZOS)
    expected = np.asarray(across.resize((64, 128), Image.Resampling.LANCZOS))
    assert np.array_equal(prepare(image, (128, 64), None), expected)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_crop_box_is_torchvisions(height: int, width: int, data: st.DataObject) -> None:
    crop = (data.draw(st.integers(1, height)), data.draw(st.integers(1, width)))
    top, left, *size = crop_box((height, width), crop)
    image = torch.arange(height * width).view(1, height, width)
    theirs = transforms.CenterCrop(crop)(image)
    assert torch.equal(image[:, top : top + size[0], left : left + size[1]], theirs)


def test_crop_box_by_hand() -> None:
    assert crop_box((256, 256), (224, 224)) == (16, 16, 224, 224)
    assert crop_box((10, 20), None) == (0, 0, 10, 20)
    # 0.5 rounds to 0 and 1.5 to 2, as in torchvision.
    assert crop_box((5, 7), (4, 4)) == (0, 2, 4, 4)


def test_an_image_of_the_right_size_keeps_its_pixels() -> None:
    image = _noise(32, 48)
    assert np.array_equal(prepare(image, (32, 48), None), image)
    unchanged = np.asarray(Image.fromarray(image).resize((48, 32), Image.Resampling.LANCZOS))
    assert np.array_equal(prepare(image, (32, 48), None), unchanged)
    cropped = prepare(image, (32, 48), (30, 40))
    assert np.array_equal(cropped, image[1:31, 4:44])
    assert cropped.flags.c_contiguous


def test_height_comes_first() -> None:
    assert prepare(_noise(9, 7), (20, 30), None).shape == (20, 30, 3)
    assert prepare(_noise(9, 7), (20, 30), (18, 10)).shape == (18, 10, 3)


@pytest.mark.filterwarnings("error")
def test_torch_takes_the_memory_without_a_warning() -> None:
    torch.from_numpy(prepare(_noise(9, 7), (4, 4), None))


def test_wrong_input_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"crop must not be larger.*\(9, 4\).*\(8, 8\)"):
        prepare(_noise(9, 9), (8, 8), (9, 4))
    with pytest.raises(DataError, match=r"Got shape \(4, 4\), uint8"):
        prepare(np.zeros((4, 4), np.uint8), (8, 8), None)
    with pytest.raises(DataError, match=r"\(4, 4, 3\), float64"):
        prepare(np.zeros((4, 4, 3)), (8, 8), None)


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (47, 33), (320, 320)])
def test_appearance_of_one_colour(shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), (30, 60, 90), np.uint8)
    assert appearance(image) == (60.0, 0.0, 60.0)  # mean of the channels, no deviation, largest less smallest
    assert appearance(np.full((*shape, 3), 200, np.uint8)) == (200.0, 0.0, 0.0)


@pytest.mark.parametrize("period", range(2, 65))
def test_appearance_of_stripes_does_not_hang_on_their_period(period: int) -> None:
    """Every 8th or 16th row, which plain steps would take, lies on the same stripe."""
    image = np.zeros((1024, 1024, 3), np.uint8)
    image[np.arange(1024) % period < period / 2] = 200
    for turned in (image, image.swapaxes(0, 1)):
        brightness, contrast, colour = appearance(turned)
        assert brightness == pytest.approx(turned.mean(), abs=8)  # half of the margin
        assert contrast == pytest.approx(turned.std(), abs=4)
        assert colour == 0


def test_appearance_of_noise_is_near_that_of_all_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 256, (300, 500, 3), dtype=np.uint8)
    grey = image.mean(2)
    expected = grey.mean(), grey.std(), float(np.ptp(image.astype(int), axis=2).mean())
    np.testing.assert_allclose(appearance(image), expected, atol=4)
