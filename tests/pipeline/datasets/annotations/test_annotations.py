"""Every annotation format, as it should be and as it comes."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets.annotations import AnnotatedBoxes, RunLengthMask, read_annotation
from pipeline.datasets.card import Card, resolve_card
from pipeline.errors import BadInputError
from pipeline.imaging.image_io import read_mask_codes
from pipeline.stages.extract.recipes import components_recipe

COLOURS = {"0,0,0": "background", "128,0,0": "building", "0,0,128": "window"}
BASE = {"name": "s", "title": "", "source": "", "licence": "", "images": "{id}.jpg", "annotations": "{id}.png"}
CLASSES = np.zeros((20, 30), np.uint8)
CLASSES[4:, 3:25], CLASSES[6:12, 5:11] = 1, 2
RGB = np.array([(0, 0, 0), (128, 0, 0), (0, 0, 128)], np.uint8)[CLASSES]


def card(kind: str, legend: dict[str, str], **changes: Any) -> Card:
    labelled = [name for name in ("building", "window") if name in legend.values()]
    return Card.model_validate({**BASE, "kind": kind, "legend": legend, "labelled_classes": labelled, **changes})


def encoded(array: np.ndarray, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, form, **options)
    return buffer.getvalue()


def sixteen_bits(pixels: np.ndarray) -> bytes:
    """A 16-bit RGB(A) PNG, which Pillow does not write."""
    import cv2

    order = [2, 1, 0, 3][: pixels.shape[2]]
    return cv2.imencode(".png", (pixels.astype(np.uint16) * 257)[..., order])[1].tobytes()


def names_of(read: RunLengthMask | AnnotatedBoxes, of: Card) -> np.ndarray:
    assert isinstance(read, RunLengthMask)
    return np.array([*of.names, "?"])[read.runs.to_array()]


EXPECTED = np.array(["background", "building", "window"])[CLASSES]
RGBA = np.dstack([RGB, np.full(CLASSES.shape, 255, np.uint8)])


@pytest.mark.parametrize(
    "data",
    [encoded(RGB), encoded(RGBA), sixteen_bits(RGB), sixteen_bits(RGBA), encoded(RGB, "TIFF")],
    ids=["rgb8", "rgba8", "rgb16", "rgba16", "tiff"],
)
def test_colour_masks_of_all_depths(data: bytes) -> None:
    colours = card("colour_mask", COLOURS)
    read = read_annotation(colours, data, 30, 20)
    assert (names_of(read, colours) == EXPECTED).all()
    assert read.unknown_share == 0


def test_a_palette_colour_mask_shows_its_colours() -> None:
    colours = card("colour_mask", COLOURS)
    palette = Image.fromarray(RGB).quantize(8)
    buffer = io.BytesIO()
    palette.save(buffer, "PNG")
    assert (names_of(read_annotation(colours, buffer.getvalue(), 30, 20), colours) == EXPECTED).all()


def palette_png(indices: np.ndarray) -> bytes:
    image = Image.fromarray(indices).convert("P")
    image.putdata(indices.ravel().tolist())
    image.putpalette([9, 9, 9, 255, 0, 0, 9, 9, 9])  # two indices of one colour: only the index tells them apart
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [palette_png(CLASSES), encoded(CLASSES), encoded(CLASSES.astype(np.uint16)), encoded(np.dstack([CLASSES] * 3))],
    ids=["palette", "grey8", "grey16", "grey-as-rgb"],
)
def test_index_masks_of_all_kinds(data: bytes) -> None:
    indices = card("index_mask", {"0": "background", "1": "building", "2": "window"})
    assert (names_of(read_annotation(indices, data, 30, 20), indices) == EXPECTED).all()


def test_colours_in_an_index_mask_are_refused() -> None:
    indices = card("index_mask", {"1": "building"})
    with pytest.raises(BadInputError, match="holds colours"):
        read_annotation(indices, encoded(RGB), 30, 20)


def test_a_jpeg_mask_takes_the_nearest_colours_and_reports_the_rest() -> None:
    colours = card("colour_mask", COLOURS, max_unknown=0.3)
    large = np.kron(CLASSES, np.ones((8, 8), np.uint8))
    pixels = np.array([(0, 0, 0), (128, 0, 0), (0, 0, 128)], np.uint8)[large]
    read = read_annotation(colours, encoded(pixels, "JPEG", quality=85), 240, 160)
    right = names_of(read, colours) == np.array(["background", "building", "window"])[large]
    assert right.mean() > 0.95
    assert 0 < read.unknown_share < 0.05


def test_a_lossless_mask_is_not_guessed_at() -> None:
    close = np.where(RGB == 128, 120, RGB).astype(np.uint8)
    with pytest.raises(BadInputError, match=r"of the annotation is colours, which the legend does not know"):
        read_annotation(card("colour_mask", COLOURS), encoded(close), 30, 20)
    told = card("colour_mask", COLOURS, colour_distance=10)
    assert (names_of(read_annotation(told, encoded(close), 30, 20), told) == EXPECTED).all()


def test_a_mask_with_no_known_colour_is_refused() -> None:
    with pytest.raises(BadInputError, match=r"100\.0% of the annotation"):
        read_annotation(card("colour_mask", {"1,2,3": "building"}), encoded(RGB), 30, 20)


def test_the_star_takes_the_rest() -> None:
    starred = card("colour_mask", {"128,0,0": "building", "*": "other"})
    read = read_annotation(starred, encoded(RGB), 30, 20)
    assert set(names_of(read, starred).ravel()) == {"building", "other"}
    assert read.unknown_share == 0


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_mask_of_the_photo_as_stored_is_turned_with_it(orientation: int) -> None:
    from pipeline.imaging.image_io import turn_upright

    colours = card("colour_mask", COLOURS)
    upright = turn_upright(EXPECTED, orientation)
    read = read_annotation(colours, encoded(RGB), upright.shape[1], upright.shape[0], orientation)
    assert (names_of(read, colours) == upright).all()


def test_a_mask_of_the_upright_photo_is_left_as_it_is() -> None:
    colours = card("colour_mask", COLOURS)
    assert (names_of(read_annotation(colours, encoded(RGB), 30, 20, 6), colours) == EXPECTED).all()


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(BadInputError, match="the mask has 30x20 pixels and its photo 31x20"):
        read_annotation(card("colour_mask", COLOURS), encoded(RGB), 31, 20)


XML = card("cmp_xml", {"facade": "building", "window": "window"})
OBJECT = (
    "<object><points><x>{}</x><x>{}</x><y>{}</y><y>{}</y></points>"
    "<label>3</label><labelname>\n{}\n</labelname></object>"
)


def test_cmp_xml_has_rows_in_x_and_columns_in_y() -> None:
    text = OBJECT.format("\n0.1\n", 0.5, 0.25, 0.75, "window") + OBJECT.format(1, 0, 0, 1, "facade")
    read = read_annotation(XML, text.encode(), 400, 200)
    assert isinstance(read, AnnotatedBoxes)
    assert read.labels == ("window", "building")
    assert np.allclose(read.xyxy, [[100, 20, 300, 100], [0, 0, 400, 200]])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<object><points>", "malformed"),
        ('<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><object>&b;</object>', "refused"),
        ('<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><object>&a;</object>', "refused"),
        ("<object>&undefined;</object>", "malformed"),
        (OBJECT.format("a", 1, 0, 1, "window"), "no two <x> and two <y> numbers"),
        ("<object><labelname>window</labelname></object>", "no two <x> and two <y> numbers"),
        (OBJECT.format(0, 1, 0, 1, "balcony"), r"100\.0% of the annotation is boxes of 'balcony'"),
    ],
)
def test_bad_xml_is_refused_with_a_reason(text: str, reason: str) -> None:
    with pytest.raises(BadInputError, match=reason):
        read_annotation(XML, text.encode(), 400, 200)


YOLO = card("yolo", {"0": "window", "1": "building", "2": "sign"})


def test_yolo_text_is_centres_and_sizes() -> None:
    read = read_annotation(YOLO, "\ufeff0 0.5 0.5 0.25 0.5\r\n\r\n1 0.5 0.5 1 1\n".encode(), 400, 200)
    assert isinstance(read, AnnotatedBoxes)
    assert read.labels == ("window", "building")
    assert np.allclose(read.xyxy, [[150, 50, 250, 150], [0, 0, 400, 200]])


def test_yolo_polygons_are_boxes_around_them() -> None:
    read = read_annotation(YOLO, b"0 .25 .5 .5 .1 .75 .5\n1 .5 .5 1 1\n1 -.1 0 1 0 1 1 0 1 .5 .5\n", 400, 200)
    assert isinstance(read, AnnotatedBoxes)
    assert read.labels == ("window", "building", "building")
    assert np.allclose(read.xyxy, [[100, 20, 300, 100], [0, 0, 400, 200], [-40, 0, 400, 200]])
    assert not read.difficult.any()
    assert read.ignore.shape == (3,)


def test_an_empty_yolo_file_is_a_photo_without_objects() -> None:
    read = read_annotation(YOLO, b"", 400, 200)
    assert isinstance(read, AnnotatedBoxes)
    assert read.xyxy.shape == (0, 4)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"0 .5 .5 .1\n", "line 1 is not"),
        (b"0 .5 .5 .1 .1\n0 .5 .5 x .1\n", "line 2 is not"),
        (b"0 .5 .5 -.1 .1\n", "negative"),
        (b"0 .5 .5 nan .1\n", "not a number"),
        (b"\xff\xfe\x00\x81", "not text"),
        (b"9 .5 .5 .1 .1\n", "boxes of '9'"),
        (b"0 .5 .5 .1 .1 .9\n", "line 1 is not"),
        (b"0 .1 .1 .2 .2 .3 .3 .4\n", "line 1 is not"),
        (b"0 .1 .1 .2 inf .3 .3\n", "not a number"),
    ],
)
def test_bad_yolo_is_refused_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(BadInputError, match=reason):
        read_annotation(YOLO, data, 400, 200)


PAIR_COLOURS = ["0,0,222", "0,48,255", "0,127,255", "0,207,255", "32,255,223", "112,255,143", "192,255,63"]
PAIR_COLOURS += ["255,240,0", "255,159,0", "255,80,0", "255,0,0", "174,0,0"]


def test_real_jpeg_masks_are_decoded_with_their_unknown_share(real_data: Path) -> None:
    """Photo and mask lie side by side in one JPEG: CMP's classes in other colours, blurred at every edge."""
    cmp_card = resolve_card("cmp")[0].model_dump()
    legend = dict(zip(PAIR_COLOURS, cmp_card["legend"].values(), strict=True))
    colours = Card.model_validate({**cmp_card, "kind": "colour_mask", "legend": legend, "colour_distance": 64})
    paths = sorted((real_data / "quirks/jpeg_masks").glob("*.jpg"))
    assert len(paths) == 8
    for path in paths:
        assert read_mask_codes(path.read_bytes(), colours=True)[1]
        mask = np.asarray(Image.open(path))[:, 256:]
        read = read_annotation(colours, encoded(mask), 256, 256)
        assert isinstance(read, RunLengthMask)
        assert 0.03 < read.unknown_share < 0.2
        found = components_recipe(colours, read)
        assert found.labels.count("building") >= 1
        assert found.labels.count("window") >= 3
