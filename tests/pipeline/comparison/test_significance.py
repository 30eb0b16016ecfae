"""Worse, better or no difference: drawn facades whose detections come from a stated noise model."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline.comparison.significance import BETTER, MIN_PHOTOS, SAME, WORSE, Comparison, Difference, compare
from pipeline.errors import FacadeError
from pipeline.stages.evaluate.record import EvaluationRecord
from pipeline.stages.evaluate.scores import HEADLINE, headline_rows
from pipeline.stages.evaluate.tables import evaluate_images
from pipeline.storage.schemas import empty_table

from ..noise_model import CLASSES, Noise, make_noisy_evaluation

PHOTOS = 40
MORE = Noise(recall=0.7, jitter=0.06, poor_boxes=0.15, duplicates=0.1, false_positives=0.25)


@lru_cache
def tables_of(seed: int, noise: Noise) -> dict[str, pa.Table]:
    return evaluate_images(make_noisy_evaluation(PHOTOS, seed, noise, ("test",)).data, "model", 0)


def judgement(seed: int, noise: Noise | None = None) -> EvaluationRecord:
    """Return what an evaluation of so many streets leaves, all of them test."""
    tables = tables_of(seed, noise or Noise())
    return EvaluationRecord(tables["evaluated_images"], tables["detection_matches"], tables["ground_truths"])


def only(one: EvaluationRecord, images: pa.Array) -> EvaluationRecord:
    """Return the judgement of some photos."""
    tables = (
        table.filter(pc.is_in(table["image_id"], images))
        for table in (one.evaluated_images, one.detection_matches, one.ground_truths)
    )
    return EvaluationRecord(*tables)


def changed(table: pa.Table, name: str, values: list) -> pa.Table:
    return table.set_column(
        table.column_names.index(name), table.schema.field(name), pa.array(values, table[name].type)
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_added_noise_is_worse_and_what_it_was_added_to_is_better(seed: int) -> None:
    there, back = compare(judgement(0), judgement(seed, MORE)), compare(judgement(seed, MORE), judgement(0))
    assert (there.mean.verdict, back.mean.verdict) == (WORSE, BETTER)
    assert there.mean.high < 0 < back.mean.low
    assert there.by_label()["window"].verdict == WORSE
    assert "the second is worse than the first beyond noise: -" in there.summary()
    assert "B is better than A beyond noise: +" in back.summary("A", "B")
    for label, one in there.by_label().items():  # paired: the same drawings the other way round
        assert (one.value, one.low, one.high) == pytest.approx(
            tuple(-getattr(back.by_label()[label], name) for name in ("value", "high", "low"))
        )


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_equal_noise_drawn_again_is_no_difference(seed: int) -> None:
    found = compare(judgement(0), judgement(seed))
    assert found.mean.verdict == SAME
    assert found.mean.value != 0
    assert found.mean.low < 0 < found.mean.high
    assert "no difference beyond noise" in found.summary()


def test_a_run_does_not_differ_from_itself() -> None:
    found = compare(judgement(0), judgement(0))
    assert {(one.value, one.low, one.high, one.verdict) for one in found.differences} == {(0.0, 0.0, 0.0, SAME)}
    assert (found.split, found.photos) == ("test", PHOTOS)


def test_figures_are_those_of_the_scores() -> None:
    """The tables hold all that the figures are counted from, whatever order their rows are in but for equal scores."""
    found = compare(judgement(0), judgement(1, MORE))
    for side, tables in (("first", tables_of(0, Noise())), ("second", tables_of(1, MORE))):
        for protocol in (HEADLINE, "voc_50"):
            rows = headline_rows(tables["scores"].to_pylist(), "test", protocol)
            ours = {label: getattr(one, side) for label, one in found.by_label(protocol).items()}
            assert ours == pytest.approx({label: row["value"] for label, row in rows.items()})
    assert list(found.by_label()) == ["", *sorted(CLASSES)]


def test_the_same_drawings_are_used_for_both() -> None:
    """A detector that is right a little more often in every photo is better, however much photos differ."""
    first = judgement(0)
    kinds = first.detection_matches["outcome"].to_pylist()
    wrong = np.flatnonzero(np.isin(kinds, ("localisation", "class")))
    for place in wrong[::2]:
        kinds[place] = "ignored"  # half of what is wrong with a high score does not count any more
    second = replace(first, detection_matches=changed(first.detection_matches, "outcome", kinds))
    found = compare(first, second)
    apart = compare(first, judgement(3))
    assert found.mean.verdict == BETTER
    assert found.mean.high - found.mean.low < (apart.mean.high - apart.mean.low) / 3


def test_ignored_detections_do_not_count_and_every_error_does() -> None:
    first = judgement(0)
    kinds = first.detection_matches["outcome"].to_pylist()
    wrong = ["duplicate" if kind in {"background", "class", "localisation"} else kind for kind in kinds]
    same = compare(first, replace(first, detection_matches=changed(first.detection_matches, "outcome", wrong)))
    assert {one.value for one in same.differences} == {0.0}
    without = first.detection_matches.filter(pc.not_equal(first.detection_matches["outcome"], "ignored"))
    assert {one.value for one in compare(first, replace(first, detection_matches=without)).differences} == {0.0}


def test_other_truths_are_refused() -> None:
    first = judgement(0)
    truths = first.ground_truths
    others = {
        "a box less": truths.slice(1),
        "another label": changed(truths, "label", ["door", *truths["label"].to_pylist()[1:]]),
        "a box to ignore": changed(truths, "ignore", [True, *truths["ignore"].to_pylist()[1:]]),
    }
    for what, table in others.items():
        with pytest.raises(
            FacadeError, match=r"^the two were evaluated on different ground truth, .*`facade evaluate`.*\.$"
        ):
            compare(first, replace(first, ground_truths=table))
        assert replace(first, ground_truths=table).digest != first.digest, what
    empty = first.evaluated_images.slice(0, 1)
    more = replace(
        first, evaluated_images=pa.concat_tables([first.evaluated_images, changed(empty, "image_id", ["drawn/x"])])
    )
    with pytest.raises(FacadeError, match="41 photos of test"):
        compare(first, more)


def test_the_order_of_rows_is_no_difference_between_truths() -> None:
    first = judgement(0)
    back = first.ground_truths.take(pa.array(range(len(first.ground_truths))[::-1]))
    assert compare(first, replace(first, ground_truths=back)).mean.value == 0


def test_without_test_photos_val_speaks() -> None:
    first, both = judgement(0), judgement(1)
    splits = ["val"] * PHOTOS
    found = compare(
        *(replace(one, evaluated_images=changed(one.evaluated_images, "split", splits)) for one in (first, both))
    )
    assert found.split == "val"
    assert "photos of val" in found.summary()
    splits[::2] = ["test"] * (PHOTOS // 2)
    assert (
        compare(
            *(replace(one, evaluated_images=changed(one.evaluated_images, "split", splits)) for one in (first, both))
        ).photos
        == PHOTOS // 2
    )
    learnt = replace(first, evaluated_images=changed(first.evaluated_images, "split", ["train"] * PHOTOS))
    assert not learnt.has_held_out_photos
    with pytest.raises(FacadeError, match="photos of train, and none of test or val"):
        compare(learnt, learnt)


def test_nothing_found_is_worse_and_no_better_than_nothing() -> None:
    first = judgement(0)
    nothing = replace(first, detection_matches=empty_table("detection_matches"))
    assert compare(first, nothing).mean.verdict == WORSE
    assert (compare(nothing, nothing).mean.value, compare(nothing, nothing).mean.verdict) == (0.0, SAME)
    assert all(len(recall) == len(precision) == 0 for recall, precision in nothing.pr_curves().values())


def test_nothing_to_find_is_refused() -> None:
    first = judgement(0)
    for truths in (
        empty_table("ground_truths"),
        changed(first.ground_truths, "ignore", [True] * len(first.ground_truths)),
    ):
        nothing = replace(first, ground_truths=truths)
        with pytest.raises(FacadeError, match="no ground-truth boxes"):
            compare(nothing, nothing)


def test_of_one_photo_nothing_can_be_told() -> None:
    """All drawings of one photo are alike, so that its interval has no width."""
    one, other = (only(side, pa.array(["drawn/00003"])) for side in (judgement(0), judgement(1, MORE)))
    found = compare(one, other)
    assert (found.photos, found.mean.verdict) == (1, SAME)
    assert found.mean.low == found.mean.high == pytest.approx(found.mean.value)
    assert "cannot be decided on so few photos" in found.summary()


def test_a_verdict_wants_enough_photos_and_a_side_of_nought() -> None:
    def verdict(low: float, high: float, photos: int = MIN_PHOTOS) -> str:
        return Difference(HEADLINE, "", 0.5, 0.6, low, high, photos).verdict

    assert (verdict(0.01, 0.2), verdict(-0.2, -0.01), verdict(-0.1, 0.1)) == (BETTER, WORSE, SAME)
    assert (verdict(0.0, 0.2), verdict(0.01, 0.2, MIN_PHOTOS - 1), verdict(np.nan, np.nan)) == (SAME, SAME, SAME)


def test_lines_are_recall_and_precision_along_the_score() -> None:
    recall, precision = judgement(0).pr_curves()["window"]
    assert (np.diff(recall) >= 0).all()
    assert 0 < recall[-1] < 1
    assert precision[0] == 1
    assert isinstance(compare(judgement(0), judgement(0)), Comparison)
