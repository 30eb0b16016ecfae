"""The data of the model card: results of a bundle on the test photos of each dataset, read from work folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from pipeline.datasets.card import Card
from pipeline.errors import FacadeError
from pipeline.models.bundle import trained_on_all_splits
from pipeline.models.operating_point import OperatingPoint
from pipeline.stages.evaluate.scores import ALL
from pipeline.stages.extract.upstream import read_cards, require_up_to_date
from pipeline.storage.stage_folder import StageFolder

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TEST_SPLIT", "BundleInfo", "EvaluatedDataset", "load_evaluated_datasets"]

TEST_SPLIT: Final = "test"

BundleInfo: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class EvaluatedDataset:
    """The results of a bundle on the test photos of a dataset.

    Attributes:
        card: the dataset's card.
        hashes: SHA-256 of its photos, so that they are known under any name.
        photos: the number of photos of each split.
        scores: (label, protocol) to a row of the table `scores`.
        detections: the detections that count: label, selected, correct.
        ground_truths: the objects: label, side, selected, detected.
        unseen: whether the bundle was trained without its photos, under this name or another.
    """

    card: Card
    hashes: frozenset[str]
    photos: Mapping[str, int]
    scores: Mapping[tuple[str, str], Mapping[str, Any]]
    detections: pd.DataFrame
    ground_truths: pd.DataFrame
    unseen: bool = False

    @property
    def title(self) -> str:
        """Its name in the tables of the card."""
        return f"{self.card.name}, *not used in training*" if self.unseen else self.card.name


def load_evaluated_datasets(
    works: Sequence[Path], info: BundleInfo, point: OperatingPoint | None
) -> list[EvaluatedDataset]:
    """Load the results of a bundle from work folders, each dataset once.

    Raises:
        FacadeError: if the card would be wrong: a dataset of the training is left out or stands twice, or the test
            photos were used in training.
    """
    datasets = [dataset for work in works for dataset in _load_datasets(work, info, point)]
    training_datasets = _training_datasets(info["trained"])
    _check_datasets(info, datasets, training_datasets)
    return _mark_unseen_datasets(datasets, training_datasets)


def _check_datasets(info: BundleInfo, datasets: Sequence[EvaluatedDataset], training_datasets: set[str] | None) -> None:
    names = [dataset.card.name for dataset in datasets]
    if trained_on_all_splits(info["trained"]):
        raise FacadeError(
            f"{info['bundle']} was trained on all splits, so that no photos are left to evaluate it on; write the card "
            "of a bundle that was trained without `use_all_splits`."
        )
    if missing := sorted((training_datasets or set()) - set(names)):
        raise FacadeError(
            f"{info['bundle']} was also trained on {', '.join(missing)}, which none of these work folders evaluates; "
            "name one that does with --work."
        )
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise FacadeError(f"{repeated[0]} was evaluated in more than one of these work folders; name only one of them.")


def _training_datasets(training_info: Mapping[str, Any]) -> set[str] | None:
    """Return the datasets of a training and of those that made its initial weights; None if they are not known."""
    if "data" not in training_info:
        return None
    earlier = training_info.get("init_weights", {}).get("trained")
    return set(training_info["data"].get("datasets", ())) | ((earlier and _training_datasets(earlier)) or set())


def _mark_unseen_datasets(
    datasets: Sequence[EvaluatedDataset], training_datasets: set[str] | None
) -> list[EvaluatedDataset]:
    """Mark each dataset as seen or unseen by the bundle, if the datasets of its training are known."""
    if training_datasets is None:
        return list(datasets)
    seen_photos = frozenset[str]().union(
        *(dataset.hashes for dataset in datasets if dataset.card.name in training_datasets)
    )
    return [
        replace(dataset, unseen=dataset.card.name not in training_datasets and not dataset.hashes & seen_photos)
        for dataset in datasets
    ]


def _load_datasets(work: Path, info: BundleInfo, point: OperatingPoint | None) -> list[EvaluatedDataset]:
    """Load the results of a bundle from a work folder, by dataset."""
    evaluate = _open_evaluation(work, info)
    index = StageFolder(work, "index")
    images = index.read("images", columns=["image_id", "dataset", "split", "sha256", "width", "height"]).to_pandas()
    is_evaluated = images.image_id.isin(evaluate.read("evaluated_images", columns=["image_id"])["image_id"].to_pylist())
    test_images = images[is_evaluated & (images.split == TEST_SPLIT)]
    names = sorted(set(test_images.dataset))
    if not names:
        raise FacadeError(
            f"{work}: no test photos were evaluated; run `facade detect {work} --split test --model {info['bundle']}` "
            f"and `facade evaluate --work {work}` first."
        )
    detections = _load_detections(evaluate, point).merge(test_images, on="image_id")
    ground_truths = _load_ground_truths(evaluate, detections, info["input_size"], test_images)
    scores = [row for row in evaluate.read("scores").to_pylist() if (row["split"], row["part"]) == (TEST_SPLIT, ALL)]
    # A single dataset has no rows of its own: they would equal those of all datasets.
    row_names = {name: name if len(names) > 1 else ALL for name in names}
    cards = read_cards(index)
    return [
        EvaluatedDataset(
            cards[name],
            frozenset(images[images.dataset == name].sha256),
            images[images.dataset == name].split.value_counts().to_dict(),
            {(row["label"], row["protocol"]): row for row in scores if row["dataset"] == row_names[name]},
            detections[detections.dataset == name],
            ground_truths[ground_truths.dataset == name],
        )
        for name in names
    ]


def _open_evaluation(work: Path, info: BundleInfo) -> StageFolder:
    """Return the evaluation of a work folder; refuse that of another bundle, or of boxes that have changed."""
    evaluate = StageFolder(work, "evaluate")
    manifest = evaluate.manifest()
    if manifest is None or manifest.settings.get("model") != info["digest"]:
        evaluated = "nothing" if manifest is None else "another model"
        raise FacadeError(
            f"{work} has no evaluation of {info['bundle']}, {evaluated} was evaluated there; run `facade detect {work} "
            f"--model {info['bundle']}` and `facade evaluate --work {work}` first."
        )
    boxes = require_up_to_date(StageFolder(work, "index"), StageFolder(work, "extract"))
    if manifest.settings.get("extract") != boxes.digest:
        raise FacadeError(f"the boxes of {work} have changed; run `facade evaluate --work {work}` again.")
    return evaluate


def _load_detections(evaluate: StageFolder, point: OperatingPoint | None) -> pd.DataFrame:
    """Load the detections that count, with `correct`, and `selected` by the bundle's own thresholds."""
    table = evaluate.read("detection_matches").to_pandas()
    if point is not None:
        photos = table.image_id.astype("category").cat.codes.to_numpy()
        table["selected"] = point.apply(table.label.to_numpy(object), photos, table.score.to_numpy(np.float64))[1]
    table["correct"] = table.outcome == "correct"
    return table[table.outcome != "ignored"]


def _load_ground_truths(
    evaluate: StageFolder, detections: pd.DataFrame, input_size: Sequence[int], images: pd.DataFrame
) -> pd.DataFrame:
    """Load the objects of some photos that count, with their side in the network's input and whether they are detected.

    Args:
        evaluate: the folder of the evaluation.
        detections: as `_load_detections` returns them.
        input_size: of the network, in pixels.
        images: the photos, with `image_id`, `width` and `height`.
    """
    table = evaluate.read("ground_truths").to_pandas()
    table = table[~table.ignore].merge(images, on="image_id")
    area_share = (table.xmax - table.xmin) * (table.ymax - table.ymin) / (table.width * table.height)
    table["side"] = np.sqrt(area_share * input_size[0] * input_size[1])
    correct = detections[detections.correct]
    table["detected"] = table.box_id.isin(correct.box_id)
    table["selected"] = table.box_id.isin(correct[correct.selected].box_id)
    return table
