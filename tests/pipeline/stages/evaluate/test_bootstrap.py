"""Figures of drawings of the photos: the same as counting the drawn photos one by one."""

import numpy as np
import pytest

from pipeline.stages.evaluate.bootstrap import bootstrap_aps, bootstrap_counts, percentile_interval, rank_classes
from ssd import DetectionArrays, GroundTruthArrays, match_arrays, voc_ap

from ...noise_model import CLASSES, make_noisy_evaluation


@pytest.mark.parametrize("points", [11, "all"])
def test_a_drawing_counts_as_photos_that_are_there_so_often(points: int | str) -> None:
    judged = make_noisy_evaluation(20, 3).data
    matches = match_arrays(judged.detections, judged.ground_truths)
    weights = bootstrap_counts(20, 5, seed=1)
    ours = np.stack([bootstrap_aps(one, weights, points) for one in rank_classes(matches, 0.5, 20)], axis=1)  # type: ignore[arg-type]
    for row, drawn in zip(ours, weights, strict=True):
        copies = [image for image, times in enumerate(drawn) for _ in range(times)]
        found, true = judged.detections, judged.ground_truths
        where = [np.flatnonzero(found.images == image) for image in copies]
        those = [np.flatnonzero(true.images == image) for image in copies]
        number = np.repeat(np.arange(20), [len(rows) for rows in where])
        again = np.repeat(np.arange(20), [len(rows) for rows in those])
        rows, boxes = np.concatenate(where), np.concatenate(those)
        aps = voc_ap(
            match_arrays(
                DetectionArrays(number, found.labels[rows], found.scores[rows], found.boxes[rows]),
                GroundTruthArrays(again, true.labels[boxes], true.boxes[boxes], 1 + len(CLASSES)),
            ),
            0.5,
            points,  # type: ignore[arg-type]
        )
        assert row == pytest.approx(aps.by_label[1:], abs=0.02 if points == 11 else 1e-6)


def test_all_photos_once_is_the_figure_itself() -> None:
    judged = make_noisy_evaluation(30, 4).data
    matches = match_arrays(judged.detections, judged.ground_truths)
    once = np.ones((1, 30), np.uint16)
    for points in (11, "all"):
        ours = [bootstrap_aps(one, once, points)[0] for one in rank_classes(matches, 0.5, 30)]  # type: ignore[arg-type]
        assert ours == pytest.approx(voc_ap(matches, 0.5, points).by_label[1:], abs=1e-12)  # type: ignore[arg-type]


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    generator, held = np.random.default_rng(0), 0
    for trial in range(200):
        hits = generator.random(80) < 0.7
        low, high = percentile_interval(bootstrap_counts(80, 300, seed=trial) @ hits / 80)
        held += low <= 0.7 <= high
    assert 180 <= held <= 198


def test_nothing_to_find_is_no_figure() -> None:
    nothing = match_arrays(
        DetectionArrays(np.zeros(0, int), np.zeros(0, int), np.zeros(0), np.zeros((0, 4))),
        GroundTruthArrays(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 4)), 2),
    )
    (one,) = rank_classes(nothing, 0.5, 3)
    assert np.isnan(bootstrap_aps(one, bootstrap_counts(3, 4))).all()
    assert np.isnan(percentile_interval(bootstrap_aps(one, bootstrap_counts(3, 4)))).all()
