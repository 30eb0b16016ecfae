"""The priors stage: fit prior boxes on train, select on val, compare with every preset on test."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from pipeline.config import Settings
from pipeline.errors import FacadeError
from pipeline.execution.runner import Context, Outcome, ReduceTask, Stage, StagePlan, run_stage
from pipeline.execution.sharding import row_counter
from pipeline.stages.describe.histograms import REFERENCE_SIDE, SIDE_BINS, SIDE_EDGES, bin_centres, histogram
from pipeline.stages.describe.stage import load_shapes
from pipeline.stages.extract.upstream import require_up_to_date
from pipeline.stages.priors.coverage import GroundTruthBoxes, coverage_score, prior_coverage
from pipeline.stages.priors.figures import draw_coverage
from pipeline.stages.priors.fitting import GRIDS, Grid, fit_greedy, fit_statistics
from pipeline.storage.files import json_digest, write_bytes
from pipeline.storage.lock import locked
from pipeline.storage.manifest import Receipt, Shard
from pipeline.storage.schemas import table_from_rows
from pipeline.storage.stage_folder import StageFolder
from ssd import PriorSpec, preset

__all__ = ["STAGE", "PriorsConfig", "run"]


def _stop_for_lost_row(row: dict[str, Any], stage: str, error: Exception) -> dict[str, pa.Table]:
    raise FacadeError(f"{stage}: fitting {row['name']} failed, {error}.")


STAGE = Stage(
    "priors", algorithm=2, rows_out=row_counter("specs"), primary="specs", tables_for_lost_row=_stop_for_lost_row
)
FITTED_SPECS = ("greedy", "statistics")
PRESETS_BY_INPUT = {
    300: ("paper_voc", "paper_coco", "epfl_table", "epfl_code"),
    512: ("paper_512_voc", "paper_512_coco"),
}
STRIDE_4 = (75, 4.0, 4)
# Photos a split: enough to tell a hundredth of coverage, few enough for seconds.
FIT_IMAGES, EVALUATION_IMAGES = 2_000, 400
SPLITS = ("train", "val", "test")
FORMAT = 1


MapSpec = tuple[Annotated[int, Field(ge=1)], Annotated[float, Field(gt=0)], Annotated[int, Field(ge=1)]]


class PriorsConfig(Settings):
    """Which priors to fit.

    Attributes:
        input: the detector's input size, 300 or 512.
        maps: (cells a side, step in pixels, shapes a cell) of each map, fine to coarse; None is the paper's.
        stride4: one more map of 75x75 (300) for small windows.
        datasets: fit and evaluate on these; empty is all of the work folder.
        seed: of the jitter and of the sample.
    """

    input: Literal[300, 512] = 300
    maps: Annotated[tuple[MapSpec, ...], Field(min_length=1)] | None = None
    stride4: bool = False
    datasets: tuple[str, ...] = ()
    seed: int = Field(default=0, ge=0)

    def grid(self) -> Grid:
        """Return where the fitted priors go."""
        maps = self.maps or GRIDS[self.input].maps
        fine = ((STRIDE_4[0] * self.input // REFERENCE_SIDE, *STRIDE_4[1:]),) if self.stride4 else ()
        return Grid(self.input, (*fine, *maps))


@dataclass(frozen=True)
class FitData:
    """The boxes that priors are fitted to and evaluated on."""

    fit_boxes: GroundTruthBoxes
    evaluation_boxes: Mapping[str, GroundTruthBoxes]
    shape_weights: Mapping[tuple[float, float], float]


def fit_prior_rows(rows: Sequence[dict[str, Any]], data: FitData, config: PriorsConfig) -> dict[str, pa.Table]:
    """Fit or look up the priors that each row names, and measure how they cover the boxes of each split."""
    evaluated = [_evaluate_spec(row["name"], data, config) for row in rows]
    specs = [spec for spec, _ in evaluated]
    coverage = [row for _, rows_of_spec in evaluated for row in rows_of_spec]
    return {"specs": table_from_rows("specs", specs), "coverage": table_from_rows("coverage", coverage)}


def spec_by_name(name: str, data: FitData, config: PriorsConfig) -> PriorSpec:
    """Return priors by name: fitted, or a preset."""
    if name == "greedy":
        return fit_greedy(config.grid(), data.fit_boxes, config.seed)
    if name == "statistics":
        return fit_statistics(config.grid(), data.shape_weights)
    return preset(name)


def choose_priors(coverage: Sequence[Mapping[str, Any]], split: str) -> dict[str, Any]:
    """Return the row of `choice`: the priors that score best on a split, and why."""
    names = list(dict.fromkeys(row["name"] for row in coverage))
    scores = {
        name: coverage_score([row for row in coverage if (row["name"], row["split"]) == (name, split)])
        for name in names
    }
    best = max(names, key=lambda name: scores[name])
    presets = [name for name in names if name not in FITTED_SPECS]
    rival = max(presets, key=lambda name: scores[name])
    if best in FITTED_SPECS:
        reason = f"{best} scores {scores[best]:.3f} on {split}, the best preset ({rival}) {scores[rival]:.3f}"
    else:
        fitted = max(FITTED_SPECS, key=lambda name: scores.get(name, 0.0))
        comparison = f"{scores[best]:.3f} on {split}, better than fitted ({fitted}) {scores[fitted]:.3f}"
        reason = f"the preset {best} scores {comparison}"
    return {"name": best, "split": split, "score": scores[best], "reason": reason}


def run(context: Context, config: PriorsConfig) -> Outcome:
    """Fit and select the prior boxes of the work folder."""
    index, extract, describe, folder = (context.folder(name) for name in ("index", "extract", "describe", STAGE.name))
    with locked(folder.path, reads=[index.path, extract.path, describe.path]):
        manifest = require_up_to_date(index, extract)
        shapes = load_shapes(describe, manifest)
        decided = [STAGE.algorithm, manifest.digest, config.model_dump()]
        names = [*FITTED_SPECS, *PRESETS_BY_INPUT[config.input]]
        shards = [
            Shard("all", ordinal, json_digest([decided, name]), [{"name": name}]) for ordinal, name in enumerate(names)
        ]
        evidence = _load_fit_data(index, extract, shapes, config)
        function = partial(fit_prior_rows, data=evidence, config=config)
        last = Shard("chosen", 0, json_digest([shard.digest for shard in shards]))
        choose = ReduceTask(last, partial(_choice_table, folder, _selection_split(evidence)))
        draw = partial(_draw_figures, folder, _selection_split(evidence))
        settings = {"priors": config.model_dump(), "extract": manifest.digest}
        outcome = run_stage(STAGE, context, StagePlan(shards, function, settings, reduce=choose, draw_pictures=draw))
        _write_priors(context, folder, settings)
        _log_summary(context, folder)
        return outcome


def _evaluate_spec(name: str, data: FitData, config: PriorsConfig) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    try:
        spec = spec_by_name(name, data, config)
    except ValueError as error:
        raise FacadeError(f"priors: {name} cannot be fitted: {error}") from None
    rows = []
    for split, truths in data.evaluation_boxes.items():
        rows += [{"name": name, "split": split, **row} for row in prior_coverage(spec, truths)]
    entry = {"name": name, "priors": spec.count, "spec": json.dumps(spec.to_json()), "note": spec.note}
    return entry, rows


def _load_fit_data(index: StageFolder, extract: StageFolder, shapes: pa.Table, config: PriorsConfig) -> FitData:
    columns = ["image_id", "dataset", "split", "width", "height"]
    images = [row for row in index.read("images", columns=columns).to_pylist() if _is_selected(row["dataset"], config)]
    classes = sorted(set(shapes["label"].to_pylist()) - {""})
    everything = _SampledBoxes.load(extract, images, tuple(classes))
    evaluation = {split: everything.sample(split, EVALUATION_IMAGES, config.seed) for split in SPLITS}
    fit = everything.sample("train", FIT_IMAGES, config.seed)
    if len(fit.labels) < 10:
        raise FacadeError(
            f"{index.work}: the train split has {len(fit.labels)} boxes; at least 10 are needed to fit priors."
        )
    return FitData(
        fit,
        {split: truths for split, truths in evaluation.items() if len(truths.labels)},
        _balanced_weights(shapes, classes, config),
    )


@dataclass(frozen=True)
class _SampledBoxes:
    """All boxes that count, with the split of each and a digest of its image to sample by."""

    boxes: GroundTruthBoxes
    splits: Any
    sampling_keys: Any

    @classmethod
    def load(cls, extract: StageFolder, images: Sequence[Mapping[str, Any]], classes: tuple[str, ...]) -> _SampledBoxes:
        place = {row["image_id"]: position for position, row in enumerate(images)}
        boxes = extract.read(
            "boxes", columns=["image_id", "label", "xmin", "ymin", "xmax", "ymax", "difficult", "ignore"]
        )
        skip = boxes["difficult"].to_numpy() | boxes["ignore"].to_numpy()
        own = np.array([place.get(image, -1) for image in boxes["image_id"].to_pylist()], np.int64)
        kept = np.flatnonzero((own >= 0) & ~skip)
        own = own[kept]
        sizes = np.array([[row["width"], row["height"]] * 2 for row in images], np.float64).reshape(-1, 4)
        xyxy = (
            np.stack([boxes[name].to_numpy()[kept] for name in ("xmin", "ymin", "xmax", "ymax")], axis=1) / sizes[own]
        )
        numbers = {label: number for number, label in enumerate(classes)}
        labels = np.array([numbers[label] for label in boxes["label"].to_pylist()], np.int64)[kept]
        splits = np.array([row["split"] for row in images])
        draws = np.array([int(hashlib.sha256(row["image_id"].encode()).hexdigest()[:12], 16) for row in images])
        return cls(GroundTruthBoxes(classes, xyxy, labels, own), splits, draws)

    def sample(self, split: str, max_images: int, seed: int) -> GroundTruthBoxes:
        """Return the boxes of at most so many images of a split, the same ones however the table is ordered."""
        images = np.flatnonzero(self.splits == split)
        chosen = images[np.argsort((self.sampling_keys[images] + seed * 7919) % (2**31 - 1), kind="stable")][
            :max_images
        ]
        return self.boxes.select(np.isin(self.boxes.images, chosen))


def _balanced_weights(
    shapes: pa.Table, classes: Sequence[str], config: PriorsConfig
) -> dict[tuple[float, float], float]:
    """Weigh each (width, height) at the input's size by its frequency in train, all classes alike."""
    centres, scale = bin_centres(SIDE_EDGES), config.input / REFERENCE_SIDE
    weights: dict[tuple[float, float], float] = {}
    for label in classes:
        counts: dict[int, int] = {}
        for dataset in config.datasets or sorted(set(shapes["dataset"].to_pylist())):
            for position, count in histogram(shapes, "shape", label, split="train", dataset=dataset).items():
                counts[position] = counts.get(position, 0) + count
        for position, count in counts.items():
            width, height = divmod(position, SIDE_BINS)
            key = (float(centres[width] * scale), float(centres[height] * scale))
            weights[key] = weights.get(key, 0.0) + count / sum(counts.values())
    return weights


def _is_selected(dataset: str, config: PriorsConfig) -> bool:
    return not config.datasets or dataset in config.datasets


def _selection_split(data: FitData) -> str:
    """Return the split to choose by: val, unless it has no boxes."""
    return "val" if "val" in data.evaluation_boxes else "train"


def _read_coverage(folder: StageFolder, receipts: Sequence[Receipt]) -> list[dict[str, Any]]:
    entries = [receipt.tables["coverage"] for receipt in receipts if "coverage" in receipt.tables]
    rows: list[dict[str, Any]] = folder.read_files("coverage", entries).to_pylist()
    return rows


def _choice_table(folder: StageFolder, split: str, receipts: Sequence[Receipt]) -> dict[str, pa.Table]:
    return {"choice": table_from_rows("choice", [choose_priors(_read_coverage(folder, receipts), split)])}


def _draw_figures(folder: StageFolder, split: str, receipts: Sequence[Receipt]) -> list[Path]:
    shown = "test" if any(row["split"] == "test" for row in _read_coverage(folder, receipts)) else split
    return draw_coverage(_read_coverage(folder, receipts), shown, folder.path / "figures")


def _write_priors(context: Context, folder: StageFolder, settings: Mapping[str, Any]) -> None:
    """Write priors.json, the tables in one file for `train`."""
    (chosen,) = folder.read("choice").to_pylist()
    specs = {row["name"]: json.loads(row["spec"]) for row in folder.read("specs").to_pylist()}
    value = {"format": FORMAT, "chosen": chosen["name"], "reason": chosen["reason"], "settings": settings}
    text = json.dumps({**value, "specs": specs, "coverage": folder.read("coverage").to_pylist()}, indent=1) + "\n"
    path = folder.path / "priors.json"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_bytes(path, text.encode(), context.disk_retry_seconds)


def _log_summary(context: Context, folder: StageFolder) -> None:
    (chosen,) = folder.read("choice").to_pylist()
    rows, specs = folder.read("coverage").to_pylist(), folder.read("specs").to_pylist()
    for split in [split for split in SPLITS if any(row["split"] == split for row in rows)]:
        context.log(f"priors: {split}: covered at IoU .5 / .7, mean IoU, positives an object, share of all positives")
        for spec in specs:
            own = [row for row in rows if (row["name"], row["split"]) == (spec["name"], split)]
            cells = [
                f"{row['label']} {row['coverage_50']:.3f} {row['coverage_70']:.3f} {row['mean_iou']:.3f} "
                f"{row['positives']:4.1f} {row['share']:4.0%}"
                for row in own
            ]
            context.log(f"  {spec['name']:15s}{spec['priors']:6d}  " + "   ".join(cells))
    for spec in specs:
        if spec["note"]:
            context.log(f"priors: {spec['name']}: {spec['note']}")
    context.log(f"priors: selected prior set {chosen['name']}: {chosen['reason']}")
    context.log(f"priors: {folder.path / 'priors.json'} and {folder.path / 'figures' / 'coverage.png'}")
