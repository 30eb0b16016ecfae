"""Which image of a COCO JSON is which photo."""

import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import FacadeError


def test_no_file_is_one_sentence(workplace: Callable, drawn: Path, coco: Any) -> None:
    with pytest.raises(FacadeError, match=r"no file fits all\.json, the annotations of the card set"):
        workplace().index(drawn, coco.card)


@pytest.mark.parametrize("prefix", ["", "photos/", "./photos/", "C:\\export\\photos\\", "/somewhere/else/", "other/"])
def test_photos_are_found_by_as_much_of_the_path_as_agrees(
    workplace: Callable, drawn_copy: Path, prefix: str, coco: Any
) -> None:
    coco.write(drawn_copy, prefix)
    work = workplace()
    assert work.index(drawn_copy, coco.card).rows_out == 10
    assert work.rows("index", "warnings") == []
    assert work.extract().outputs["boxes"] > 50
    row = work.rows("index", "images")[3]
    assert row["annotation_uri"] == f"{drawn_copy / coco.file}#{prefix}facade_00003.jpg"


def test_strays_are_remarked_and_unlisted_photos_have_no_annotation(
    workplace: Callable, drawn_copy: Path, coco: Any
) -> None:
    content = coco.write(drawn_copy)
    removed = content["images"].pop(0)
    content["images"].append({"id": 1, "file_name": "lonely.jpg"})
    orphans = sum(entry["image_id"] == removed["id"] for entry in content["annotations"])
    coco.save(drawn_copy, content)
    work = workplace(max_rejected=0.2)
    assert work.index(drawn_copy, coco.card).rejected == 1
    remarks = {(row["kind"], Path(row["uri"]).name): row["message"] for row in work.rows("index", "warnings")}
    assert remarks == {
        ("stray", "all.json"): f"{orphans} annotations of images that the JSON does not list",
        ("stray", "all.json#lonely.jpg"): "an annotation without a photo",
    }
    assert work.index(drawn_copy, coco.card.replace("[legend]", 'on_missing = "empty"\n[legend]')).rejected == 0
    (row,) = [row for row in work.rows("index", "images") if row["annotation_uri"] is None]
    assert row["image_id"] == "set/photos/facade_00000.jpg"


def pairs_of(work: Any) -> dict[str, str | None]:
    rows = work.rows("index", "images")
    return {
        row["image_id"].removeprefix("set/"): row["annotation_uri"] and row["annotation_uri"].split("all.json#", 1)[1]
        for row in rows
    }


def listing(*names: str) -> dict[str, Any]:
    """A JSON that lists photos without objects."""
    images = [{"id": key, "file_name": name} for key, name in enumerate(names)]
    return {"images": images, "annotations": [], "categories": []}


def test_the_longer_agreement_goes_first_and_doubt_pairs_nothing(
    workplace: Callable, drawn: Path, tmp_path: Path, coco: Any
) -> None:
    photo = (drawn / "photos/facade_00000.jpg").read_bytes()
    for name in ("a/one.jpg", "b/one.jpg", "b/c/one.jpg", "a/two.jpg", "b/two.jpg", "a/three.jpg"):
        (tmp_path / "set/photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set/photos" / name).write_bytes(photo)
    coco.save(tmp_path / "set", listing("a/one.jpg", "x/b/one.jpg", "one.jpg", "two.jpg", "x/three.jpg", "y/three.jpg"))
    work = workplace()
    work.index(tmp_path / "set", coco.card.replace("[legend]", 'on_missing = "empty"\n[legend]'))
    assert pairs_of(work) == {
        "photos/a/one.jpg": "a/one.jpg",
        "photos/a/three.jpg": None,
        "photos/a/two.jpg": None,
        "photos/b/c/one.jpg": "one.jpg",
        "photos/b/one.jpg": "x/b/one.jpg",
        "photos/b/two.jpg": None,
    }
    strays = [row for row in work.rows("index", "warnings") if row["kind"] == "stray"]
    assert {Path(row["uri"]).name for row in strays} == {"all.json#two.jpg", "three.jpg"}
    assert {row["message"] for row in strays} == {"its name fits several photos, or several annotations fit its photo"}


def test_hashes_and_accents_in_names(workplace: Callable, drawn: Path, tmp_path: Path, coco: Any) -> None:
    photo = (drawn / "photos/facade_00000.jpg").read_bytes()
    composed, apart = (unicodedata.normalize(form, "é#1.json#") for form in ("NFC", "NFD"))
    root = tmp_path / "set #2"
    (root / "photos").mkdir(parents=True)
    (root / f"photos/{apart}.jpg").write_bytes(photo)
    content = coco.single_annotation()
    content["images"][0]["file_name"] = f"{composed}.jpg"
    coco.save(root, content)
    work = workplace()
    work.index(root, coco.card)
    assert pairs_of(work) == {f"photos/{apart}.jpg": f"{composed}.jpg"}
    assert work.extract().outputs["boxes"] == 1


def test_a_name_that_no_table_holds_is_rejected_alone(workplace: Callable, drawn_copy: Path, coco: Any) -> None:
    content = coco.write(drawn_copy)
    content["images"][0]["file_name"] = "\ud800/facade_00000.jpg"
    coco.save(drawn_copy, content)
    work = workplace(max_rejected=0.2)
    assert work.index(drawn_copy, coco.card).rejected == 1


@pytest.mark.parametrize(
    ("images", "annotations"),
    [
        ("{split}/{id}.jpg", "{split}/_annotations.coco.json"),
        ("{id}.jpg", "*/_annotations.coco.json"),
        ("{split}/{id}.jpg", "annotations/instances_{split}.json"),
    ],
)
def test_every_split_has_its_file(
    workplace: Callable, drawn: Path, tmp_path: Path, images: str, annotations: str, coco: Any
) -> None:
    photo = (drawn / "photos/facade_00000.jpg").read_bytes()
    for split, left in (("train", 1), ("valid", 50), ("test", 100)):
        (tmp_path / "set" / split).mkdir(parents=True)
        (tmp_path / "set" / split / "a.jpg").write_bytes(photo)
        file = annotations.replace("{split}", split).replace("*", split)
        coco.save(tmp_path / "set", coco.single_annotation(bbox=[left, 2, 3, 4]), file)
    text = coco.card.replace("photos/{id}.jpg", images).replace("all.json", annotations)
    work = workplace()
    work.index(tmp_path / "set", text)
    work.extract()
    assert {row["image_id"]: row["xmin"] for row in work.rows("extract", "boxes")} == {
        "set/train/a.jpg": 1,
        "set/valid/a.jpg": 50,
        "set/test/a.jpg": 100,
    }
    if "{split}" in images:
        assert [row["split"] for row in work.rows("index", "images")] == ["test", "train", "val"]


def test_the_files_pattern_may_name_the_split(workplace: Callable, drawn: Path, tmp_path: Path, coco: Any) -> None:
    photo = (drawn / "photos/facade_00000.jpg").read_bytes()
    (tmp_path / "set/photos").mkdir(parents=True)
    for split in ("train", "test"):
        (tmp_path / f"set/photos/{split[1]}.jpg").write_bytes(photo)
        coco.save(tmp_path / "set", listing(f"{split[1]}.jpg"), f"instances_{split}2017.json")
    work = workplace()
    work.index(tmp_path / "set", coco.card.replace("all.json", "instances_{split}2017.json"))
    assert [row["split"] for row in work.rows("index", "images")] == ["test", "train"]
