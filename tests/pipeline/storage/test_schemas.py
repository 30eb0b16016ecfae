"""Tables keep their contract through a file, and refuse what they are not."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import FacadeError
from pipeline.storage.schemas import (
    SCHEMAS,
    check_schema,
    conform_to_schema,
    content_digest,
    empty_table,
    table_from_rows,
)

ROW = {"image_id": "a/1.jpg", "uri": "/1.jpg", "stage": "index", "error": "BadInput", "message": "broken"}


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_table_keeps_its_schema_in_a_file(name: str, tmp_path) -> None:
    pq.write_table(empty_table(name), tmp_path / "t.parquet")
    found = pq.read_table(tmp_path / "t.parquet").schema
    assert found.equals(SCHEMAS[name])
    assert found.metadata == SCHEMAS[name].metadata
    check_schema(found, name, "here")


def test_another_table_is_refused() -> None:
    with pytest.raises(FacadeError, match="holds the table 'boxes', expected 'images'"):
        check_schema(SCHEMAS["boxes"], "images", "here")


@pytest.mark.parametrize(("version", "refused"), [("2.0", False), ("2.7", False), ("1.0", True), ("3.0", True)])
def test_check_schema_refuses_other_major_versions(version: str, refused: bool) -> None:
    schema = SCHEMAS["boxes"].with_metadata({b"facade.table": b"boxes", b"facade.version": version.encode()})
    if refused:
        with pytest.raises(FacadeError, match=r"update facade-ssd|run its stage again"):
            check_schema(schema, "boxes", "here")
    else:
        check_schema(schema, "boxes", "here")


def test_a_column_that_an_older_version_lacks_is_null() -> None:
    older = table_from_rows("rejected", [ROW]).drop_columns(["message"])
    assert conform_to_schema(older, "rejected").to_pylist() == [{**ROW, "message": None}]


def test_the_content_digest_is_of_the_rows_alone() -> None:
    table = table_from_rows("rejected", [ROW, {**ROW, "image_id": "a/2.jpg"}])
    parts = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    assert content_digest(parts) == content_digest(table) != content_digest(table.slice(0, 1))


def test_a_touched_file_is_no_other_content() -> None:
    def images(stamp: str) -> pa.Table:
        values = {"image_id": "a", "dataset": "a", "uri": "a", "width": 1, "height": 1, "orientation": 1, "size": 1}
        return table_from_rows(
            "images", [{**values, "mtime_or_etag": stamp, "sha256": "", "split": "", "labelled_classes": []}]
        )

    assert content_digest(images("1")) == content_digest(images("2"))
