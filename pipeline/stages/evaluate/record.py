"""The evaluation record of a model: its photos, detections and ground truths."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import FacadeError
from pipeline.stages.evaluate.bootstrap import ClassRanking
from pipeline.storage.files import json_digest
from pipeline.storage.schemas import COORDINATES

__all__ = ["TEST_SPLIT", "EvaluationRecord", "PrCurves"]

TEST_SPLIT, FIT_SPLIT = "test", "val"


Floats = npt.NDArray[np.float64]


PrCurves = dict[str, tuple[Floats, Floats]]


@dataclass(frozen=True)
class EvaluationRecord:
    """What an evaluation leaves of a model: which photos, what each detection is, and what is true."""

    evaluated_images: pa.Table
    detection_matches: pa.Table
    ground_truths: pa.Table

    @cached_property
    def split(self) -> str:
        """The split that speaks for the model: test, else val."""
        splits = set(self.evaluated_images["split"].to_pylist())
        if not self.has_held_out_photos:
            found = ", ".join(sorted(splits)) or "none"
            raise FacadeError(f"an evaluation has photos of {found}, and none of test or val; detect on those too.")
        return TEST_SPLIT if TEST_SPLIT in splits else FIT_SPLIT

    @property
    def has_held_out_photos(self) -> bool:
        """Whether there are photos that the model was not trained on."""
        return bool({TEST_SPLIT, FIT_SPLIT} & set(self.evaluated_images["split"].to_pylist()))

    @cached_property
    def images(self) -> pa.Array:
        """The ids of the photos of this split (B,), sorted: their places are their numbers."""
        own = self.evaluated_images.filter(pc.equal(self.evaluated_images["split"], self.split))
        return pa.array(sorted(own["image_id"].to_pylist()), pa.string())

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The classes that have something to find, sorted."""
        return tuple(sorted(set(self.positives["label"].to_pylist())))

    @cached_property
    def digest(self) -> str:
        """The digest of what was to be found, which models must share to be compared."""
        own = self._filter_split(self.ground_truths).select(["box_id", "label", "ignore", *COORDINATES])
        rows = sorted(zip(*(column.to_pylist() for column in own.columns), strict=True))
        return json_digest([self.split, self.images.to_pylist(), rows])

    def class_ranking(self, label: str) -> ClassRanking:
        """Return the detections of a class that count, best first, and where there is something to find."""
        rows = self._counted_detections(label)
        own = self.positives.filter(pc.equal(self.positives["label"], label))
        positives = np.bincount(self._image_indices(own), minlength=len(self.images))
        return ClassRanking(self._image_indices(rows), self._hits(rows), positives.astype(np.int64))

    def pr_curves(self) -> PrCurves:
        """Return recall (K,) and precision (K,) along the score, of each class."""
        found = {}
        for label in self.labels:
            one = self.class_ranking(label)
            hits = np.cumsum(one.hits)
            found[label] = hits / one.positives.sum(), hits / np.arange(1, len(hits) + 1)
        return found

    @cached_property
    def positives(self) -> pa.Table:
        """The truths to find."""
        return self._filter_split(self.ground_truths.filter(pc.invert(self.ground_truths["ignore"])))

    def _counted_detections(self, label: str) -> pa.Table:
        own = self.detection_matches
        kept = pc.and_(pc.equal(own["label"], label), pc.not_equal(own["outcome"], "ignored"))
        rows = self._filter_split(own.filter(kept))
        order = np.argsort(-rows["score"].to_numpy(), kind="stable")  # equal scores rank as the rows stand
        return rows.take(pa.array(order))

    def _hits(self, rows: pa.Table) -> npt.NDArray[np.bool_]:
        return np.asarray(pc.equal(rows["outcome"], "correct").to_numpy(), np.bool_)

    def _filter_split(self, table: pa.Table) -> pa.Table:
        return table.filter(pc.is_in(table["image_id"], self.images))

    def _image_indices(self, rows: pa.Table) -> npt.NDArray[np.int64]:
        return np.asarray(pc.index_in(rows["image_id"], self.images).to_numpy(), np.int64)
