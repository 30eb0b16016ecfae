"""COCO's average precision is what pycocotools gives, and what the rule says where one can count by hand."""

import contextlib
import io
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

import ssd.metrics.coco
from ssd import COCO_IOUS, DetectionArrays, GroundTruthArrays, coco_ap

from .test_voc import detections_of, draw, draw_boxes, selected, truths_of


def pycocotools_aps(detections: DetectionArrays, truths: GroundTruthArrays, most: Sequence[int]) -> np.ndarray:
    """(len(most), 10, C). It overwrites `ignore` of a truth, so that ignored ones have an area outside its range."""
    coco, evaluation = pytest.importorskip("pycocotools.coco"), pytest.importorskip("pycocotools.cocoeval")
    shown = selected(detections, truths.labelled_at(detections.images, detections.labels))
    areas = np.zeros(len(truths)) if truths.ignore is None else np.where(truths.ignore, -1.0, 0.0)
    images = [{"id": image} for image in range(1 + int(max(truths.images.max(initial=0), shown.images.max(initial=0))))]
    sides = []
    for rows, name, values in ((truths, "area", areas), (shown, "score", shown.scores)):
        sides.append(coco.COCO())
        sides[-1].dataset = {
            "images": images,
            "categories": [{"id": label} for label in range(truths.classes)],
            "annotations": annotations_of(rows, name, values),
        }
    with contextlib.redirect_stdout(io.StringIO()):
        for side in sides:
            side.createIndex()
        judge = evaluation.COCOeval(*sides, "bbox")
        judge.params.maxDets, judge.params.areaRng, judge.params.areaRngLbl = list(most), [(0, math.inf)], ["all"]
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval["precision"][:, :, :, 0, :]  # (10, 101, C, len(most)), -1 where there is nothing to find
    return np.where(precision < 0, math.nan, precision).mean(axis=1).transpose(2, 0, 1)


def annotations_of(rows: DetectionArrays | GroundTruthArrays, name: str, values: np.ndarray) -> list[dict]:
    """Numbered from 1: 0 is pycocotools' mark of what has no match."""
    boxes = rows.boxes.astype(np.float64)
    xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    columns = zip(rows.images.tolist(), rows.labels.tolist(), xywh.tolist(), values.tolist(), strict=True)
    return [
        {"id": row, "image_id": image, "category_id": label, "bbox": box, "iscrowd": 0, "area": 0.0, name: value}
        for row, (image, label, box, value) in enumerate(columns, 1)
    ]


def both(detections: DetectionArrays, truths: GroundTruthArrays, most: Sequence[int]) -> np.ndarray:
    """(len(most), 10, C), after a look at pycocotools'."""
    expected, result = pycocotools_aps(detections, truths, most), coco_ap(detections, truths, most)
    got = np.stack([result[limit].by_iou for limit in most])
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-14)
    for limit, one in zip(most, expected, strict=True):
        known, aps = one[:, ~np.isnan(one[0])], result[limit]
        means = [part.mean() if part.size else math.nan for part in (known, known[0], known[5])]
        np.testing.assert_allclose([aps.mean, aps.mean_50, aps.mean_75], means, rtol=0, atol=1e-14)
    return got


def draw_crowd(seed: int) -> tuple[DetectionArrays, GroundTruthArrays]:
    """700 detections of 60 truths in 2 images, in any order."""
    rng = np.random.default_rng(seed)
    boxes, at, labels = 4 * draw_boxes(rng, 60), rng.integers(0, 2, 60), rng.integers(1, 3, 60)
    near = rng.choice(np.arange(60) ** 2 // 60, 700)  # more of the first ones
    moved = boxes[near] + rng.integers(-3, 4, (700, 4)).astype(np.float32)
    truths = GroundTruthArrays(at, labels, boxes, 3, rng.random(60) < 0.2)
    return DetectionArrays(at[near], labels[near], rng.integers(0, 200, 700) / 200, moved), truths


def same(one: ssd.metrics.coco.CocoAps, other: ssd.metrics.coco.CocoAps) -> bool:
    return np.array_equal(one.by_iou, other.by_iou, equal_nan=True)


def test_drawn_cases_are_what_pycocotools_gives() -> None:
    """Few different scores and overlaps, ignored truths, classes not shown, flat boxes, none of either."""
    cut = unknown = 0
    for seed in range(400):
        got = both(*draw(np.random.default_rng(seed)), (1, 3, 100))
        cut += not np.array_equal(got[1], got[2], equal_nan=True)
        unknown += bool(np.isnan(got[0, :, 1:]).any())
    assert cut > 20
    assert 50 < unknown < 350


def test_more_detections_than_are_looked_at() -> None:
    for seed in range(3):
        got = both(*draw_crowd(seed), (10, 100, 500))
        assert len({one.tobytes() for one in got[:, :, 1:]}) == 3


def test_boxes_that_are_no_whole_numbers() -> None:
    for seed in range(10):
        detections, truths = draw_crowd(seed)
        shifts = np.random.default_rng(seed).standard_normal(detections.boxes.shape, dtype=np.float32)
        moved = replace(detections, boxes=detections.boxes + shifts)
        both(selected(moved, np.arange(200)), truths, (100,))


def test_recalls_are_cocos_floats() -> None:
    """At 35 of 100 and nine others they are not the quotients."""
    boxes = [[4.0 * at, 0, 4.0 * at + 2, 2] for at in range(100)]
    for found in (0, 1, 34, 35, 36, 41, 57, 58, 95, 100):
        both(detections_of(boxes[:found], [0.5] * found), truths_of(boxes), (100,))


def test_neither_chunks_nor_the_order_of_images_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(50):
        drawn, truths = draw(np.random.default_rng(seed))
        by_image = selected(drawn, np.argsort(drawn.images, kind="stable"))
        whole = coco_ap(drawn, truths, (2, 100))
        with monkeypatch.context() as patch:
            patch.setattr(ssd.metrics.coco, "CHUNK", 3)
            parts = coco_ap(by_image, truths, (2, 100))
        assert all(same(whole[limit], parts[limit]) for limit in (2, 100))


def test_a_limit_is_the_same_alone_and_among_others() -> None:
    detections, truths = draw_crowd(0)
    together = coco_ap(detections, truths, (500, 7, 100))
    assert list(together) == [500, 7, 100]
    assert all(same(aps, coco_ap(detections, truths, (limit,))[limit]) for limit, aps in together.items())


def test_of_some_truths_only_the_others_are_ignored() -> None:
    for seed in range(50):
        rng = np.random.default_rng(seed)
        detections, truths = draw(rng)
        only = rng.random(len(truths)) < 0.5
        assert truths.ignore is not None
        ignored = replace(truths, ignore=truths.ignore | ~only)
        assert same(coco_ap(detections, truths, ground_truth_mask=only)[100], coco_ap(detections, ignored)[100])
        everything = np.ones(len(truths), np.bool_)
        assert same(coco_ap(detections, truths, ground_truth_mask=everything)[100], coco_ap(detections, truths)[100])


def test_the_second_best_truth_is_left_to_the_second_detection() -> None:
    truths = truths_of([[0, 0, 10, 10], [0, 0, 10, 8]])
    aps = coco_ap(detections_of([[0, 0, 10, 10]] * 2, [0.9, 0.8]), truths)[100]
    # Up to .8 both are found. Above it is half of them, and 51 of 101 recalls.
    assert aps.by_iou[:, 1] == pytest.approx([1] * 7 + [51 / 101] * 3, abs=1e-15)
    assert [aps.mean, aps.mean_50, aps.mean_75] == pytest.approx([0.7 + 0.3 * 51 / 101, 1, 1], abs=1e-15)
    assert aps.at(0.85).mean == pytest.approx(51 / 101, abs=1e-15)


def test_of_equal_overlaps_the_last_is_taken() -> None:
    truths = truths_of([[0, 0, 4, 3], [0, 1, 4, 4]])
    aps = coco_ap(detections_of([[0, 0, 4, 4], [0, 0, 4, 3]], [0.9, 0.8]), truths)[100]
    assert aps.mean_75 == pytest.approx(1, abs=1e-15)  # the first truth is left, and the second detection is it


def test_an_ignored_truth_comes_after_the_others_and_sets_one_aside() -> None:
    truths = truths_of([[0, 0, 10, 10], [0, 0, 10, 6]], ignore=np.array([True, False]))
    boxes = [[0, 0, 10, 10]] * 3 + [[0, 0, 10, 6]]
    aps = coco_ap(detections_of(boxes, [0.9, 0.8, 0.7, 0.6]), truths)[100]
    # Up to .6 the first is right. Above, the first is set aside, two are wrong and the last is right: one in three.
    assert aps.by_iou[:, 1] == pytest.approx([1] * 3 + [1 / 3] * 7, abs=1e-15)


def test_a_detection_is_set_aside_by_one_ignored_truth_only() -> None:
    truths = truths_of([[0, 0, 4, 4], [0, 0, 4, 4], [9, 0, 13, 4]], ignore=np.array([True, True, False]))
    boxes = [[0, 0, 4, 4], [0, 0, 4, 4], [9, 0, 13, 4]]
    assert coco_ap(detections_of(boxes, [0.9, 0.8, 0.7]), truths)[100].mean == pytest.approx(1, abs=1e-15)
    aps = coco_ap(detections_of(boxes[:1] + boxes, [0.9, 0.8, 0.7, 0.6]), truths)[100]
    assert aps.mean == pytest.approx(1 / 2, abs=1e-15)  # two are set aside, the third is wrong


@pytest.mark.parametrize("twentieths", range(10, 20))
def test_an_overlap_of_exactly_the_threshold_is_enough(twentieths: int) -> None:
    aps = coco_ap(detections_of([[0, 0, twentieths, 1]], [0.5]), truths_of([[0, 0, 20, 1]]))[100]
    assert [aps.at(iou).mean > 0 for iou in COCO_IOUS] == [step <= twentieths - 10 for step in range(10)]


def test_the_best_of_each_image_and_class_are_looked_at() -> None:
    labels, images = [1, 1, 2, 1], [0, 0, 0, 1]
    boxes = [[0, 0, 2, 2], [4, 0, 6, 2], [0, 0, 2, 2], [0, 0, 2, 2]]
    truths = truths_of(boxes, labels, images=images, classes=3)
    aps = coco_ap(detections_of(boxes, [0.5, 0.6, 0.1, 0.2], labels, images), truths, (1, 2))
    assert aps[1].by_label[1:] == pytest.approx([67 / 101, 1], abs=1e-15)  # two of three reach .66
    assert aps[2].by_label[1:] == pytest.approx([1, 1], abs=1e-15)


def test_what_an_annotation_would_not_show_does_not_count() -> None:
    labelled = np.array([[True, False], [True, True]])
    truths = truths_of([[0, 0, 2, 2]], images=[1], labelled=labelled)
    detections = detections_of([[0, 0, 2, 2]] * 2, [0.9, 0.8], images=[0, 1])
    assert coco_ap(detections, truths)[100].mean == pytest.approx(1, abs=1e-15)
    assert coco_ap(detections, replace(truths, labelled=None))[100].mean == pytest.approx(1 / 2, abs=1e-15)


def test_nothing_of_either_is_no_trouble() -> None:
    none, some = detections_of([], []), detections_of([[0, 0, 2, 2]], [0.5])
    no_truths, truths = truths_of([]), truths_of([[0, 0, 2, 2]])
    flat = truths_of([[1, 1, 1, 5]])
    for found in (none, some):
        assert math.isnan(coco_ap(found, no_truths)[100].mean)
        assert coco_ap(found, flat)[500].mean == 0
    assert coco_ap(none, truths)[100].mean_50 == 0
    assert coco_ap(some, truths)[100].mean_50 == pytest.approx(1, abs=1e-15)
    assert coco_ap(none, truths_of([], classes=1))[100].by_iou.shape == (10, 1)
    assert math.isnan(coco_ap(some, truths, ground_truth_mask=np.array([False]))[100].mean)


def test_what_does_not_fit_together_is_refused() -> None:
    detections, truths = detections_of([[0, 0, 2, 2]], [0.5]), truths_of([[0, 0, 2, 2]])
    for most in ((), (0,), (100, -1)):
        with pytest.raises(ValueError, match="1 or more"):
            coco_ap(detections, truths, most)
    with pytest.raises(ValueError, match="2 classes"):
        coco_ap(replace(detections, labels=np.array([2])), truths)
    for only in (np.array([True, True]), np.array([1])):
        with pytest.raises(ValueError, match=r"ground_truth_mask must be bool of shape \(1,\)"):
            coco_ap(detections, truths, ground_truth_mask=only)
    with pytest.raises(ValueError, match="COCO"):
        coco_ap(detections, truths)[100].at(0.33)
