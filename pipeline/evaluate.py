"""`evaluate`: what was found beside what is true: how good it is, what goes wrong, and where to draw the line.

Everything that is fitted is fitted on val, and headline figures are of test.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from pydantic import Field

from pipeline.audit import suspects, without_suspects
from pipeline.config import Settings
from pipeline.describe import require_fresh
from pipeline.errors import FacadeError
from pipeline.evaluation_figures import draw_evaluation
from pipeline.files import json_digest, write_bytes
from pipeline.judged import Judged, join, judged_images
from pipeline.lock import locked
from pipeline.operating import OPERATING_FILE, OperatingPoint, counting_errors, fit
from pipeline.parallel import Workers
from pipeline.resampled import drawings, interval
from pipeline.rows import rows_of
from pipeline.schemas import SCHEMAS, table_from_rows
from pipeline.scoring import ALL, HEADLINE, PARTS, headline, parts_of, score_rows
from pipeline.stage import Context, Outcome, Plan, Stage, run_stage
from pipeline.store import Receipt, Shard, StageFolder
from pipeline.tracking import open_run
from pipeline.verdicts import ERRORS, KINDS, Verdicts, costs, judge
from ssd import bundle_digest, curves
from ssd.checkpoint import MODEL_FILE

__all__ = ["STAGE", "EvaluateConfig", "evaluate_images", "run"]

STAGE = Stage("evaluate", algorithm=1, rows_out=rows_of("judged"), primary=None)
FIT, TEST = "val", "test"
POINTS: Final = 200  # of a curve
CHOSEN_KINDS: Final = tuple(kind for kind in KINDS if kind != "ignored")
SUSPECTS_FILE: Final = "suspects.csv"


class EvaluateConfig(Settings):
    """What to judge, and how thoroughly.

    Attributes:
        detections: the folder of `detect` to judge; the work folder's own by default.
        resamples: drawings of the photos that intervals are counted from; 0 for no intervals.
        drawings: so many of the worst photos of each class are drawn, and of the likely wrong labels.
    """

    detections: str | None = None
    resamples: int = Field(default=1000, ge=0)
    drawings: int = Field(default=12, ge=0)


@dataclass(frozen=True)
class Evaluation:
    """Everything that is counted from some judged photos; each part once, when it is asked for."""

    judged: Judged
    model: str
    resamples: int

    @cached_property
    def verdicts(self) -> Verdicts:
        """What each detection is."""
        return judge(self.judged.detections, self.judged.truths)

    @cached_property
    def splits(self) -> list[str]:
        """The splits that the photos are of."""
        return sorted(set(self.judged.column("split").tolist()))

    @property
    def fitted_on(self) -> str:
        """The split to fit on: val, or what there is."""
        return FIT if FIT in self.splits else self.splits[0]

    @cached_property
    def point(self) -> OperatingPoint:
        """The operating point."""
        judged = self.judged.of_split(self.fitted_on)
        return fit(judged, judge(judged.detections, judged.truths), self.model, self.fitted_on)

    @cached_property
    def choice(self) -> tuple[Any, Any]:
        """What each detection is worth (N,), and whether it is chosen (N,)."""
        return read_all(self.judged, self.point)

    @cached_property
    def suspects(self) -> list[dict[str, Any]]:
        """The likely wrong labels."""
        return suspects(self.judged, self.verdicts, self.point)


def evaluate_images(judged: Judged, model: str, resamples: int) -> dict[str, pa.Table]:
    """Return all tables of the stage."""
    whole = Evaluation(judged, model, resamples)
    plain = score_rows(judged, resamples)
    clean = score_rows(without_suspects(judged, whole.suspects), 0) if whole.suspects else []
    kept = [{**row, "part": "without suspects"} for row in clean if row["part"] == ALL and row["dataset"] == ALL]
    rows = {
        "scores": [*plain, *kept, *_counting_rows(whole)],
        "curves": _curve_rows(whole),
        "diagnosis": _diagnosis_rows(whole),
        "suspects": whole.suspects,
    }
    tables = {name: table_from_rows(name, own) for name, own in rows.items()}
    return {
        "judged": _judged_table(whole),
        "verdicts": _verdicts_table(whole),
        "truths": _truths_table(whole),
        **tables,
    }


def read_all(judged: Judged, point: OperatingPoint) -> tuple[Any, Any]:
    """Return what the detections of the photos are worth (N,), and which are chosen (N,)."""
    found = judged.detections
    return point.read(np.array(["", *judged.classes])[found.labels], found.images, found.scores)


def run(context: Context, config: EvaluateConfig) -> Outcome:
    """Return what became of the detections of the work folder, or of those that the settings name."""
    index, extract, folder = (context.folder(name) for name in ("index", "extract", STAGE.name))
    detect = _detections(context, config)
    context = replace(context, workers=Workers(count=0))
    with locked(folder.path, reads=[index.path, extract.path, detect.path]):
        boxes, found = require_fresh(index, extract), detect.require_manifest()
        model = str(found.settings.get("model", ""))
        bundle = _bundle(found.settings, model)
        images, strangers = judged_images(detect, index, extract)
        decided = [STAGE.algorithm, boxes.digest, found.digest, model, config.model_dump(exclude={"detections"})]
        rows = [{"image_id": name, "uri": ""} for name in images["image_id"].to_pylist()]
        shard = Shard("all", 0, json_digest([decided, json_digest([row["image_id"] for row in rows])]), rows)
        load = partial(join, images, detect, extract, _classes(bundle))
        settings = {"evaluate": config.model_dump(), "extract": boxes.digest, "detect": found.digest, "model": model}
        plan = Plan(
            [shard],
            lambda _: evaluate_images(load(), model, config.resamples),
            settings,
            draw=partial(_draw, folder, config.drawings, load, model),
        )
        outcome = run_stage(STAGE, context, plan)
        if strangers:
            context.say(f"evaluate: {strangers:,} photos of {detect.path} have no truth here and are left out")
        _conclude(context, folder, outcome, load, model, bundle)
        _tell(context, folder, bundle)
        return outcome


def _detections(context: Context, config: EvaluateConfig) -> StageFolder:
    place = Path(config.detections).absolute() if config.detections else None
    folder = StageFolder(context.work, "detect", context.patience, place)
    if folder.manifest() is None:
        raise FacadeError(f"{folder.path} has no finished detections; run `facade detect {context.work}` first.")
    return folder


def _bundle(settings: Mapping[str, Any], model: str) -> Path | None:
    """Return the bundle that found, if it is still where it was."""
    place = Path(settings.get("bundle") or "")
    return place if (place / MODEL_FILE).is_file() and bundle_digest(place) == model else None


def _classes(bundle: Path | None) -> list[str]:
    if bundle is None:
        return []
    return list(json.loads((bundle / MODEL_FILE).read_bytes())["classes"])


def _conclude(
    context: Context, folder: StageFolder, outcome: Outcome, load: Any, model: str, bundle: Path | None
) -> None:
    """Write what other programs read, beside the tables and beside the bundle, and tell the bundle's training run."""
    place = folder.path / OPERATING_FILE
    if outcome.changed or not place.is_file():
        point = Evaluation(load(), model, 0).point
        write_bytes(place, point.to_json(), context.patience)
        write_bytes(folder.path / SUSPECTS_FILE, _csv(folder.read("suspects")), context.patience)
    beside = bundle / OPERATING_FILE if bundle else None
    if bundle and beside and (not beside.is_file() or beside.read_bytes() != place.read_bytes()):
        write_bytes(beside, place.read_bytes(), context.patience)
    if outcome.changed and bundle:
        _log_beside_training(context, folder, bundle, outcome)


def _log_beside_training(context: Context, folder: StageFolder, bundle: Path, outcome: Outcome) -> None:
    trained = json.loads((bundle / MODEL_FILE).read_bytes()).get("trained", {}).get("run_id")
    scores, files = folder.read("scores").to_pylist(), _artifacts(folder)
    for run_id in {outcome.run_id, trained} - {None}:
        with open_run(STAGE.name, context.tracking, resumed=run_id) as tracked:
            tracked.log(_metrics(scores), {"evaluated": outcome.digest})
            tracked.log_files(files)


def _artifacts(folder: StageFolder) -> list[Path]:
    manifest = folder.require_manifest()
    names = ("judged", "verdicts", "truths", "scores")
    return [folder.path / entry.file for name in names for entry in manifest.files(name)]


def _metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the scores over all datasets as MLflow's metrics: SPLIT.PROTOCOL, SPLIT.PROTOCOL.CLASS, and intervals."""
    metrics = {}
    for row in rows:
        if (row["dataset"], row["part"]) == (ALL, ALL):
            name = ".".join(part for part in (row["split"], row["protocol"], row["label"]) if part)
            for suffix, key in (("", "value"), (".low", "low"), (".high", "high")):
                if row[key] is not None and np.isfinite(row[key]):
                    metrics[f"{name}{suffix}"] = float(row[key])
    return metrics


def _csv(table: pa.Table) -> bytes:
    """Return suspects as a file to go through and to give to `extract`."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(table.column_names)
    writer.writerows(zip(*(column.to_pylist() for column in table.columns), strict=True))
    return buffer.getvalue().encode()


# Tables


def _judged_table(whole: Evaluation) -> pa.Table:
    judged, (_, chosen), count = whole.judged, whole.choice, len(whole.judged.images)
    columns: dict[str, Any] = {
        name: judged.images[name].combine_chunks() for name in ("image_id", "uri", "dataset", "split")
    }
    images, kinds = judged.detections.images[chosen].astype(np.int64), whole.verdicts.kinds[chosen]
    numbers = {
        "truths": judged.truths.images[_counted(judged)],
        "chosen": images[kinds != KINDS.index("ignored")],
        **{kind: images[kinds == KINDS.index(kind)] for kind in CHOSEN_KINDS},
        "missed": judged.truths.images[whole.verdicts.missed(chosen)],
    }
    columns |= {
        name: np.bincount(own.astype(np.int64), minlength=count).astype(np.int32) for name, own in numbers.items()
    }
    return pa.Table.from_pydict(columns, schema=SCHEMAS["judged"])


def _verdicts_table(whole: Evaluation) -> pa.Table:
    judged, verdicts, (worth, chosen) = whole.judged, whole.verdicts, whole.choice
    found, on, names = judged.detections, verdicts.truth >= 0, pa.array(["", *judged.classes])
    truth = pa.array(verdicts.truth, mask=~on)
    columns: dict[str, Any] = {
        "detection_id": judged.detection_ids,
        "image_id": judged.images["image_id"].combine_chunks().take(pa.array(found.images)),
        "label": names.take(pa.array(found.labels)),
        "score": found.scores,
        "kind": pa.array(KINDS).take(pa.array(verdicts.kinds)),
        "chosen": chosen,
        "overlap": verdicts.overlap.astype(np.float32),
        "probability": pa.array(worth.astype(np.float32), mask=np.isnan(worth)),
        "box_id": judged.box_ids.take(truth),
        "true_label": names.take(pa.array(judged.truths.labels.astype(np.int64))).take(truth),
    }
    return pa.Table.from_pydict(columns, schema=SCHEMAS["verdicts"])


def _truths_table(whole: Evaluation) -> pa.Table:
    judged, verdicts = whole.judged, whole.verdicts
    parts = parts_of(judged)
    columns: dict[str, Any] = {
        "box_id": judged.box_ids,
        "image_id": judged.images["image_id"].combine_chunks().take(pa.array(judged.truths.images)),
        "label": pa.array(["", *judged.classes]).take(pa.array(judged.truths.labels)),
        "ignore": ~_counted(judged),
        "found": verdicts.found,
        "chosen": _counted(judged) & ~verdicts.missed(whole.choice[1]),
        **{kind: pa.array(names).take(pa.array(parts[kind])) for kind, names in PARTS.items()},
    }
    return pa.Table.from_pydict(columns, schema=SCHEMAS["truths"])


def _curve_rows(whole: Evaluation) -> list[dict[str, Any]]:
    rows = []
    for split in whole.splits:
        judged = whole.judged.of_split(split)
        found = curves(judge(judged.detections, judged.truths).matches, 0.5)
        for label, curve in zip(judged.classes, found[1:], strict=True):
            if curve.positives and len(curve.hits):
                places = np.unique(np.linspace(0, len(curve.hits) - 1, POINTS).round().astype(int))
                precision, recall = curve.precision[places], curve.recall[places]
                f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
                columns = zip(curve.scores[places].tolist(), precision, recall, f1, strict=True)
                rows += [
                    {"split": split, "label": label, "score": score, "precision": p, "recall": r, "f1": f}
                    for score, p, r, f in columns
                ]
    return rows


def _diagnosis_rows(whole: Evaluation) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for split in whole.splits:
        part = replace(whole, judged=whole.judged.of_split(split))
        verdicts = part.verdicts
        _, chosen = read_all(part.judged, whole.point)
        counts, price, positives = verdicts.counts(chosen), costs(verdicts), part.judged.truths.positives()
        missed = np.bincount(
            part.judged.truths.labels[verdicts.missed(chosen)].astype(np.int64), minlength=len(positives)
        )
        for number, label in enumerate(part.judged.classes, start=1):
            shown = sum(int(counts[kind][number]) for kind in CHOSEN_KINDS)
            for kind in (*CHOSEN_KINDS, "missed"):
                count = int(missed[number] if kind == "missed" else counts[kind][number])
                of = int(positives[number]) if kind == "missed" else shown
                cost = float(price[kind][number]) if kind in ERRORS else None
                cost = None if cost is None or np.isnan(cost) else cost
                own = {"count": count, "share": count / max(of, 1), "cost": cost}
                rows.append({"split": split, "label": label, "kind": kind, **own})
    return rows


def _counting_rows(whole: Evaluation) -> list[dict[str, Any]]:
    """Return how far numbers of objects are off in a photo: chosen by photo, by one threshold, and the difference."""
    rows: list[dict[str, Any]] = []
    for split in whole.splits:
        judged = whole.judged.of_split(split)
        errors = counting_errors(judged, judge(judged.detections, judged.truths), whole.point)
        for label, (ours, theirs) in errors.items():
            head = {"split": split, "dataset": ALL, "label": label, "part": ALL}
            figures = {"count_error_chosen": ours, "count_error_threshold": theirs, "count_error_gain": theirs - ours}
            for protocol, values in figures.items():
                low, high = _mean_interval(values, whole.resamples)
                row = {"protocol": protocol, "value": float(values.mean()), "low": low, "high": high}
                number = int(judged.truths.positives()[1 + judged.classes.index(label)])
                rows.append({**head, **row, "positives": number, "images": len(values)})
    return rows


def _mean_interval(values: Any, resamples: int) -> tuple[float | None, float | None]:
    if not resamples or not len(values):
        return None, None
    return interval(drawings(len(values), resamples).astype(np.float64) @ values / len(values))


def _counted(judged: Judged) -> Any:
    ignore = judged.truths.ignore
    return np.ones(len(judged.truths), np.bool_) if ignore is None else ~ignore


def _draw(folder: StageFolder, most: int, load: Any, model: str, receipts: Sequence[Receipt]) -> list[Path]:
    tables = {
        name: folder.read_files(name, [one.tables[name] for one in receipts if name in one.tables]) for name in TABLES
    }
    return draw_evaluation(Evaluation(load(), model, 0), tables, folder.path, most)


TABLES: Final = ("scores", "curves", "diagnosis", "judged", "suspects")


def _tell(context: Context, folder: StageFolder, bundle: Path | None) -> None:
    scores = folder.read("scores").to_pylist()
    splits = sorted({row["split"] for row in scores})
    for split in splits:
        for protocol, title in ((HEADLINE, "VOC mAP at IoU .5"), ("voc11_75", "at .75"), ("coco_100", "COCO mAP")):
            rows = headline(scores, split, protocol)
            told = [f"{label or 'mean'} {_points(row)}" for label, row in rows.items()]
            context.say(f"evaluate: {split}: {title}: {', '.join(told)}")
    counting = {
        (row["label"], row["protocol"]): row["value"]
        for row in scores
        if row["split"] == splits[-1] and row["protocol"].startswith("count_")
    }
    labels = sorted({label for label, _ in counting})
    told = [
        f"{label} {counting[label, 'count_error_chosen']:.2f} ({counting[label, 'count_error_threshold']:.2f})"
        for label in labels
    ]
    if told:
        context.say(f"evaluate: {splits[-1]}: objects miscounted in a photo (by one threshold): {', '.join(told)}")
    suspects_found = len(folder.read("suspects", columns=["rank"]))
    context.say(f"evaluate: {suspects_found:,} labels to look at, in {folder.path / SUSPECTS_FILE}")
    if bundle:
        context.say(f"evaluate: thresholds and what scores are worth are in {bundle / OPERATING_FILE}")


def _points(row: Mapping[str, Any]) -> str:
    spread = "" if row["low"] is None else f" ({100 * row['low']:.1f} to {100 * row['high']:.1f})"
    return f"{100 * row['value']:.1f}{spread}"
