"""`facade demo`, small: what the README promises."""

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image


def test_demo_runs_all_stages_and_names_its_pictures(facade: Callable, tmp_path: Path) -> None:
    result = facade("demo", "--out", "out", "--images", 6)
    assert result.code == 0
    stages = ["index drawn", "index drawn_boxes", "extract", "describe", "priors", "report"]
    assert list(result.line["stages"]) == stages
    assert (result.line["rows_in"], result.line["rows_out"], result.line["rejected"]) == (54, 54, 0)
    sheet = tmp_path / "out/work/extract/previews/drawn.jpg"
    assert str(sheet.relative_to(tmp_path)) in result.text
    with Image.open(sheet) as image:
        assert min(image.size) > 500
    assert (
        len(pq.read_table(tmp_path / "out/work/extract/boxes")) == result.line["stages"]["extract"]["outputs"]["boxes"]
    )
    assert (tmp_path / "mlflow.db").exists()
    again = facade("demo", "--out", "out", "--images", 6)
    assert (again.code, again.line["changed"]) == (0, False)
