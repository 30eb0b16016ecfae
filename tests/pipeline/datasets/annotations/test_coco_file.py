"""COCO JSON, one file for many photos: read back as it was written, and held to one photo a change."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.datasets.annotations import annotation_bytes
from pipeline.errors import BadInputError, FacadeError


@pytest.mark.parametrize("kept", ["bbox", "polygon", "runs", "packed"])
def test_a_drawn_set_comes_back_as_pycocotools_reads_it(
    workplace: Callable, drawn_copy: Path, kept: str, monkeypatch: pytest.MonkeyPatch, coco: Any
) -> None:
    api = pytest.importorskip("pycocotools.coco")
    monkeypatch.setattr("builtins.print", lambda *_: None)
    content = coco.write(drawn_copy)
    whole = api.COCO(str(drawn_copy / coco.file))
    for annotation in content["annotations"]:
        x, y, w, h = annotation["bbox"]
        del annotation["segmentation" if kept == "bbox" else "bbox"]
        if kept == "packed":
            mask = whole.annToRLE(whole.anns[annotation["id"]])
            annotation["segmentation"] = {"size": mask["size"], "counts": mask["counts"].decode()}
        elif kept == "runs":
            pixels = np.zeros((240, 320), np.int8)
            pixels[y : y + h, x : x + w] = 1
            annotation["segmentation"] = unpacked(pixels)
    coco.save(drawn_copy, content)
    work = workplace()
    work.index(drawn_copy, coco.card)
    outcome = work.extract()
    assert (outcome.rows_out, outcome.rejected, work.rows("index", "warnings")) == (10, 0, [])
    rows = work.rows("extract", "boxes")
    for image in whole.loadImgs(whole.getImgIds()):
        own = [row for row in rows if row["image_id"] == f"set/photos/{image['file_name']}"]
        found = sorted([row["label"], *(row[key] for key in ("xmin", "ymin", "xmax", "ymax"))] for row in own)
        theirs = whole.loadAnns(whole.getAnnIds(imgIds=[image["id"]]))
        names = [whole.loadCats(entry["category_id"])[0]["name"] for entry in theirs]
        boxes = [(x, y, x + w, y + h) for x, y, w, h in (entry["bbox"] for entry in theirs)]
        assert found == sorted([name, *box] for name, box in zip(names, boxes, strict=True))
    assert len(rows) == len(whole.anns)
    assert {(row["source"], row["recipe"], row["ignore"]) for row in rows} == {("coco", "true", False)}


def unpacked(mask: np.ndarray) -> dict[str, Any]:
    edges = np.flatnonzero(np.diff(mask.T.ravel(), prepend=0, append=2))
    return {"size": list(mask.shape), "counts": np.diff(edges, prepend=0).tolist()}


def boxes_by_image(work: Any) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {row["image_id"]: [] for row in work.rows("extract", "extraction_log")}
    for row in work.rows("extract", "boxes"):
        found[row["image_id"]].append(row)
    return found


@pytest.mark.parametrize("change", ["added", "removed", "modified"])
def test_one_annotation_changes_one_photo(workplace: Callable, drawn_copy: Path, change: str, coco: Any) -> None:
    content = coco.write(drawn_copy)
    work = workplace()
    work.index(drawn_copy, coco.card)
    work.extract()
    before = boxes_by_image(work)
    # The last of the last class: no other box's rank moves.
    own = max((e for e in content["annotations"] if e["image_id"] == 104), key=lambda e: (e["category_id"], e["id"]))
    if change == "added":
        content["annotations"].append({**own, "id": 9999, "bbox": [1, 2, 3, 4]})
    elif change == "removed":
        content["annotations"].remove(own)
    else:
        own["bbox"] = [1, 2, 3, 4]
    coco.save(drawn_copy, content)
    index = work.index(drawn_copy, coco.card)
    assert (index.added, index.removed, index.modified) == (0, 0, 1)
    outcome = work.extract()
    changes = {name: getattr(outcome, name) for name in ("added", "removed", "modified")}
    assert changes == dict.fromkeys(changes, 0) | {change: 1}
    after = boxes_by_image(work)
    assert [key for key in before if before[key] != after[key]] == ["set/photos/facade_00004.jpg"]


def test_a_file_that_says_the_same_changes_nothing(workplace: Callable, drawn_copy: Path, coco: Any) -> None:
    content = coco.write(drawn_copy)
    work = workplace()
    work.index(drawn_copy, coco.card)
    content["categories"].append({"id": 77, "name": "unused"})
    (drawn_copy / coco.file).write_text(json.dumps(content, indent=2))
    os.utime(drawn_copy / coco.file)
    assert work.index(drawn_copy, coco.card).changed is False


def test_a_worker_never_answers_from_an_old_file(tmp_path: Path, coco: Any) -> None:
    content = coco.single_annotation()
    coco.save(tmp_path, content)
    uri = f"{tmp_path / coco.file}#a.jpg"
    before = json.loads(annotation_bytes(uri))
    assert before["annotations"][0]["bbox"] == [1, 2, 3, 4]
    content["annotations"][0]["bbox"] = [5, 2, 3, 4]
    coco.save(tmp_path, content)
    os.utime(tmp_path / coco.file, ns=(1, 1))
    assert json.loads(annotation_bytes(uri))["annotations"][0]["bbox"] == [5, 2, 3, 4]
    content["images"][0]["file_name"] = "b.jpg"
    coco.save(tmp_path, content)
    with pytest.raises(BadInputError, match="does not list the photo any more"):
        annotation_bytes(uri)
    (tmp_path / coco.file).unlink()
    with pytest.raises(FileNotFoundError):  # it may come back
        annotation_bytes(uri)


def test_an_entry_is_its_image_alone_in_canonical_form(tmp_path: Path, coco: Any) -> None:
    content = coco.single_annotation()
    content["images"].append({"id": 6, "file_name": "b.jpg"})
    content["categories"].append({"id": 9, "name": "door"})
    coco.save(tmp_path, content)
    annotation = '{"bbox":[1,2,3,4],"category_id":3,"id":7,"image_id":5}'
    image = '{"file_name":"a.jpg","height":240,"id":5,"width":320}'
    expected = f'{{"annotations":[{annotation}],"categories":{{"3":"window"}},"image":{image}}}'
    assert annotation_bytes(f"{tmp_path / coco.file}#a.jpg").decode() == expected


def test_boxes_outside_are_cut_or_counted_and_crowds_stay_marked(
    workplace: Callable, drawn_copy: Path, coco: Any
) -> None:
    content = coco.write(drawn_copy)
    window = {"image_id": 100, "category_id": 2}
    content["annotations"] = [
        {**window, "id": 1, "bbox": [-10, 20, 20, 20]},
        {**window, "id": 2, "bbox": [400, 20, 20, 20]},
        {**window, "id": 3, "bbox": [300, 200, 100, 100], "iscrowd": 1},
        {**window, "id": 4, "bbox": [50, 50, 5, 5], "category_id": 1},
    ]
    coco.save(drawn_copy, content)
    work = workplace()
    work.index(drawn_copy, coco.card)
    work.extract()
    rows = work.rows("extract", "boxes")
    found = [[row["label"], row["ignore"], *(row[key] for key in ("xmin", "ymin", "xmax", "ymax"))] for row in rows]
    assert found == [
        ["building", False, 50, 50, 55, 55],
        ["window", False, 0, 20, 10, 40],
        ["window", True, 300, 200, 320, 240],
    ]
    assert work.rows("extract", "extraction_log")[0]["dropped"] == [("window", 1)]


def test_a_broken_annotation_rejects_its_photo_alone(workplace: Callable, drawn_copy: Path, coco: Any) -> None:
    content = coco.write(drawn_copy)
    content["annotations"][0]["bbox"][2] = -1
    coco.save(drawn_copy, content)
    work = workplace(max_rejected=0.2)
    work.index(drawn_copy, coco.card)
    outcome = work.extract()
    assert (outcome.rows_out, outcome.rejected) == (9, 1)
    (row,) = work.rows("extract", "rejected")
    assert (row["image_id"], row["error"]) == ("set/photos/facade_00000.jpg", "BadInput")
    assert "annotation 1" in row["message"]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("", "the JSON is malformed"),
        ('{"images": [', "the JSON is malformed"),
        ("[1]", "the JSON holds list, expected an object"),
        ("[" * 200_000, "nested too deeply"),
        ("9" * 5000, "the JSON is malformed"),
        ({"images": None}, "it has no list 'images' of objects"),
        ({"annotations": None}, "it has no list 'annotations'"),
        ({"categories": None}, "it has no list 'categories'"),
        ({"annotations": {}}, "it has no list 'annotations'"),
        ({"annotations": [1]}, "it has no list 'annotations'"),
        ({"images": [{"id": 5}]}, "the image 5 has no 'file_name'"),
        ({"images": [{"file_name": "a.jpg"}]}, "an entry of 'images' has no 'id'"),
        ({"images": [{"id": 5, "file_name": "a"}, {"id": 5, "file_name": "b"}]}, "two images have the id 5"),
        ({"images": [{"id": 5, "file_name": "a"}, {"id": 6, "file_name": "a"}]}, "or the file_name 'a'"),
        ({"annotations": [{"id": 7}]}, "an entry of 'annotations' has no 'image_id'"),
        ({"annotations": [{"image_id": [5]}]}, "an entry of 'annotations' has no 'image_id'"),
        ({"categories": [{"name": "window"}]}, "an entry of 'categories' has no 'id'"),
        ({"categories": [{"id": 3, "name": "a"}, {"id": 3, "name": "b"}]}, "two categories have the id 3"),
    ],
    ids=range(18),
)
def test_a_broken_file_is_one_sentence(
    workplace: Callable, drawn_copy: Path, broken: Any, reason: str, coco: Any
) -> None:
    if isinstance(broken, str):
        (drawn_copy / coco.file).write_text(broken)
    else:
        whole = {**coco.single_annotation(), **broken}
        coco.save(drawn_copy, {key: value for key, value in whole.items() if value is not None})
    with pytest.raises(FacadeError, match=rf"all\.json cannot be used: .*{reason}"):
        workplace().index(drawn_copy, coco.card)


def test_a_remote_file_is_read_anew_when_it_changes(workplace: Callable, drawn: Path, coco: Any) -> None:
    import fsspec

    system = fsspec.filesystem("memory")
    for left in (1, 6):
        system.pipe("/coco/photos/a.jpg", (drawn / "photos/facade_00000.jpg").read_bytes())
        system.pipe("/coco/all.json", json.dumps(coco.single_annotation(bbox=[left, 2, 3, 4])).encode())
        work = workplace()
        work.index("memory://coco", coco.card)
        work.extract()
        assert [row["xmin"] for row in work.rows("extract", "boxes")] == [left]
    system.rm("/coco", recursive=True)


def test_the_real_set_goes_through_with_ids_kept_apart(workplace: Callable, real_data: Path, coco: Any) -> None:
    text = (
        coco.card.partition("[legend]")[0].replace("photos/{id}", "{id}").replace("all.json", "_annotations.coco.json")
    )
    text = text.replace('["building", "window", "door"]', '["building", "window"]')
    names = 'window = "window"\n"*" = "other"\n'
    root = real_data / "quirks/coco_polygons"
    content = json.loads((root / "_annotations.coco.json").read_text())
    counts = {key: sum(entry["category_id"] == key for entry in content["annotations"]) for key in (0, 3, 10)}
    assert counts == {0: 0, 3: 8, 10: 177}
    for facades, buildings in (('0 = "building"\n3 = "building"\n', 8), ('0 = "building"\n3 = "shed"\n', 0)):
        work = workplace(f"work{buildings}")
        index = work.index(root, f"{text}[legend]\n{facades}{names}")
        outcome = work.extract()
        assert (index.rows_out, index.rejected, outcome.rows_out, outcome.rejected) == (8, 0, 8, 0)
        assert work.rows("index", "warnings") == []
        labels = [row["label"] for row in work.rows("extract", "boxes")]
        assert (labels.count("building"), labels.count("window")) == (buildings, 177)
