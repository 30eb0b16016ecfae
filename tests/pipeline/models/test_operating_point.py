"""Operating points: best thresholds are found, sums of scores are numbers of objects, and files are checked."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import FacadeError
from pipeline.models.operating_point import OPERATING_POINT_FILE, OperatingPoint, load_operating_point
from pipeline.stages.evaluate.data import EvaluationData
from pipeline.stages.evaluate.error_analysis import analyse_errors
from pipeline.stages.evaluate.threshold_fitting import count_errors, count_ground_truths, fit_operating_point

from ..noise_model import make_noisy_evaluation


def fitted(judged: EvaluationData) -> OperatingPoint:
    return fit_operating_point(judged, analyse_errors(judged.detections, judged.ground_truths), "model", "val")


@pytest.fixture(scope="module")
def judged() -> EvaluationData:
    return make_noisy_evaluation(120, 5).data


def test_sums_of_scores_are_numbers_of_objects(judged: EvaluationData) -> None:
    point = fitted(judged.select_split("val"))
    for split, off in (("val", 0.1), ("test", 0.2)):
        part = judged.select_split(split)
        names = np.array(["", *part.classes])[part.detections.labels]
        probabilities, chosen = point.apply(names, part.detections.images, part.detections.scores)
        for number, name in enumerate(part.classes, start=1):
            own = part.detections.labels == number
            true = count_ground_truths(part)[:, number].sum()
            assert probabilities[own].sum() == pytest.approx(true, rel=off), (split, name)
            assert chosen[own].sum() == pytest.approx(true, rel=off + 0.05), (split, name)
    assert ((probabilities >= 0) & (probabilities <= 1)).all()


def test_a_higher_score_is_worth_no_less(judged: EvaluationData) -> None:
    for point in fitted(judged).classes.values():
        assert list(point.scores) == sorted(point.scores)
        assert list(point.probabilities) == sorted(point.probabilities)


def test_the_threshold_is_where_f1_is_best(judged: EvaluationData) -> None:
    verdicts, point = analyse_errors(judged.detections, judged.ground_truths), fitted(judged)
    for number, name in enumerate(judged.classes, start=1):
        own = judged.detections.labels == number
        positives = int((judged.ground_truths.labels == number).sum())
        best = max(
            2 * int((own & above & (verdicts.outcomes == 0)).sum()) / (int((own & above).sum()) + positives)
            for least in np.unique(judged.detections.scores[own])
            for above in [judged.detections.scores >= least]
        )
        assert point.classes[name].f1 == pytest.approx(best, abs=1e-4)


def test_numbers_are_nearer_to_the_truth_than_with_one_threshold() -> None:
    drawn = make_noisy_evaluation(200, 6).data
    test, point = drawn.select_split("test"), fitted(drawn.select_split("val"))
    errors = count_errors(test, analyse_errors(test.detections, test.ground_truths), point)
    ours, theirs = errors[""]
    assert ours.mean() < theirs.mean()
    assert ours == pytest.approx(np.mean([errors[name][0] for name in test.classes], axis=0))


def test_a_class_that_was_not_fitted_is_chosen_from_half() -> None:
    point = OperatingPoint("model", 0, "val", {})
    probabilities, chosen = point.apply(np.array(["shop", "shop"]), np.array([0, 0]), np.array([0.6, 0.4]))
    assert np.isnan(probabilities).all()
    assert chosen.tolist() == [True, False]


def test_photos_are_chosen_from_one_by_one(judged: EvaluationData) -> None:
    point, found = fitted(judged), judged.detections
    names = np.array(["", *judged.classes])[found.labels]
    whole = point.apply(names, found.images, found.scores)
    for image in range(0, 120, 17):
        own = found.images == image
        alone = point.apply(names[own], np.zeros(own.sum(), int), found.scores[own])
        assert (alone[0] == whole[0][own]).all()
        assert (alone[1] == whole[1][own]).all()
    nothing = point.apply(np.array([], str), np.zeros(0, int), np.zeros(0))
    assert [len(part) for part in nothing] == [0, 0]


def test_it_is_read_as_it_was_written(tmp_path: Path, judged: EvaluationData) -> None:
    point = fitted(judged)
    assert load_operating_point(tmp_path, "model") is None
    (tmp_path / OPERATING_POINT_FILE).write_bytes(point.to_json())
    found = load_operating_point(tmp_path, "model")
    assert found == point
    assert found.digest == point.digest


@pytest.mark.parametrize("harm", ["model", "format", "cut", "lengths", "key"])
def test_a_file_that_is_not_this_model_s_is_refused(tmp_path: Path, judged: EvaluationData, harm: str) -> None:
    data = json.loads(fitted(judged).to_json())
    data["format"] = 3 if harm == "format" else 2
    data["model"] = "other" if harm == "model" else "model"
    if harm == "lengths":
        data["classes"]["window"]["scores"].pop()
    if harm == "key":
        del data["classes"]["window"]["threshold"]
    text = json.dumps(data)
    (tmp_path / OPERATING_POINT_FILE).write_text(text[: len(text) // 2] if harm == "cut" else text)
    with pytest.raises(FacadeError, match=OPERATING_POINT_FILE):
        load_operating_point(tmp_path, "model")
