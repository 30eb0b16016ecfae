"""A bundle as MLflow serves it: addresses of photos in, a row for each detection out.

MLflow copies this file next to a bundle (`RunLogger.log_bundle`) and runs the copy when the model is loaded, without
pickle. Nothing here imports it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

from pipeline.errors import BadInputError
from pipeline.imaging.image_io import decode_photo
from pipeline.storage.files import read_bytes
from pipeline.tracking.run_logger import SERVING_COLUMNS
from ssd import Detector, load_bundle
from ssd.device import resolve_device

BATCH = 8
DTYPES = {"string": "str", "double": "float64"}


class BundlePyfuncModel(PythonModel):  # type: ignore[misc]
    """The detector of a bundle, on a GPU if there is one."""

    def load_context(self, context: Any) -> None:
        """Make the bundle ready to run."""
        bundle = load_bundle(Path(context.artifacts["bundle"]))
        self.classes = bundle.model.config.classes
        self.detector = Detector(bundle, resolve_device("auto"))

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:  # noqa: ARG002
        """Return a row for each detection, in pixels of the upright photo; a photo without any has none."""
        uris = [str(uri) for uri in model_input["uri"]]
        batches = (uris[start : start + BATCH] for start in range(0, len(uris), BATCH))
        rows = [row for batch in batches for row in self._detect(batch)]
        types = {name: DTYPES[kind] for name, kind in SERVING_COLUMNS.items()}
        return pd.DataFrame(rows, columns=list(types)).astype(types)

    def _detect(self, uris: list[str]) -> Iterator[tuple[Any, ...]]:
        for uri, found in zip(uris, self.detector([_photo(uri) for uri in uris]), strict=True):
            parts = zip(found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True)
            yield from ((uri, self.classes[label - 1], score, *box) for label, score, box in parts)


def _photo(uri: str) -> torch.Tensor:
    """Return a photo, uint8 (3, H, W), read as for training."""
    try:
        return torch.tensor(decode_photo(read_bytes(uri))).permute(2, 0, 1)
    except BadInputError as error:
        raise BadInputError(f"{uri}: {error}") from error


set_model(BundlePyfuncModel())
