"""Priors: fitted, covered, chosen, and what that is worth on photos that were not fitted."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import FacadeError
from pipeline.imaging.boxes import pairwise_iou
from pipeline.stages.describe import stage as describe
from pipeline.stages.priors import stage as priors
from pipeline.stages.priors.coverage import GroundTruthBoxes, coverage_score, prior_coverage
from pipeline.stages.priors.fitting import GRIDS, Grid, fit_greedy, fit_statistics, jittered
from pipeline.stages.priors.stage import PriorsConfig, choose_priors
from ssd import PriorMap, PriorSpec, preset


def truths(xyxy: list, labels: list, images: list, classes: tuple[str, ...] = ("window", "door")) -> GroundTruthBoxes:
    return GroundTruthBoxes(classes, np.array(xyxy, float).reshape(-1, 4), np.array(labels, int), np.array(images, int))


ONE = PriorSpec("one", (100, 100), (PriorMap((2, 2), (50.0, 50.0), ((40.0, 40.0),)),))


def test_coverage_of_boxes_on_known_priors() -> None:
    exact, small = [0.05, 0.05, 0.45, 0.45], [0.55, 0.55, 0.65, 0.65]
    (window, door) = prior_coverage(ONE, truths([exact, small], [0, 1], [0, 0]))
    assert (window["boxes"], window["coverage_50"], window["coverage_70"], window["mean_iou"]) == (1, 1, 1, 1)
    assert (door["coverage_50"], round(door["mean_iou"], 3)) == (0, round(100 / 1600, 3))
    assert (window["positives"], door["positives"], window["share"]) == (1, 1, 0.5)


def test_positives_are_those_of_a_plain_matching() -> None:
    rng = np.random.default_rng(0)
    low = rng.random((40, 2)) * 0.6
    boxes = np.concatenate([low, low + 0.05 + rng.random((40, 2)) * 0.3], axis=1)
    given = truths(boxes.tolist(), [0] * 40, [i // 8 for i in range(40)])
    spec = preset("paper_coco")
    positives = []
    for image in range(5):
        overlaps = pairwise_iou(boxes[given.images == image] * 300, spec.xyxy_array())
        best = overlaps.argmax(0)
        learns = {(box, prior) for prior, box in enumerate(best) if overlaps[box, prior] >= 0.5}
        forced = {int(prior): box for box, prior in enumerate(overlaps.argmax(1))}
        learns = {(box, prior) for box, prior in learns if prior not in forced} | {(b, p) for p, b in forced.items()}
        positives.append(len(learns))
    (row,) = prior_coverage(spec, given)
    assert row["positives"] == pytest.approx(sum(positives) / 40)


def test_the_score_punishes_too_few_and_too_many_positives() -> None:
    def row(positives: float) -> dict[str, float]:
        return {"coverage_50": 1.0, "coverage_70": 0.5, "positives": positives}

    assert coverage_score([row(3)]) == coverage_score([row(8)]) == 1.25
    assert coverage_score([row(1.25)]) == coverage_score([row(24)]) == pytest.approx(1.05)
    assert coverage_score([]) == 0


def test_choice_takes_a_preset_that_is_better_and_says_so() -> None:
    def rows(name: str, covered: float) -> dict[str, object]:
        row = {"name": name, "split": "val", "label": "window", "coverage_50": covered, "coverage_70": 0.0}
        return row | {"positives": 4.0}

    chosen = choose_priors([rows("greedy", 0.7), rows("paper_coco", 0.8), rows("paper_voc", 0.3)], "val")
    assert chosen["name"] == "paper_coco"
    assert "the preset paper_coco scores 0.800 on val, better than fitted (greedy) 0.700" in chosen["reason"]
    assert choose_priors([rows("greedy", 0.9), rows("paper_coco", 0.8)], "val")["name"] == "greedy"


def test_greedy_finds_the_shapes_that_there_are() -> None:
    rng = np.random.default_rng(1)
    centres = 0.15 + rng.random((400, 2)) * 0.7
    sides = np.where(rng.random((400, 1)) < 0.5, [[0.06, 0.12]], [[0.2, 0.2]])
    given = truths(np.concatenate([centres - sides / 2, centres + sides / 2], 1).tolist(), [0] * 400, list(range(400)))
    (row,) = prior_coverage(fit_greedy(GRIDS[300], given), given)
    assert row["coverage_50"] == 1
    for name in ("paper_voc", "paper_coco"):
        (other,) = prior_coverage(preset(name), given)
        assert row["coverage_70"] > other["coverage_70"] + 0.1


@pytest.mark.parametrize("size", [300, 512])
def test_fitted_priors_fill_their_budget_without_twins(size: int) -> None:
    rng = np.random.default_rng(2)
    low = rng.random((300, 2)) * 0.7
    boxes = np.concatenate([low, low + 0.01 + rng.random((300, 2)) ** 2 * 0.29], axis=1)
    given = truths(boxes.tolist(), [i % 2 for i in range(300)], [i // 10 for i in range(300)])
    weights = {(float(w), float(h)): 1.0 for w, h in (boxes[:, 2:] - boxes[:, :2]) * size}
    for spec in (fit_greedy(GRIDS[size], given), fit_statistics(GRIDS[size], weights)):
        assert spec.count <= GRIDS[size].count == {300: 8732, 512: 24564}[size]
        assert spec.input_size == (size, size)
        for level in spec.maps:
            assert len(set(level.shapes)) == len(level.shapes)


def test_a_map_learns_what_its_stride_resolves() -> None:
    grid = Grid(300, ((38, 8.0, 4), (3, 100.0, 4)))
    assert grid.scale_range(8.0) == pytest.approx((9.2, 28))
    assert grid.scale_range(100.0) == pytest.approx((175, 300))
    assert GRIDS[300].scale_range(300.0) == pytest.approx((180, 300))
    for finer, coarser in pairwise((8.0, 16.0, 32.0, 64.0)):
        assert GRIDS[300].scale_range(finer)[1] == GRIDS[300].scale_range(coarser)[0]


def test_jittered_boxes_stay_inside_and_keep_their_classes() -> None:
    given = truths([[0, 0, 1, 1], [0.98, 0.98, 1, 1], [0, 0.5, 0.001, 0.6]], [0, 1, 0], [0, 0, 0])
    boxes, labels = jittered(GRIDS[300], given, np.random.default_rng(0))
    assert boxes.min() >= -1e-9
    assert boxes.max() <= 300 + 1e-9
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert labels.tolist() == [0] * 4 + [1] * 4 + [0] * 4


@pytest.fixture(scope="module")
def large_dataset(make_streets: Callable[..., Path]) -> Path:
    return make_streets(40, 8, 320, 240)


@pytest.fixture
def described_work(workplace: Callable, large_dataset: Path, cards: tuple[str, str]):
    work = workplace()
    work.index(large_dataset, cards[1])
    work.extract()
    describe.run(work.context, describe.DescribeConfig())
    return work


def test_the_stage_writes_what_train_takes(described_work) -> None:
    outcome = priors.run(described_work.context, PriorsConfig())
    assert (outcome.rows_in, outcome.rows_out, outcome.rejected) == (6, 6, 0)
    path = described_work.context.work / "priors/priors.json"
    value = json.loads(path.read_text())
    assert set(value["specs"]) == {"greedy", "statistics", "paper_voc", "paper_coco", "epfl_table", "epfl_code"}
    assert PriorSpec.from_json(value["specs"][value["chosen"]]).input_size == (300, 300)
    assert {row["split"] for row in value["coverage"]} == {"train", "val", "test"}
    assert any("8752 priors by this table, 8732 by the report's Table II" in line for line in described_work.messages)
    assert (path.parent / "figures/coverage.png").stat().st_size > 5000
    path.unlink()
    assert priors.run(described_work.context, PriorsConfig()).changed is False
    assert json.loads(path.read_text()) == value


@pytest.mark.parametrize(
    ("config", "count"),
    [({"stride4": True}, 31232), ({"maps": ((38, 8, 2), (10, 32, 5))}, 2 * 38 * 38 + 500)],
)
def test_any_budget_and_a_stride_4_map(described_work, config: dict, count: int) -> None:
    priors.run(described_work.context, PriorsConfig(**config))
    rows = {row["name"]: row["priors"] for row in described_work.rows("priors", "specs")}
    assert 0.9 * count < rows["greedy"] <= count


@pytest.mark.parametrize("maps", [(), ((38, 8),), ((38, -8, 4),), ((38, 8, 0),)])
def test_maps_that_cannot_be_are_refused(maps: tuple) -> None:
    with pytest.raises(ValueError, match="maps"):
        PriorsConfig(maps=maps)


def test_before_describe_it_says_what_to_run(workplace: Callable, large_dataset: Path, cards: tuple[str, str]) -> None:
    work = workplace()
    work.index(large_dataset, cards[1])
    work.extract()
    with pytest.raises(FacadeError, match="run `facade describe` first"):
        priors.run(work.context, PriorsConfig())


def cmp_truths(context) -> GroundTruthBoxes:
    index, extract = context.folder("index"), context.folder("extract")
    images = {row["image_id"]: (n, row) for n, row in enumerate(index.read("images", "cmp").to_pylist())}
    boxes, classes = extract.read("boxes", "cmp").to_pylist(), ("building", "window", "door")
    sizes = [[images[b["image_id"]][1]["width"], images[b["image_id"]][1]["height"]] * 2 for b in boxes]
    xyxy = np.array([[b["xmin"], b["ymin"], b["xmax"], b["ymax"]] for b in boxes]) / sizes
    numbers = [images[b["image_id"]][0] for b in boxes]
    return truths(xyxy.tolist(), [classes.index(b["label"]) for b in boxes], numbers, classes)


def held_out(
    given: GroundTruthBoxes, make: Callable[[GroundTruthBoxes], PriorSpec], splits: int
) -> dict[str, dict[str, float]]:
    """The mean figures of random 70/30 splits by image, judged on the 30 %."""
    found: dict[str, list[dict[str, float]]] = {}
    for seed in range(splits):
        order = np.random.default_rng(seed).permutation(given.images.max() + 1)
        train = np.isin(given.images, order[: int(0.7 * len(order))])
        for row in prior_coverage(make(given.select(train)), given.select(~train)):
            found.setdefault(row["label"], []).append(row)
    keys = ("coverage_50", "positives", "share")
    return {label: {key: float(np.mean([row[key] for row in rows])) for key in keys} for label, rows in found.items()}


def test_fitted_priors_beat_the_papers_on_facades_they_never_saw(workplace: Callable, real_data: Path) -> None:
    """CMP, five random splits; tests/bench/bench_priors.py does the stride-4 map and SSD512 too."""
    work = workplace()
    work.index(real_data / "cmp", name="cmp")
    work.extract()
    given = cmp_truths(work.context)
    fitted = held_out(given, lambda train: fit_greedy(GRIDS[300], train), 5)
    paper = held_out(given, lambda _: preset("paper_coco"), 5)
    assert fitted["window"]["coverage_50"] >= paper["window"]["coverage_50"] + 0.03
    assert fitted["door"]["coverage_50"] >= 0.92
    assert fitted["building"]["coverage_50"] >= 0.98
    assert fitted["window"]["positives"] >= 2.5
    assert fitted["window"]["share"] >= 0.6
