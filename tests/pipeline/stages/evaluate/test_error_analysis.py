"""What each detection is: planted errors are named, and their costs are what mending them gains."""

import numpy as np
import pytest

from pipeline.stages.evaluate.error_analysis import ERROR_KINDS, OUTCOMES, analyse_errors, ap_gain_if_fixed
from ssd import DetectionArrays, GroundTruthArrays, match_arrays, voc_ap

from ...noise_model import make_noisy_evaluation

BOX = [10.0, 10, 30, 30]


def rows(*found: tuple[int, float, list[float]]) -> DetectionArrays:
    labels, scores, boxes = zip(*found, strict=True) if found else ((), (), ())
    return DetectionArrays(
        np.zeros(len(found), np.int64),
        np.array(labels, np.int64),
        np.array(scores, np.float64),
        np.array(boxes, np.float64).reshape(-1, 4),
    )


def truths(*true: tuple[int, list[float]], ignore: tuple[bool, ...] | None = None) -> GroundTruthArrays:
    labels, boxes = zip(*true, strict=True) if true else ((), ())
    return GroundTruthArrays(
        np.zeros(len(true), np.int64),
        np.array(labels, np.int64),
        np.array(boxes, np.float64).reshape(-1, 4),
        3,
        None if ignore is None else np.array(ignore),
    )


def kinds(detections: DetectionArrays, true: GroundTruthArrays) -> list[str]:
    return [OUTCOMES[place] for place in analyse_errors(detections, true).outcomes]


@pytest.mark.parametrize("kind", [kind for kind in OUTCOMES if kind != "ignored"])
def test_planted_kinds_are_named(kind: str) -> None:
    drawn = make_noisy_evaluation(100, 1)
    verdicts = analyse_errors(drawn.data.detections, drawn.data.ground_truths)
    named = np.array(OUTCOMES)[verdicts.outcomes]
    planted = drawn.outcomes == kind
    assert planted.sum() > 50
    assert (named[planted] == kind).mean() >= 0.95
    assert (drawn.outcomes[named == kind] == kind).mean() >= 0.95


def test_missed_are_those_that_nothing_correct_was_planted_for() -> None:
    drawn = make_noisy_evaluation(60, 2)
    verdicts = analyse_errors(drawn.data.detections, drawn.data.ground_truths)
    hit = np.isin(np.arange(len(drawn.data.ground_truths)), drawn.ground_truth_rows[drawn.outcomes == "correct"])
    assert (verdicts.missed() == ~hit).mean() > 0.99


def test_one_of_each_kind() -> None:
    found = rows(
        (1, 0.9, BOX),
        (1, 0.8, [11, 10, 30, 30]),
        (1, 0.7, [22, 10, 42, 30]),
        (2, 0.6, BOX),
        (2, 0.5, [60, 60, 80, 80]),
    )
    assert kinds(found, truths((1, BOX))) == ["correct", "duplicate", "localisation", "class", "background"]


def test_about_an_ignored_box_nothing_is_wrong() -> None:
    found = rows((1, 0.9, BOX), (2, 0.8, BOX))
    verdicts = analyse_errors(found, truths((1, BOX), ignore=(True,)))
    assert [OUTCOMES[place] for place in verdicts.outcomes] == ["ignored", "background"]
    assert not verdicts.missed().any()


def test_nothing_found_and_nothing_true() -> None:
    assert kinds(rows(), truths((1, BOX))) == []
    assert analyse_errors(rows(), truths((1, BOX))).missed().tolist() == [True]
    assert kinds(rows((1, 0.5, BOX)), truths()) == ["background"]
    assert ap_gain_if_fixed(analyse_errors(rows(), truths())).keys() == set(ERROR_KINDS)


def test_an_error_costs_what_mending_it_gains() -> None:
    far, off = [60.0, 60, 80, 80], [66.0, 60, 90, 80]
    true = truths((1, BOX), (1, far))
    found = rows((1, 0.9, off), (1, 0.8, BOX))
    plain = voc_ap(match_arrays(found, true)).by_label[1]
    mended = voc_ap(match_arrays(rows((1, 0.9, far), (1, 0.8, BOX)), true)).by_label[1]
    price = ap_gain_if_fixed(analyse_errors(found, true))
    assert (plain, mended) == (0.25, 1.0)
    assert price["localisation"][1] == pytest.approx(mended - plain)
    assert [price[kind][1] for kind in ("duplicate", "class", "background")] == [0, 0, 0]
    assert price["missed"][1] == pytest.approx(0.5 - plain)


def test_chosen_detections_decide_what_is_missed() -> None:
    verdicts = analyse_errors(rows((1, 0.9, BOX), (1, 0.4, [60, 60, 80, 80])), truths((1, BOX), (1, [60, 60, 80, 80])))
    assert verdicts.missed().tolist() == [False, False]
    assert verdicts.missed(np.array([True, False])).tolist() == [False, True]
    assert verdicts.counts(np.array([True, False]))["correct"].tolist() == [0, 1, 0]
