"""Photos of every kind come out upright RGB, or with a reason."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from pipeline.errors import BadInputError
from pipeline.imaging.image_io import decode_photo, inspect_photo, read_mask_codes, turn_upright

SCENE = np.zeros((24, 32, 3), np.uint8)
SCENE[:12, :, 0], SCENE[12:, 16:, 2], SCENE[12:, :16, 1] = 200, 200, 200


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def test_a_plain_photo_is_itself() -> None:
    assert (decode_photo(encoded(Image.fromarray(SCENE))) == SCENE).all()


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations_come_out_upright(orientation: int, form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if form == "WEBP" else {}
    data = encoded(Image.fromarray(SCENE), form, exif=exif, **lossless)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert (decode_photo(data) == upright).all()
    facts = inspect_photo(data)
    assert (facts.height, facts.width, facts.orientation) == (*upright.shape[:2], orientation)
    assert (turn_upright(SCENE[..., 0], orientation) == upright[..., 0]).all()


@pytest.mark.parametrize(
    ("mode", "form"),
    [
        *(("L", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("RGBA", "PNG"), ("CMYK", "JPEG"), ("1", "PNG"), ("RGB", "WEBP")),
        *(("RGB", "TIFF"), ("RGB", "BMP"), ("P", "GIF"), ("CMYK", "TIFF")),
    ],
)
def test_every_mode_becomes_rgb(mode: str, form: str) -> None:
    photo = decode_photo(encoded(Image.fromarray(SCENE).convert(mode), form))
    assert photo.shape == SCENE.shape
    assert photo.dtype == np.uint8


def test_sixteen_bit_grey_keeps_its_high_byte() -> None:
    wide = (np.arange(24 * 32).reshape(24, 32) * 80).astype(np.uint16)
    assert (decode_photo(encoded(Image.fromarray(wide)))[..., 0] == wide >> 8).all()


def test_transparency_shows_white() -> None:
    clear = Image.new("RGBA", (9, 9), (255, 0, 0, 0))
    assert (decode_photo(encoded(clear)) == 255).all()


def test_the_first_frame_of_an_animation_is_the_photo() -> None:
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "blue")]
    photo = decode_photo(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert photo[0, 0, 0] > 200


def test_place_and_time_are_read_from_exif() -> None:
    exif = Image.Exif()
    gps = exif.get_ifd(0x8825)
    gps |= {1: "S", 2: (33.0, 52.0, 30.0), 3: "E", 4: (151.0, 12.0, 0.0), 17: 271.5}
    exif.get_ifd(0x8769)[0x9003] = "2019:06:05 12:30:01"
    facts = inspect_photo(encoded(Image.fromarray(SCENE), "JPEG", exif=exif))
    assert facts.latitude == pytest.approx(-33.875)
    assert facts.longitude == pytest.approx(151.2)
    assert (facts.heading, facts.captured_at) == (271.5, "2019-06-05T12:30:01")


@pytest.mark.parametrize("value", [(0.0, 0.0), (900.0, 0.0, 0.0), (91.0, 0.0, 0.0)])
def test_a_nonsense_place_is_no_place(value: object) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8825)[2] = value
    assert inspect_photo(encoded(Image.fromarray(SCENE), "JPEG", exif=exif)).latitude is None


def noise(width: int = 200, height: int = 150) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_a_truncated_file_is_refused_with_a_reason(form: str, share: float) -> None:
    data = encoded(noise(), form)
    with pytest.raises(BadInputError, match=r"damaged|broken|not an image"):
        inspect_photo(data[: int(len(data) * share)])


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "empty"), (b"not a picture at all", "not an image"), (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not an image")],
)
def test_what_is_no_image_is_refused_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(BadInputError, match=reason):
        inspect_photo(data)


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    data = encoded(Image.new("1", (40_000, 40_000)))
    assert len(data) < 1_000_000
    with pytest.raises(BadInputError, match="40000x40000 pixels, more than"):
        inspect_photo(data)
    with pytest.raises(BadInputError, match="40000x40000 pixels, more than"):
        read_mask_codes(data, colours=False)


def test_a_photo_of_one_pixel_is_refused_where_more_are_needed() -> None:
    data = encoded(Image.new("RGB", (1, 1)))
    assert inspect_photo(data).width == 1
    with pytest.raises(BadInputError, match="1x1 pixels, at least 8"):
        inspect_photo(data, min_side=8)


def test_png_named_jpg_is_read(real_data: Path) -> None:
    paths = sorted((real_data / "quirks/png_named_jpg").glob("*.jpg"))
    assert len(paths) == 3
    for path in paths:
        facts = inspect_photo(path.read_bytes())
        assert decode_photo(path.read_bytes()).shape == (facts.height, facts.width, 3)
