"""How far off the numbers of chosen detections are, chosen photo by photo and by the best threshold.

python tests/bench/bench_counting.py drawn BUNDLE [PHOTOS]
python tests/bench/bench_counting.py work WORK

`drawn`: streets that no training has seen. `work`: what `facade detect WORK` has found there. Half of the photos are
fitted on and the other half judged by, and the halves change places; five times, dealt at random.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.datasets.card import parse_card
from pipeline.datasets.synthetic import write_dataset
from pipeline.datasets.synthetic.cards import BOX_CARD
from pipeline.execution.parallel import WorkerConfig
from pipeline.execution.runner import Context
from pipeline.stages.detect import stage as detect
from pipeline.stages.detect.config import DetectConfig
from pipeline.stages.detect.inference import detector_spec
from pipeline.stages.evaluate.bootstrap import bootstrap_counts, percentile_interval
from pipeline.stages.evaluate.data import EvaluationData, images_to_evaluate, load_evaluation_data
from pipeline.stages.evaluate.error_analysis import analyse_errors
from pipeline.stages.evaluate.threshold_fitting import count_errors, fit_operating_point
from pipeline.stages.extract import stage as extract
from pipeline.stages.index import stage as index

TIMES = 5


def drawn(bundle: Path, count: int, folder: Path) -> EvaluationData:
    """Return so many drawn streets with what a bundle finds in them."""
    write_dataset(folder / "streets", count, seed=77_000)
    context = Context(folder / "work", WorkerConfig(), "off")
    index.run(context, index.IndexConfig(), parse_card(BOX_CARD, "here"), BOX_CARD, str(folder / "streets"))
    extract.run(context, extract.ExtractConfig(previews=0))
    place = context.folder("detect").path
    job = detect.Job(str(context.work), detector_spec(bundle, use_operating_point=False), place, split="all")
    detect.run(context, DetectConfig(), job)
    return judged_of(context.work)


def judged_of(work: Path) -> EvaluationData:
    """Load the detections of a work folder with their ground truth."""
    folders = [Context(work).folder(stage) for stage in ("detect", "index", "extract")]
    images, *_ = images_to_evaluate(*folders)
    return load_evaluation_data(images, folders[0], folders[2], [])


def errors_of(judged: EvaluationData) -> Iterator[dict[str, np.ndarray]]:
    """Yield the errors (2, B) of each dealing by class, ours and a threshold's, each half fitted on the other."""
    generator = np.random.default_rng(0)
    for _ in range(TIMES):
        first = np.zeros(len(judged.images), np.bool_)
        first[generator.permutation(len(first))[: len(first) // 2]] = True
        errors = {label: np.full((2, len(first)), np.nan) for label in [*judged.classes, ""]}
        for half in (first, ~first):
            fitted, other = judged.select_images(~half), judged.select_images(half)
            point = fit_operating_point(fitted, analyse_errors(fitted.detections, fitted.ground_truths), "", "")
            for label, pair in count_errors(
                other, analyse_errors(other.detections, other.ground_truths), point
            ).items():
                errors[label][:, half] = pair
        yield errors


def tell(judged: EvaluationData) -> None:
    found = list(errors_of(judged))
    print(f"{len(judged.images)} photos\n\n| class | by photo | by threshold | gain | 95 % of drawings |")
    print("| --- | --- | --- | --- | --- |")
    for label in [*judged.classes, ""]:
        errors = np.mean([one[label] for one in found], axis=0)  # (2, B), over the dealings
        ours, theirs = errors[:, ~np.isnan(errors[0])]
        low, high = percentile_interval(bootstrap_counts(len(ours)).astype(np.float64) @ (theirs - ours) / len(ours))
        gain = f"{(theirs - ours).mean():+.3f} | {low:+.3f} to {high:+.3f}"
        print(f"| {label or 'mean'} | {ours.mean():.3f} | {theirs.mean():.3f} | {gain} |")


if __name__ == "__main__":
    what, place, *more = sys.argv[1:]
    if what == "work":
        tell(judged_of(Path(place)))
    else:
        with tempfile.TemporaryDirectory() as name:
            tell(drawn(Path(place).resolve(), int(more[0]) if more else 600, Path(name)))
