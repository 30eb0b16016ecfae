"""`extract` on drawn sets, whose truth is exact."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets.synthetic import write_dataset
from pipeline.errors import FacadeError
from pipeline.execution.parallel import WorkerConfig
from pipeline.stages.extract.box_agreement import boxes_by_image, measure_agreement


@pytest.fixture
def extracted_work(workplace: Callable, drawn: Path, cards: tuple[str, str]):
    work = workplace()
    for card in cards:
        work.index(drawn, card)
    work.extract(bridge=0.03)
    return work


def test_masks_give_the_exact_boxes_where_nothing_stands_in_front(extracted_work) -> None:
    folder = extracted_work.context.folder("extract")
    found, true = folder.read("boxes", "drawn"), folder.read("boxes", "drawn_boxes")
    for label in ("building", "window", "door"):
        result = measure_agreement(boxes_by_image(found, label), boxes_by_image(true, label), (0.5, 0.99))
        assert result.num_ground_truths >= 5
        assert result.recall(0.5) >= 0.95
        assert result.recall(0.99) >= 0.8


def test_rows_follow_the_contract(extracted_work) -> None:
    rows = extracted_work.rows("extract", "boxes", "drawn")
    images = {row["image_id"]: row for row in extracted_work.rows("index", "images")}
    assert len({row["box_id"] for row in rows}) == len(rows)
    for row in rows:
        image = images[row["image_id"]]
        assert row["box_id"].startswith(row["image_id"] + "#")
        assert 0 <= row["xmin"] < row["xmax"] <= image["width"]
        assert 0 <= row["ymin"] < row["ymax"] <= image["height"]
        touches = (
            row["xmin"] == 0 or row["ymin"] == 0 or row["xmax"] == image["width"] or row["ymax"] == image["height"]
        )
        assert row["truncated"] == touches
        assert 0 < row["area_px"] <= (row["xmax"] - row["xmin"]) * (row["ymax"] - row["ymin"])
        assert (row["source"], row["recipe"]) == ("index_mask", "components")
    true = extracted_work.rows("extract", "boxes", "drawn_boxes")
    assert {(row["source"], row["recipe"], row["area_px"]) for row in true} == {("yolo", "true", None)}


def test_every_image_is_accounted_for(extracted_work) -> None:
    counted = {row["image_id"]: row["boxes"] for row in extracted_work.rows("extract", "extraction_log")}
    assert len(counted) == 20
    ids = [row["image_id"] for row in extracted_work.rows("extract", "boxes")]
    assert {image: ids.count(image) for image in counted} == counted


def test_a_second_run_does_nothing_and_other_settings_do(extracted_work) -> None:
    same, other = extracted_work.extract(bridge=0.03), extracted_work.extract(recipe="epfl")
    assert (same.changed, other.changed) == (False, True)
    assert {row["recipe"] for row in extracted_work.rows("extract", "boxes", "drawn")} == {"epfl"}
    assert other.modified > 0


def test_a_changed_mask_changes_its_boxes_alone(workplace: Callable, drawn_copy: Path, cards: tuple[str, str]) -> None:
    work = workplace()
    work.index(drawn_copy, cards[1])
    work.extract()
    (drawn_copy / "boxes/facade_00002.txt").write_text("0 .5 .5 .5 .5\n")
    work.index(drawn_copy, cards[1])
    outcome = work.extract()
    assert (outcome.added, outcome.modified) == (0, 1)
    assert outcome.removed > 3


def test_without_an_index_it_says_what_to_run(workplace: Callable) -> None:
    with pytest.raises(FacadeError, match="has no finished index; run `facade index` on it first"):
        workplace().extract()


def test_pictures_show_the_boxes(workplace: Callable, drawn: Path, cards: tuple[str, str]) -> None:
    from PIL import Image

    work = workplace()
    work.index(drawn, cards[0])
    work.extract(previews=3)
    folder = work.context.work / "extract/previews"
    assert len(list((folder / "drawn").glob("*.jpg"))) == 3
    (row,) = [row for row in work.rows("extract", "boxes") if row["label"] == "building"][:1]
    with Image.open(folder / "drawn" / f"00_{Path(row['image_id']).stem}.jpg") as image:
        picture = np.asarray(image).astype(int)
    edge = picture[round(row["ymax"]) - 1, round(row["xmin"]) : round(row["xmax"])]
    assert np.median(np.abs(edge - [255, 214, 10]).sum(1)) < 90
    with Image.open(folder / "drawn.jpg") as sheet:
        assert sheet.width > 1000


def test_workers_give_what_one_process_gives(workplace: Callable, tmp_path: Path, cards: tuple[str, str]) -> None:
    write_dataset(tmp_path / "set", 140, seed=9, width=96, height=72)
    alone, together = workplace("alone"), workplace("together", workers=WorkerConfig(count=2))
    for work in (alone, together):
        work.index(tmp_path / "set", cards[0])
        work.extract()
    for stage in ("index", "extract"):
        manifests = [work.context.folder(stage).manifest() for work in (alone, together)]
        assert manifests[0].digest == manifests[1].digest
        assert len(manifests[0].files("rejected")) == 0
    assert alone.rows("extract", "boxes") == together.rows("extract", "boxes")


MADE_UP = """\
name = "made_up"
title = "A set that nobody has described before"
source = "this test"
licence = "none"
kind = "colour_mask"
images = "{town}/{id}/rgb.JPG"
annotations = "{town}/{id}/seg.png"
labelled_classes = ["facade", "opening"]

[legend]
"#00ff00" = "sky"
"10,20,30" = "facade"
"200,0,200" = "opening"
"0,0,0" = "frame"

[merge_into]
facade = ["opening", "frame"]
"""


def test_a_set_that_nobody_described_works_from_the_template_alone(workplace: Callable, tmp_path: Path) -> None:
    from PIL import Image

    for town, place in (("Łódź", "a 1"), ("Łódź", "b'2"), ("Zürich", "a 1")):
        folder = tmp_path / "set" / town / place
        folder.mkdir(parents=True)
        mask = np.full((60, 80, 3), (0, 255, 0), np.uint8)
        mask[10:, 10:70] = (10, 20, 30)
        mask[19:31, 19:29] = 0
        mask[20:30, 20:28] = (200, 0, 200)
        Image.fromarray(mask).save(folder / "seg.png")
        Image.fromarray(mask + len(place)).save(folder / "rgb.JPG")
    work = workplace()
    assert work.index(tmp_path / "set", MADE_UP).rows_out == 3
    assert work.extract().rejected == 0
    rows = work.rows("extract", "boxes")
    assert [row["image_id"] for row in rows[::2]] == [
        f"made_up/{p}/rgb.JPG" for p in ("Zürich/a 1", "Łódź/a 1", "Łódź/b'2")
    ]
    boxes = [(row["label"], row["xmin"], row["ymin"], row["xmax"], row["ymax"], row["area_px"]) for row in rows[:2]]
    assert boxes == [("facade", 10, 10, 70, 60, 3000), ("opening", 20, 20, 28, 30, 80)]


def test_the_template_itself_works_on_what_it_describes(workplace: Callable, drawn: Path, tmp_path: Path) -> None:
    from PIL import Image

    colours = np.zeros((256, 3), np.uint8)
    colours[1], colours[2], colours[3], colours[8] = (128, 0, 0), (0, 0, 128), (128, 128, 0), (0, 128, 0)
    for folder in ("photos", "masks"):
        (tmp_path / "set" / folder).mkdir(parents=True)
    shutil.copy(drawn / "photos/facade_00000.jpg", tmp_path / "set/photos")
    indices = np.asarray(Image.open(drawn / "masks/facade_00000.png"))
    Image.fromarray(colours[indices]).save(tmp_path / "set/masks/facade_00000.png")
    work = workplace()
    work.index(tmp_path / "set", name="template")
    work.extract()
    assert {row["label"] for row in work.rows("extract", "boxes")} >= {"building", "window"}


def test_labels_that_were_away_are_read_when_they_are_back(workplace: Callable, drawn_copy: Path, cards) -> None:
    work = workplace()
    work.index(drawn_copy, cards[0])
    (drawn_copy / "masks").rename(drawn_copy / "away")
    with pytest.raises(FacadeError, match="10 x No such file or directory"):
        work.extract()
    (drawn_copy / "away").rename(drawn_copy / "masks")
    assert (work.extract().rows_out, len(work.rows("extract", "extraction_log"))) == (10, 10)


def test_a_label_that_changed_since_it_was_indexed_is_not_taken(workplace: Callable, drawn_copy: Path, cards) -> None:
    work = workplace(max_rejected=0.2)
    work.index(drawn_copy, cards[1])
    (drawn_copy / "boxes/facade_00002.txt").write_text("0 .5 .5 .5 .5\n")
    assert work.extract().rejected == 1
    assert "changed since it was indexed; run `facade index` again" in work.rows("extract", "rejected")[0]["message"]
    work.index(drawn_copy, cards[1])
    assert work.extract().rejected == 0


def test_a_failed_run_leaves_what_readers_see(workplace: Callable, drawn_copy: Path, cards: tuple[str, str]) -> None:
    import pandas as pd

    work = workplace()
    work.index(drawn_copy, cards[0])
    work.extract()
    before = pd.read_parquet(work.context.work / "extract/boxes")
    (drawn_copy / "masks/facade_00001.png").write_bytes(b"")
    work.index(drawn_copy, cards[0])
    with pytest.raises(FacadeError, match="1 of 10 images"):
        work.extract()
    assert pd.read_parquet(work.context.work / "extract/boxes").equals(before)


def test_drawings_follow_the_setting(workplace: Callable, drawn: Path, cards: tuple[str, str]) -> None:
    work = workplace()
    work.index(drawn, cards[0])
    for count in (5, 2, 4):
        work.extract(previews=count)
        assert len(list((work.context.work / "extract/previews/drawn").iterdir())) == count


def test_long_names_in_any_alphabet_are_drawn(workplace: Callable, drawn_copy: Path, cards: tuple[str, str]) -> None:
    for folder, suffix in (("photos", "jpg"), ("masks", "png")):
        place = drawn_copy / folder / ("東京" * 20)
        place.mkdir()
        shutil.copy(drawn_copy / folder / f"facade_00000.{suffix}", place / f"{'建物' * 35}.{suffix}")
    work = workplace()
    work.index(drawn_copy, cards[0])
    assert work.extract(previews=20).rows_out == 11
    assert len(list((work.context.work / "extract/previews/drawn").iterdir())) == 11
