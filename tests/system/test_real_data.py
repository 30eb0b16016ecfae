"""The four cards on the real photos, where they are."""

from pathlib import Path

import pytest

from pipeline.datasets.card import resolve_card
from pipeline.execution.parallel import WorkerConfig
from pipeline.execution.runner import Context, Outcome
from pipeline.stages.extract import stage as extract
from pipeline.stages.extract.box_agreement import boxes_by_image, measure_agreement
from pipeline.stages.index import stage as index

COUNTS = {"cmp": 278, "cmp_xml": 278, "labelmefacade": 450, "saint_petersburg": 561}
FOLDERS = {"cmp": "cmp", "cmp_xml": "cmp", "labelmefacade": "labelmefacade", "saint_petersburg": "saint_petersburg"}


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    return Context(tmp_path_factory.mktemp("real"), WorkerConfig(count=2), "off")


@pytest.fixture(scope="module")
def outcomes(context: Context, real_data: Path) -> dict[str, Outcome]:
    """All four datasets, indexed and extracted into one work folder."""
    outcomes = {}
    for name in COUNTS:
        card, text = resolve_card(name)
        outcomes[name] = index.run(context, index.IndexConfig(), card, text, str(real_data / FOLDERS[name]))
    return outcomes | {"extract": extract.run(context, extract.ExtractConfig())}


def test_all_datasets_are_extracted_without_rejections(context: Context, outcomes: dict[str, Outcome]) -> None:
    for name, count in (COUNTS | {"extract": sum(COUNTS.values())}).items():
        outcome = outcomes[name]
        assert (outcome.rows_in, outcome.rows_out, outcome.rejected) == (count, count, 0)
    counts = dict.fromkeys(COUNTS, 0)
    for row in context.folder("extract").read("extraction_log").to_pylist():
        counts[row["image_id"].split("/")[0]] += 1
        assert row["unknown_share"] == 0
    assert counts == COUNTS


@pytest.mark.usefixtures("outcomes")
def test_official_lists_decide_the_split(context: Context) -> None:
    splits = context.folder("index").read("images", "labelmefacade")["split"].to_pylist()
    assert (splits.count("test"), splits.count("train") + splits.count("val")) == (350, 100)


@pytest.mark.usefixtures("outcomes")
def test_annotated_boxes_are_unchanged(context: Context, real_data: Path) -> None:
    files = (real_data / "saint_petersburg/labels").glob("*.txt")
    classes = [line.split()[0] for path in files for line in path.read_text().splitlines()]
    labels = context.folder("extract").read("boxes", "saint_petersburg")["label"].to_pylist()
    assert (labels.count("window"), labels.count("door")) == (classes.count("0"), classes.count("5"))


@pytest.mark.usefixtures("outcomes")
@pytest.mark.parametrize(
    ("label", "recall", "strict_recall", "precision"),
    [("window", 0.950, 0.908, 0.95), ("door", 0.973, 0.955, 0.98), ("building", 0.91, 0.87, 0.90)],
)
def test_masks_give_the_boxes_that_people_drew(
    context: Context, label: str, recall: float, strict_recall: float, precision: float
) -> None:
    """On all of CMP: 20 images say little, since windows behind balconies go from none to half of them."""
    folder = context.folder("extract")
    result = measure_agreement(*(boxes_by_image(folder.read("boxes", name), label) for name in ("cmp", "cmp_xml")))
    assert result.num_ground_truths >= 300
    assert result.recall(0.5) >= recall
    assert result.recall(0.75) >= strict_recall
    assert result.precision(0.5) >= precision
