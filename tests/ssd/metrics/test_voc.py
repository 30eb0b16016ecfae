"""Average precision is what a plain loop gives, and what the rule says where one can count by hand."""

import math
import tracemalloc
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd import (
    COCO_IOUS,
    FALSE_POSITIVE,
    NOT_COUNTED,
    TRUE_POSITIVE,
    Curve,
    DetectionArrays,
    Detections,
    GroundTruthArrays,
    Target,
    average_precision,
    match_arrays,
    match_images,
    match_outcomes,
    pr_curves,
    voc_ap,
)

IOUS = (0.05, 0.25, 0.5, 0.75, 1.0)
SEEDS = st.integers(0, 2**32 - 1)


@dataclass(frozen=True)
class Plain:
    """What a plain loop makes of detections and truths."""

    outcomes: list[int]
    eleven: list[float]
    area: list[float]


def plain_iou(one: list[float], other: list[float]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return width * height / (areas[0] + areas[1] - width * height)


def plain_area(recalls: list[float], precisions: list[float]) -> float:
    recalls, precisions = [0.0, *recalls, 1.0], [0.0, *precisions, 0.0]
    for at in range(len(precisions) - 2, -1, -1):
        precisions[at] = max(precisions[at], precisions[at + 1])
    return sum((recalls[at] - recalls[at - 1]) * precisions[at] for at in range(1, len(recalls)))


def plain_eleven(hits: list[int], precisions: list[float], positives: int) -> float:
    total = 0.0
    for level in range(11):
        reached = [
            p for hit, p in zip(hits, precisions, strict=True) if Fraction(hit, positives) >= Fraction(level, 10)
        ]
        total += max(reached, default=0.0) / 11
    return total


def plain_voc(detections: DetectionArrays, truths: GroundTruthArrays, iou: float) -> Plain:
    """The development kit's way: class by class, detection by detection, truth by truth."""
    found, true_boxes = detections.boxes.tolist(), truths.boxes.tolist()
    ignore = [False] * len(truths) if truths.ignore is None else truths.ignore.tolist()
    result, elevens, areas = [NOT_COUNTED] * len(found), [math.nan], [math.nan]
    of_image: dict[tuple[int, int], list[int]] = {}
    for row, (image, label) in enumerate(zip(truths.images.tolist(), truths.labels.tolist(), strict=True)):
        of_image.setdefault((image, label), []).append(row)
    images, labels, scores = detections.images.tolist(), detections.labels.tolist(), detections.scores.tolist()
    for label in range(1, truths.classes):
        positives = sum(known == label and not ignore[row] for row, known in enumerate(truths.labels.tolist()))
        taken: set[int] = set()
        hit = seen = 0
        hits, recalls, precisions = [], [], []
        for row in sorted((row for row, known in enumerate(labels) if known == label), key=lambda row: -scores[row]):
            if truths.labelled is not None and not truths.labelled[images[row], label]:
                continue
            best, best_iou = -1, -1.0
            for truth in of_image.get((images[row], label), []):
                overlap = plain_iou(found[row], true_boxes[truth])
                if overlap > best_iou:
                    best, best_iou = truth, overlap
            if best_iou >= iou and ignore[best]:
                continue
            right = best_iou >= iou and best not in taken
            taken |= {best} if right else set()
            result[row] = TRUE_POSITIVE if right else FALSE_POSITIVE
            hit, seen = hit + right, seen + 1
            hits.append(hit)
            precisions.append(hit / seen)
            recalls.append(hit / positives if positives else math.nan)
        elevens.append(plain_eleven(hits, precisions, positives) if positives else math.nan)
        areas.append(plain_area(recalls, precisions) if positives else math.nan)
    return Plain(result, elevens, areas)


def draw_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Whole numbers in a small square, so that overlaps are often equal and often just at a threshold."""
    begins, sizes = rng.integers(0, 8, (count, 2)), rng.integers(1, 8, (count, 2))
    return np.concatenate([begins, begins + sizes], axis=1).astype(np.float32)


def draw(rng: np.random.Generator) -> tuple[DetectionArrays, GroundTruthArrays]:
    """Up to 5 images and 4 classes in any order of rows, few different scores, sometimes none of either."""
    images, classes = int(rng.integers(1, 6)), int(rng.integers(2, 6))
    labelled = rng.random((images, classes)) < rng.choice([0.7, 1.0])
    labelled[:, 0] = True
    at, labels = rng.integers(0, images, rng.choice([0, 1, 12, 30])), rng.integers(1, classes, 30)
    labels = labels[: len(at)]
    kept = labelled[at, labels]
    at, labels = at[kept], labels[kept]
    ignore = rng.random(len(at)) < rng.choice([0.0, 0.3, 1.0])
    truths = GroundTruthArrays(at, labels, draw_boxes(rng, len(at)), classes, ignore, labelled)
    count = rng.choice([0, 1, 20, 60])
    boxes = draw_boxes(rng, count)
    copied = rng.random(count) < (0.6 if len(at) else 0)
    source = rng.integers(0, max(len(at), 1), count)[copied]
    boxes[copied] = truths.boxes[source] + rng.integers(-1, 2, (len(source), 4))  # at times of no area or less
    found, of_class = rng.integers(0, images, count), rng.integers(1, classes, count)
    found[copied], of_class[copied] = at[source], labels[source]
    scores = (rng.integers(0, 8, count) / 8).astype(np.float32)
    return DetectionArrays(found, of_class, scores, boxes), truths


def detections_of(
    boxes: list[list[float]], scores: list[float], labels: list[int] | None = None, images: list[int] | None = None
) -> DetectionArrays:
    count = len(boxes)
    return DetectionArrays(
        np.array(images or [0] * count, dtype=np.int64),
        np.array(labels or [1] * count, dtype=np.int64),
        np.array(scores, dtype=np.float64),
        np.array(boxes, dtype=np.float64).reshape(-1, 4),
    )


def truths_of(boxes: list[list[float]], labels: list[int] | None = None, **more: Any) -> GroundTruthArrays:
    rows = detections_of(boxes, [0.0] * len(boxes), labels, more.pop("images", None))
    return GroundTruthArrays(rows.images, rows.labels, rows.boxes, more.pop("classes", 2), **more)


def selected(rows: DetectionArrays, kept: np.ndarray) -> DetectionArrays:
    return DetectionArrays(rows.images[kept], rows.labels[kept], rows.scores[kept], rows.boxes[kept])


def joined(first: DetectionArrays, second: DetectionArrays) -> DetectionArrays:
    names = ("images", "labels", "scores", "boxes")
    return DetectionArrays(*(np.concatenate([getattr(first, name), getattr(second, name)]) for name in names))


def test_a_thousand_drawn_cases_are_what_the_plain_loop_gives() -> None:
    kinds, unknown = set(), 0
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        detections, truths = draw(rng)
        iou = float(rng.choice(IOUS))
        plain, matches = plain_voc(detections, truths, iou), match_arrays(detections, truths)
        result = match_outcomes(matches, iou)
        assert result.tolist() == plain.outcomes, seed
        for points, expected in ((11, plain.eleven), ("all", plain.area)):
            np.testing.assert_allclose(
                voc_ap(matches, iou, points).by_label, expected, rtol=0, atol=1e-12, err_msg=str(seed)
            )
        kinds |= set(result.tolist())
        unknown += any(math.isnan(ap) for ap in plain.area[1:])
    assert kinds == {TRUE_POSITIVE, FALSE_POSITIVE, NOT_COUNTED}
    assert 100 < unknown < 900


@pytest.mark.parametrize("chunk", [1, 2, 7])
def test_where_a_chunk_ends_changes_nothing(chunk: int) -> None:
    for seed in range(100):
        detections, truths = draw(np.random.default_rng(seed))
        whole, parts = match_arrays(detections, truths), match_arrays(detections, truths, chunk)
        assert np.array_equal(whole.ground_truth, parts.ground_truth)
        assert np.array_equal(whole.iou, parts.iou)


def test_memory_does_not_grow_with_the_pairs() -> None:
    rng = np.random.default_rng(0)
    detections = detections_of(draw_boxes(rng, 2000).tolist(), rng.random(2000).tolist())
    truths = truths_of(draw_boxes(rng, 1000).tolist())
    tracemalloc.start()
    match_arrays(detections, truths, 10_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20  # one float64 for each of the 2,000,000 pairs would be twice that


@settings(deadline=None)
@given(SEEDS, st.sampled_from(IOUS), st.sampled_from([11, "all"]))
def test_it_is_a_share(seed: int, iou: float, points: Any) -> None:
    detections, truths = draw(np.random.default_rng(seed))
    result = voc_ap(match_arrays(detections, truths), iou, points)
    known = result.by_label[~np.isnan(result.by_label)]
    assert np.array_equal(np.flatnonzero(~np.isnan(result.by_label)), np.flatnonzero(truths.positives()))
    assert bool(((known >= 0) & (known <= 1)).all())
    assert 0 <= result.mean <= 1 if len(known) else math.isnan(result.mean)


@settings(deadline=None)
@given(SEEDS, st.sampled_from(IOUS), st.sampled_from([11, "all"]))
def test_the_truths_found_with_any_score_are_perfect(seed: int, iou: float, points: Any) -> None:
    rng = np.random.default_rng(seed)
    _, drawn = draw(rng)
    rows = np.column_stack([drawn.images, drawn.labels, drawn.boxes])
    once = np.unique(rows, axis=0, return_index=True)[1]  # of two truths in one place only one can be found
    assert drawn.ignore is not None
    truths = replace(
        drawn,
        images=drawn.images[once],
        labels=drawn.labels[once],
        boxes=drawn.boxes[once],
        ignore=drawn.ignore[once],
    )
    found = DetectionArrays(truths.images, truths.labels, rng.random(len(truths)), truths.boxes)
    result = voc_ap(match_arrays(found, truths), iou, points).by_label
    assert set(result[truths.positives() > 0]) <= {1.0}


@settings(deadline=None)
@given(SEEDS, st.sampled_from(IOUS), st.sampled_from([11, "all"]), st.floats(-1, 1))
def test_a_false_positive_raises_nothing(seed: int, iou: float, points: Any, score: float) -> None:
    detections, truths = draw(np.random.default_rng(seed))
    before = voc_ap(match_arrays(detections, truths), iou, points).by_label
    more = joined(detections, detections_of([[90.0, 90.0, 99.0, 99.0]], [score]))
    after = voc_ap(match_arrays(more, truths), iou, points).by_label
    known = ~np.isnan(before)
    assert bool((after[known] <= before[known]).all())
    if score < 0:  # below all others
        assert np.array_equal(after, before, equal_nan=True)


@settings(deadline=None)
@given(SEEDS, st.sampled_from(IOUS))
def test_neither_the_order_of_images_nor_that_of_rows_matters(seed: int, iou: float) -> None:
    rng = np.random.default_rng(seed)
    drawn, truths = draw(rng)
    detections = DetectionArrays(drawn.images, drawn.labels, rng.permutation(len(drawn)) / 64, drawn.boxes)
    assert truths.labelled is not None
    places, rows = rng.permutation(len(truths.labelled)), rng.permutation(len(drawn))
    moved = replace(truths, images=places[truths.images], labelled=truths.labelled[np.argsort(places)])
    shuffled = selected(replace(detections, images=places[detections.images]), rows)
    here, there = match_arrays(detections, truths), match_arrays(shuffled, moved)
    assert np.array_equal(match_outcomes(here, iou)[rows], match_outcomes(there, iou))
    assert np.array_equal(voc_ap(here, iou).by_label, voc_ap(there, iou).by_label, equal_nan=True)


def test_nothing_of_either_is_no_trouble() -> None:
    none, some = detections_of([], []), detections_of([[0, 0, 2, 2]], [0.5])
    no_truths, truths = truths_of([]), truths_of([[0, 0, 2, 2]])
    assert match_arrays(none, no_truths).ground_truth.shape == (0,)
    assert match_outcomes(match_arrays(none, no_truths), 0.5).shape == (0,)
    assert match_outcomes(match_arrays(some, no_truths), 0.5).tolist() == [FALSE_POSITIVE]
    for points in (11, "all"):
        assert math.isnan(voc_ap(match_arrays(none, no_truths), 0.5, points).mean)
        assert math.isnan(voc_ap(match_arrays(some, no_truths), 0.5, points).mean)
        assert voc_ap(match_arrays(none, truths), 0.5, points).mean == 0
        assert voc_ap(match_arrays(some, truths), 0.5, points).mean == 1
    assert math.isnan(voc_ap(match_images([], [], 2)).mean)
    assert voc_ap(match_arrays(none, truths_of([], classes=1))).by_label.shape == (1,)


def test_one_curve_by_hand() -> None:
    truths = truths_of([[0, 0, 2, 2], [4, 0, 6, 2]])
    detections = detections_of([[4, 0, 6, 2], [0, 0, 2, 2], [9, 9, 10, 10]], [0.7, 0.9, 0.8])
    matches = match_arrays(detections, truths)
    assert matches.ground_truth.tolist() == [1, 0, -1]
    assert matches.iou.tolist() == [1, 1, 0]
    background, curve = pr_curves(matches, 0.5)
    assert len(background.scores) == 0
    assert curve.scores.tolist() == [0.9, 0.8, 0.7]
    assert curve.recall.tolist() == [0.5, 0.5, 1.0]
    assert curve.precision.tolist() == [1, 1 / 2, 2 / 3]
    assert average_precision(curve, "all") == pytest.approx((1 + 2 / 3) / 2, abs=1e-15)
    assert average_precision(curve, 11) == pytest.approx((6 + 5 * 2 / 3) / 11, abs=1e-15)


@pytest.mark.parametrize("hits", range(11))
def test_a_recall_of_so_many_tenths_reaches_its_level(hits: int) -> None:
    curve = Curve(np.linspace(1, 0, hits), np.arange(1, hits + 1), 10)
    assert average_precision(curve, 11) == pytest.approx((hits + 1) / 11 if hits else 0, abs=1e-15)


@pytest.mark.parametrize("twentieths", range(10, 20))
def test_an_overlap_of_exactly_the_threshold_is_enough(twentieths: int) -> None:
    matches = match_arrays(detections_of([[0, 0, twentieths, 1]], [0.5]), truths_of([[0, 0, 20, 1]]))
    right = [match_outcomes(matches, iou).item() == TRUE_POSITIVE for iou in COCO_IOUS]
    assert right == [step <= twentieths - 10 for step in range(10)]


def test_boxes_are_half_open() -> None:
    found = detections_of([[0, 0, 1, 1], [2, 0, 4, 1]], [0.5, 0.6])  # inclusive: 4/6, and the second would touch
    matches = match_arrays(found, truths_of([[0, 0, 2, 1]]))
    assert matches.iou.tolist() == [0.5, 0]
    assert matches.ground_truth.tolist() == [0, -1]


def test_a_box_without_area_overlaps_nothing() -> None:
    flat = [[0, 0, 4, 4], [1, 1, 1, 5], [3, 3, 2, 2], [0, 0, 0, 0]]
    matches = match_arrays(detections_of(flat, [0.5] * 4), truths_of(flat))
    assert matches.iou.tolist() == [1, 0, 0, 0]
    assert voc_ap(matches).mean == 1 / 4


def test_the_largest_overlap_is_asked_for_and_no_other() -> None:
    truths = truths_of([[0, 0, 10, 10], [0, 0, 10, 8]])
    detections = detections_of([[0, 0, 10, 10], [0, 0, 10, 10]], [0.9, 0.8])
    matches = match_arrays(detections, truths)
    assert matches.ground_truth.tolist() == [0, 0]
    assert match_outcomes(matches, 0.5).tolist() == [TRUE_POSITIVE, FALSE_POSITIVE]  # truth 1 would be left, at .8


def test_of_equal_overlaps_and_of_equal_scores_the_first_wins() -> None:
    matches = match_arrays(
        detections_of([[0, 0, 4, 4], [0, 0, 4, 4]], [0.5, 0.5]), truths_of([[0, 0, 4, 3], [0, 1, 4, 4], [0, 0, 4, 3]])
    )
    assert matches.ground_truth.tolist() == [0, 0]
    assert match_outcomes(matches, 0.5).tolist() == [TRUE_POSITIVE, FALSE_POSITIVE]


def test_about_an_ignored_truth_nothing_counts() -> None:
    truths = truths_of([[0, 0, 4, 4], [9, 0, 13, 4]], ignore=np.array([True, False]))
    boxes = [[0, 0, 4, 4], [0, 0, 4, 3], [0, 0, 4, 1], [9, 0, 13, 4]]
    matches = match_arrays(detections_of(boxes, [0.9, 0.8, 0.7, 0.6]), truths)
    assert match_outcomes(matches, 0.5).tolist() == [NOT_COUNTED, NOT_COUNTED, FALSE_POSITIVE, TRUE_POSITIVE]
    assert pr_curves(matches, 0.5)[1].positives == 1


def test_what_an_annotation_would_not_show_does_not_count() -> None:
    labelled = np.array([[True, True, False], [True, True, True]])
    truths = truths_of([[0, 0, 2, 2], [0, 0, 2, 2]], [1, 2], images=[0, 1], classes=3, labelled=labelled)
    detections = detections_of([[0, 0, 2, 2]] * 3, [0.9, 0.8, 0.7], [2, 1, 2], [0, 0, 1])
    matches = match_arrays(detections, truths)
    assert matches.counts.tolist() == [False, True, True]
    assert match_outcomes(matches, 0.5).tolist() == [NOT_COUNTED, TRUE_POSITIVE, TRUE_POSITIVE]
    assert voc_ap(matches).by_label[1:].tolist() == [1, 1]
    assert voc_ap(match_arrays(detections, replace(truths, labelled=None))).by_label[1:].tolist() == [1, 0.5]


def test_another_class_and_another_image_are_no_match() -> None:
    truths = truths_of([[0, 0, 2, 2]], [1], classes=3)
    matches = match_arrays(detections_of([[0, 0, 2, 2]] * 2, [0.9, 0.8], [2, 1], [0, 7]), truths)
    assert matches.ground_truth.tolist() == [-1, -1]
    assert voc_ap(matches).mean == 0


def test_whole_numbers_and_floats_of_any_width_will_do() -> None:
    detections, truths = draw(np.random.default_rng(3))
    narrow = DetectionArrays(
        detections.images.astype(np.uint32),
        detections.labels.astype(np.uint8),
        detections.scores.astype(np.float16),
        detections.boxes.astype(np.float16),
    )
    other = replace(truths, images=truths.images.astype(np.uint64), labels=truths.labels.astype(np.uint64))
    wide = replace(narrow, images=detections.images.astype(np.uint64), labels=detections.labels.astype(np.uint64))
    expected = voc_ap(match_arrays(detections, truths)).by_label
    for rows in (narrow, wide):
        assert np.array_equal(voc_ap(match_arrays(rows, other)).by_label, expected, equal_nan=True)


def test_lists_of_images_are_the_same_as_rows() -> None:
    for seed in range(50):
        detections, truths = draw(np.random.default_rng(seed))
        assert truths.labelled is not None
        assert truths.ignore is not None
        found, targets = [], []
        for image, labelled in enumerate(truths.labelled):
            here, there = detections.images == image, truths.images == image
            tensors = [torch.from_numpy(row[here]) for row in (detections.boxes, detections.labels, detections.scores)]
            found.append(Detections(*tensors))
            arrays = (truths.boxes[there], truths.labels[there], truths.ignore[there], labelled)
            targets.append(Target(*(torch.from_numpy(row) for row in arrays)))
        by_image = np.argsort(detections.images, kind="stable")
        from_rows = match_arrays(selected(detections, by_image), truths)
        from_lists = match_images(found, targets, truths.classes)
        assert np.array_equal(match_outcomes(from_lists, 0.5), match_outcomes(from_rows, 0.5)), seed
        for points in (11, "all"):
            expected = voc_ap(from_rows, 0.5, points).by_label
            assert np.array_equal(voc_ap(from_lists, 0.5, points).by_label, expected, equal_nan=True)


def test_a_target_without_flags_and_scores_of_16_bits() -> None:
    boxes, label = torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([1])
    found = Detections(boxes, label, torch.tensor([0.5], dtype=torch.bfloat16, requires_grad=True))
    matches = match_images([found], [Target(boxes, label)], 2)
    assert voc_ap(matches).by_label.tolist()[1:] == [1.0]


def test_what_does_not_fit_together_is_refused() -> None:
    detections, truths = detections_of([[0, 0, 2, 2]], [0.5]), truths_of([[0, 0, 2, 2]])
    with pytest.raises(ValueError, match="2 classes"):
        match_arrays(replace(detections, labels=np.array([2])), truths)
    with pytest.raises(ValueError, match="image 1"):
        match_arrays(replace(detections, images=np.array([1])), replace(truths, labelled=np.ones((1, 2), dtype=bool)))
    with pytest.raises(ValueError, match="0 and 1"):
        match_images([], [Target(torch.zeros((0, 4)), torch.zeros(0, dtype=torch.int64))], 2)
    matches = match_arrays(detections, truths)
    for iou in (0.0, -1.0, 1.5, math.nan):
        with pytest.raises(ValueError, match="above 0"):
            match_outcomes(matches, iou)
    with pytest.raises(ValueError, match="11 points"):
        voc_ap(matches, 0.5, 101)
