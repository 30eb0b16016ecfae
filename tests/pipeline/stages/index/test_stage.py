"""`index` on drawn sets: every file is a row, a rejected row, or a remark."""

import collections
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from pipeline.datasets.card import Card
from pipeline.errors import FacadeError
from pipeline.stages.index.splits import assign_split

YOLO = """\
name = "set"
title = ""
source = ""
licence = ""
kind = "yolo"
images = ["photos/{id}.jpg", "photos/{id}.png"]
annotations = "boxes/{id}.txt"
labelled_classes = ["window"]
"""
LEGEND = '[legend]\n0 = "building"\n1 = "window"\n2 = "door"\n'


def card_text(top: str = "", below: str = "") -> str:
    return YOLO + top + LEGEND + below


def test_every_photo_is_a_row(workplace: Callable, drawn: Path, cards: tuple[str, str]) -> None:
    work = workplace()
    outcome = work.index(drawn, cards[0])
    rows = work.rows("index", "images")
    assert (outcome.rows_in, outcome.rows_out, outcome.rejected, outcome.added) == (10, 10, 0, 10)
    assert [row["image_id"] for row in rows] == [f"drawn/photos/facade_{i:05d}.jpg" for i in range(10)]
    first = rows[0]
    assert (first["width"], first["height"], first["orientation"]) == (320, 240, 1)
    assert Path(first["annotation_uri"]) == drawn / "masks/facade_00000.png"
    assert first["labelled_classes"] == ["building", "window", "door"]
    assert len(first["sha256"]) == 64
    assert (work.context.work / "datasets/drawn.toml").read_text() == cards[0]


def test_a_second_run_does_nothing(workplace: Callable, drawn: Path, cards: tuple[str, str]) -> None:
    first = workplace().index(drawn, cards[0])
    second = workplace().index(drawn, cards[0])
    assert (first.changed, second.changed) == (True, False)
    assert first.digest == second.digest


def test_datasets_live_side_by_side_in_any_order(workplace: Callable, drawn: Path, cards: tuple[str, str]) -> None:
    forth, back = workplace("forth"), workplace("back")
    for card in cards:
        last = forth.index(drawn, card)
    for card in reversed(cards):
        again = back.index(drawn, card)
    assert last.digest == again.digest
    assert len(forth.rows("index", "images")) == 20
    assert forth.index(drawn, cards[0]).changed is False


def test_what_changed_is_counted(workplace: Callable, drawn_copy: Path, cards: tuple[str, str]) -> None:
    work = workplace()
    work.index(drawn_copy, cards[0])
    (drawn_copy / "photos/facade_00003.jpg").unlink()
    shutil.copy(drawn_copy / "photos/facade_00001.jpg", drawn_copy / "photos/facade_00002.jpg")
    for folder, suffix in (("photos", "jpg"), ("masks", "png")):
        shutil.copy(drawn_copy / f"{folder}/facade_00000.{suffix}", drawn_copy / f"{folder}/new.{suffix}")
    os.utime(drawn_copy / "photos/facade_00004.jpg")
    outcome = work.index(drawn_copy, cards[0])
    assert (outcome.added, outcome.removed, outcome.modified) == (1, 1, 1)


def test_a_touched_photo_changes_nothing(workplace: Callable, drawn_copy: Path, cards: tuple[str, str]) -> None:
    work = workplace()
    before = work.index(drawn_copy, cards[0])
    os.utime(drawn_copy / "photos/facade_00004.jpg")
    after = work.index(drawn_copy, cards[0])
    assert (after.changed, after.digest) == (False, before.digest)


def test_strays_and_duplicates_are_remarked(workplace: Callable, drawn_copy: Path) -> None:
    shutil.copy(drawn_copy / "photos/facade_00000.jpg", drawn_copy / "photos/same.jpg")
    shutil.copy(drawn_copy / "boxes/facade_00000.txt", drawn_copy / "boxes/same.txt")
    (drawn_copy / "boxes/lonely.txt").write_text("")
    (drawn_copy / "test.txt").write_text("facade_00001.jpg\nphotos/facade_00002.jpg\nfacade_00003\nno such photo\n")
    work = workplace()
    work.index(drawn_copy, card_text(below='[splits]\ntest = "test.txt"\nrest = "train"\nval_from_train = 0.5\n'))
    remarks = {(row["kind"], Path(row["uri"]).name): row["message"] for row in work.rows("index", "warnings")}
    assert remarks == {
        ("stray", "lonely.txt"): "an annotation without a photo",
        ("stray", "no such photo"): "test.txt lists a photo that is not there",
        ("duplicate", "same.jpg"): "the same bytes as set/photos/facade_00000.jpg",
    }
    rows = work.rows("index", "images")
    splits = {Path(row["image_id"]).stem: row["split"] for row in rows}
    assert [name for name, split in splits.items() if split == "test"] == [f"facade_0000{i}" for i in (1, 2, 3)]
    assert {"train", "val"} == set(splits.values()) - {"test"}
    assert splits["same"] == splits["facade_00000"]
    assert any("1 duplicates, 2 strays" in line for line in work.messages)


def test_a_stray_that_comes_later_is_remarked(workplace: Callable, drawn_copy: Path) -> None:
    work = workplace()
    work.index(drawn_copy, card_text())
    (drawn_copy / "boxes/lonely.txt").write_text("")
    assert work.index(drawn_copy, card_text()).changed
    assert len(work.rows("index", "warnings")) == 1


@pytest.mark.parametrize(
    ("missing", "rejected", "labelled"), [("empty", 0, ["window"]), ("unlabelled", 0, []), ("reject", 1, None)]
)
def test_what_a_missing_annotation_means(
    workplace: Callable, drawn_copy: Path, missing: str, rejected: int, labelled: list[str] | None
) -> None:
    (drawn_copy / "boxes/facade_00004.txt").unlink()
    work = workplace(max_rejected=0.2)
    outcome = work.index(drawn_copy, card_text(f'on_missing = "{missing}"\n'))
    assert outcome.rejected == rejected
    found = [row for row in work.rows("index", "images") if row["annotation_uri"] is None]
    assert [row["labelled_classes"] for row in found] == ([] if labelled is None else [labelled])
    assert work.extract().rows_out == 10 - rejected


def test_folders_name_the_split(workplace: Callable, drawn: Path, tmp_path: Path) -> None:
    for split, number in (("train", 0), ("valid", 1), ("test", 2)):
        for folder, suffix in (("photos", "jpg"), ("boxes", "txt")):
            target = tmp_path / "set" / split / folder
            target.mkdir(parents=True)
            shutil.copy(drawn / folder / f"facade_0000{number}.{suffix}", target)
    work = workplace()
    text = card_text().replace('"photos/', '"{split}/photos/').replace('"boxes/', '"{split}/boxes/')
    work.index(tmp_path / "set", text)
    assert [row["split"] for row in work.rows("index", "images")] == ["test", "train", "val"]
    (tmp_path / "set/valid").rename(tmp_path / "set/holdout")
    with pytest.raises(FacadeError, match="'holdout' is no split of the card set"):
        work.index(tmp_path / "set", text)


def test_groups_stay_together(workplace: Callable, drawn: Path) -> None:
    work = workplace()
    work.index(drawn, card_text("group = '(facade_000)'\n"))
    assert {row["group"] for row in work.rows("index", "images")} == {"facade_000"}
    assert len({row["split"] for row in work.rows("index", "images")}) == 1


def test_splits_have_their_shares() -> None:
    card = Card.model_construct(splits=Card.model_fields["splits"].default)
    counts = collections.Counter(assign_split(card, None, str(key)) for key in range(40_000))
    assert abs(counts["train"] / 40_000 - 0.7) < 0.01
    assert abs(counts["val"] / 40_000 - 0.15) < 0.01


def test_the_place_in_exif_is_kept(workplace: Callable, tmp_path: Path) -> None:
    (tmp_path / "set/photos").mkdir(parents=True)
    (tmp_path / "set/boxes").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8825).update({1: "N", 2: (46.0, 31.0, 0.0), 3: "E", 4: (6.0, 34.0, 0.0)})
    Image.new("RGB", (40, 30)).save(tmp_path / "set/photos/a.jpg", exif=exif)
    (tmp_path / "set/boxes/a.txt").write_text("1 .5 .5 .5 .5")
    work = workplace()
    work.index(tmp_path / "set", card_text())
    (row,) = work.rows("index", "images")
    assert (row["width"], row["height"], row["orientation"]) == (30, 40, 6)
    assert (row["latitude"], row["longitude"]) == (pytest.approx(46.5167, abs=1e-3), pytest.approx(6.5667, abs=1e-3))


def test_a_folder_without_photos_is_one_sentence(workplace: Callable, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/a.tif").write_bytes(b"x")
    with pytest.raises(
        FacadeError, match=r"no photo in .* fits photos/{id}.jpg or .*; it has 1 files, for example 'a.tif'"
    ):
        workplace().index(tmp_path / "set", card_text())


def test_a_split_list_that_is_not_there_is_one_sentence(workplace: Callable, drawn: Path) -> None:
    with pytest.raises(FacadeError, match=r"no\.txt, which the card names under \[splits\], cannot be read"):
        workplace().index(drawn, card_text(below='[splits]\ntest = "no.txt"\n'))


def test_pictures_that_no_pattern_takes_are_told(workplace: Callable, drawn_copy: Path) -> None:
    shutil.copy(drawn_copy / "photos/facade_00000.jpg", drawn_copy / "photos/facade_00000.JPEG")
    work = workplace()
    work.index(drawn_copy, card_text())
    assert any("images match no pattern of the card, for example masks/" in line for line in work.messages)


def test_a_list_line_that_fits_several_photos_is_one_sentence(workplace: Callable, drawn_copy: Path) -> None:
    for town in ("bern", "chur"):
        (drawn_copy / "photos" / town).mkdir()
        shutil.copy(drawn_copy / "photos/facade_00000.jpg", drawn_copy / "photos" / town / "1.jpg")
    (drawn_copy / "test.txt").write_text("1.jpg\n")
    with pytest.raises(FacadeError, match=r"test\.txt: '1\.jpg' fits several photos; write the photo's whole path"):
        workplace().index(drawn_copy, card_text('on_missing = "empty"\n', '[splits]\ntest = "test.txt"\n'))


def test_a_photo_on_two_lists_is_one_sentence(workplace: Callable, drawn_copy: Path) -> None:
    for name in ("train", "test"):
        (drawn_copy / f"{name}.txt").write_text("facade_00003.jpg\n")
    with pytest.raises(FacadeError, match="is on the list of another split too"):
        workplace().index(drawn_copy, card_text(below='[splits]\ntrain = "train.txt"\ntest = "test.txt"\n'))


def test_a_failed_index_changes_nothing(workplace: Callable, drawn_copy: Path, cards: tuple[str, str]) -> None:
    work = workplace()
    work.index(drawn_copy, cards[0])
    work.extract()
    wrong = cards[0].replace('labelled = ["building", "window", "door"]', 'labelled = ["window"]')
    wrong = wrong.replace("masks/", "nowhere/").split("[unions]")[0].replace("occluders", "# occluders")
    with pytest.raises(FacadeError, match="10 of 10 images were rejected"):
        work.index(drawn_copy, wrong)
    assert work.extract().changed is False
    assert len(list((work.context.work / "index/images").iterdir())) == 1
    assert work.index(drawn_copy, cards[0]).changed is False
    assert not [path for path in (work.context.work / "index").rglob("*") if path.parent.name == "_receipts"]


def test_a_work_folder_inside_the_dataset_is_no_part_of_it(workplace: Callable, drawn_copy: Path) -> None:
    text = card_text('on_missing = "empty"\n').replace('["photos/{id}.jpg", "photos/{id}.png"]', '"{id}.jpg"')
    work = workplace("copy/work")
    for _ in range(2):
        assert work.index(drawn_copy, text).rows_in == 10
        work.extract(previews=3)


def test_a_link_to_nothing_is_rejected_once_and_for_all(workplace: Callable, drawn_copy: Path, cards) -> None:
    (drawn_copy / "photos/facade_00002.jpg").unlink()
    (drawn_copy / "photos/facade_00002.jpg").symlink_to("nowhere.jpg")
    work = workplace(max_rejected=0.2)
    assert work.index(drawn_copy, cards[0]).rejected == 1
    assert "broken symlink" in work.rows("index", "rejected")[0]["message"]
    assert work.index(drawn_copy, cards[0]).per_second == 0
