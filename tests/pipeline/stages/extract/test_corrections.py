"""Labels that a person found to be wrong are ignored from then on."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.datasets.synthetic.cards import BOX_CARD
from pipeline.errors import UsageError
from pipeline.stages.extract.corrections import read_corrections

from ....conftest import Workspace

HEAD = "rank,kind,image_id,label,sure,xmin,ymin,xmax,ymax\n"


@pytest.fixture
def work(workplace: Callable[..., Workspace], drawn: Path) -> Workspace:
    made = workplace()
    made.index(drawn, BOX_CARD)
    made.extract()
    return made


def test_a_label_is_ignored_and_a_missing_one_is_added(work: Workspace) -> None:
    before = {row["box_id"]: row for row in work.rows("extract", "boxes")}
    window = next(row for row in before.values() if row["label"] == "window")
    box = ",".join(f"{window[name]:.2f}" for name in ("xmin", "ymin", "xmax", "ymax"))
    path = work.context.work / "corrections.csv"
    image = window["image_id"]
    path.write_text(
        f"{HEAD}1,unfound,{image},window,.9,{box}\n2,missing,{image},door,.9,1,2,9,400\n3,x,nowhere,door,1,1,1,2,2\n"
    )
    outcome = work.extract()
    assert (outcome.added, outcome.removed, outcome.modified) == (1, 0, 1)
    after = {row["box_id"]: row for row in work.rows("extract", "boxes")}
    assert after[window["box_id"]] == {**window, "ignore": True}
    (new,) = (row for name, row in after.items() if name not in before)
    assert (new["image_id"], new["label"], new["ignore"], new["source"]) == (image, "door", True, "correction")
    assert (new["xmin"], new["ymin"], new["xmax"], new["ymax"], new["truncated"]) == (1, 2, 9, 240, True)
    assert any("1 images of" in line and "nowhere" in line for line in work.messages)
    assert not work.extract().changed
    path.unlink()
    assert work.extract().changed
    assert work.rows("extract", "boxes") == list(before.values())


def test_of_a_wrong_class_both_are_ignored(work: Workspace) -> None:
    door = next(row for row in work.rows("extract", "boxes") if row["label"] == "door")
    box = ",".join(f"{door[name]:.2f}" for name in ("xmin", "ymin", "xmax", "ymax"))
    text = f"image_id,label,detected_label,xmin,ymin,xmax,ymax\n{door['image_id']},door,window,{box}\n"
    (work.context.work / "corrections.csv").write_text(text)
    assert work.extract().added == 1
    ignored = [row for row in work.rows("extract", "boxes") if row["ignore"]]
    assert {row["label"] for row in ignored} == {"door", "window"}


@pytest.mark.parametrize(
    ("row", "sentence"), [("windows,1,1,9,9", "no label 'windows', it has building"), ("window,500,1,510,9", "outside")]
)
def test_what_an_annotation_could_not_show_is_refused(work: Workspace, row: str, sentence: str) -> None:
    image = work.rows("extract", "boxes")[0]["image_id"]
    (work.context.work / "corrections.csv").write_text(f"image_id,label,xmin,ymin,xmax,ymax\n{image},{row}\n")
    with pytest.raises(UsageError, match=sentence):
        work.extract()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("image_id,label,xmin,ymin,xmax\n", "no column ymax"),
        (f"{HEAD}1,x,a,door,1,one,2,3,4\n", "line 2 has a coordinate that is no number"),
        (f"{HEAD}1,x,a,door,1,5,2,3,4\n", "line 2 has a box without area"),
        (f"{HEAD}1,x,a,door,1,nan,2,3,4\n", "without area"),
        (f"{HEAD}1,x,a,door,1,1,2,3\n", "no number"),
    ],
)
def test_a_file_that_says_something_else_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "wrong.csv").write_text(text)
    with pytest.raises(UsageError, match=sentence):
        read_corrections(tmp_path / "wrong.csv")


def test_without_a_file_nothing_is_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        read_corrections(tmp_path / "none.csv")


def test_old_column_is_refused_with_its_new_name(work: Workspace) -> None:
    (work.context.work / "corrections.csv").write_text("image_id,label,found_label,xmin,ymin,xmax,ymax\n")
    with pytest.raises(UsageError, match="found_label is called detected_label"):
        work.extract()
