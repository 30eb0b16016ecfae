"""Cards and pairs."""

import unicodedata
from typing import Any

import pytest

from pipeline.assets import packaged_cards
from pipeline.datasets.card import Card, parse_card, parse_code, resolve_card
from pipeline.datasets.pairing import pair_photos
from pipeline.errors import UsageError
from pipeline.storage.files import FileEntry

CARD: dict[str, Any] = {
    "name": "set",
    "title": "t",
    "source": "s",
    "licence": "l",
    "kind": "index_mask",
    "images": "photos/{id}.jpg",
    "annotations": "masks/{id}.png",
    "labelled_classes": ["building", "window"],
    "legend": {"1": "building", "2": "window", "3": "car"},
}


def card(**changes: Any) -> Card:
    return Card.model_validate({**CARD, **changes})


def listed(*paths: str) -> list[FileEntry]:
    return [FileEntry(path, f"/root/{path}", 1, "1") for path in sorted(paths)]


def paired(card: Card, *paths: str) -> tuple[dict[str, str | None], list[str]]:
    pairs, strays = pair_photos(card, listed(*paths))
    found = {pair.photo.path: pair.annotation.path if pair.annotation else None for pair in pairs}
    return found, [stray.path for stray in strays]


def test_pairs_go_by_name_not_by_position() -> None:
    found, strays = paired(card(), "photos/a.jpg", "photos/b.jpg", "masks/b.png", "masks/c.png", "readme.txt")
    assert found == {"photos/a.jpg": None, "photos/b.jpg": "masks/b.png"}
    assert strays == ["masks/c.png"]


def test_id_crosses_folders_and_letter_case_is_free() -> None:
    found, _ = paired(card(), "photos/x/y/a.JPG", "masks/x/y/a.png")
    assert found == {"photos/x/y/a.JPG": "masks/x/y/a.png"}


def test_a_mask_that_fits_the_photos_pattern_is_no_photo() -> None:
    masks = card(images="{id}.png", annotations="{id}_mask.png")
    assert paired(masks, "a.png", "a_mask.png", "b.png") == ({"a.png": "a_mask.png", "b.png": None}, [])


def test_other_fields_pair_too() -> None:
    split = card(images="{split}/images/{id}.jpg", annotations="{split}/labels/{id}.png")
    found, _ = paired(split, "train/images/a.jpg", "val/images/a.jpg", "val/labels/a.png")
    assert found == {"train/images/a.jpg": None, "val/images/a.jpg": "val/labels/a.png"}


def test_several_patterns_and_special_letters() -> None:
    both = card(images=["p (1)/{id}.jpg", "p (1)/{id}.png"])
    found, _ = paired(both, "p (1)/it's é.jpg", "p (1)/b+c.png", "masks/it's é.png", "masks/b+c.png")
    assert found == {"p (1)/b+c.png": "masks/b+c.png", "p (1)/it's é.jpg": "masks/it's é.png"}


def test_accents_pair_however_they_are_stored() -> None:
    photo, mask = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    found, _ = paired(card(), f"photos/{photo}.jpg", f"masks/{mask}.png")
    assert found == {f"photos/{photo}.jpg": f"masks/{mask}.png"}


def test_all_shipped_cards_are_valid() -> None:
    shipped = {"cmp", "cmp_xml", "coco", "labelmefacade", "saint_petersburg", "template", "voc"}
    assert shipped <= set(packaged_cards())
    for name in packaged_cards():
        assert resolve_card(name)[0].name == {"template": "my_set"}.get(name, name)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"name": "My Set"}, "name: String should match pattern"),
        ({"images": "photos/*.jpg"}, "needs the field {id}"),
        ({"images": "../{id}.jpg"}, "stays below it"),
        ({"labelled_classes": ["tower"]}, "labelled_classes names 'tower', which the legend does not"),
        ({"merge_into": {"building": ["balcony"]}}, "merge_into.building names 'balcony'"),
        ({"merge_into": {"car": ["window"]}}, "'car' is not in `labelled_classes`"),
        ({"legend": {"one": "building", "2": "window"}}, "legend key 'one' is not a number"),
        ({"kind": "colour_mask", "legend": {"1,2": "building", "#000000": "window"}}, "'1,2' is not a colour"),
        ({"kind": "colour_mask", "legend": {"1,2,300": "building", "#000000": "window"}}, "go from 0 to 255"),
        ({"splits": {"shares": [0.5, 0.5, 0.5]}}, "must sum to 1"),
        ({"group": "("}, "not a regular expression"),
        ({"group": "abc"}, "exactly one"),
        ({"images": "{my-town}/{id}.jpg"}, "named in letters, digits and _"),
        ({"images": "./photos/{id}.jpg"}, "begins with a name"),
        ({"annotations": "{town}/{id}.png"}, "has a field that no pattern of images has"),
        ({"labelled_classes": ["building", "building"]}, "names a class twice"),
        ({"kind": "colour_mask", "legend": {"#80000": "building", "0,0,0": "window"}}, "'#80000' is not a colour"),
        ({"kind": "colour_mask", "legend": {"#800000": "building", "128,0,0": "window"}}, "two names"),
        ({"splits": {"tarin": "x"}}, "unknown key 'splits.tarin'"),
        ({"splits": {"shares": [0.7, 0.3]}}, r"splits\.shares\.2: Field required"),
        ({"colour": 3}, "unknown key 'colour'"),
        ({"kind": "png"}, "kind: Input should be"),
        ({"annotations": "all.json"}, "needs the field {id}"),
        ({"kind": "coco", "annotations": "{id}.json"}, "one .json holds many photos"),
        ({"kind": "coco", "annotations": "all.txt"}, "one .json holds many photos"),
        ({"kind": "coco", "annotations": "../all.json"}, "stays below it"),
    ],
)
def test_a_wrong_card_is_one_sentence(changes: dict[str, Any], word: str) -> None:
    import json

    text = "\n".join(f"{key} = {_toml(value)}" for key, value in {**CARD, **changes}.items())
    with pytest.raises(UsageError, match=word) as caught:
        parse_card(text, "my.toml")
    assert "my.toml" in str(caught.value)
    assert "the whole" not in str(caught.value)
    assert json.dumps(str(caught.value)).count("\\n") == 0


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{key}" = {_toml(entry)}' for key, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return repr(value) if not isinstance(value, str) else '"' + value + '"'


def test_an_unknown_card_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="no card 'cpm': give a file, or one of cmp"):
        resolve_card("cpm")


def test_colours_in_both_spellings_are_one_code() -> None:
    assert parse_code("128,64,1", "colour_mask") == parse_code("#804001", "colour_mask") == 0x014080
    assert parse_code("12", "index_mask") == 12


def test_the_smallest_area_is_the_larger_of_both_limits() -> None:
    limits = card(minimum={"building": {"pixels": 50, "share": 0.01}})
    assert limits.minimum_area("building", 1000) == 50
    assert limits.minimum_area("building", 10_000) == 100
    assert limits.minimum_area("window", 10_000) == 16
