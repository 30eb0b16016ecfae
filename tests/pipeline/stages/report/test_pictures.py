"""Pictures for the page: unreadable ones are left out, sheets stay within their limit."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from pipeline.stages.report.pictures import ImageLimit, read_chart, read_sheet


def test_unreadable_pictures_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    assert read_chart(tmp_path / "bad.png", "") is None
    assert read_sheet(tmp_path / "bad.png", "", ImageLimit(9, 9)) is None
    assert read_sheet(tmp_path / "absent.jpg", "", ImageLimit(9, 9)) is None


def test_charts_are_embedded_as_they_are(tmp_path: Path) -> None:
    Image.new("RGB", (300, 90)).save(tmp_path / "a.png")
    chart = read_chart(tmp_path / "a.png", "a")
    assert chart is not None
    assert (chart.width, chart.height, chart.layout) == (300, 90, "chart")
    assert (chart.display_width, chart.min_display_width) == (207, 135)
    assert chart.source.startswith("data:image/png;base64,")


def test_sheets_are_shrunk_and_never_enlarged(tmp_path: Path) -> None:
    Image.new("RGB", (300, 90)).save(tmp_path / "a.png")
    for limit, size in ((100, (100, 30)), (1000, (300, 90))):
        sheet = read_sheet(tmp_path / "a.png", "a", ImageLimit(limit, 10**6))
        assert sheet is not None
        assert (sheet.width, sheet.height, sheet.layout) == (*size, "sheet")
        assert sheet.source.startswith("data:image/jpeg;base64,")


def test_sheets_are_shrunk_to_the_limit_in_bytes(tmp_path: Path) -> None:
    Image.effect_noise((400, 300), 90).save(tmp_path / "a.png")
    sheet = read_sheet(tmp_path / "a.png", "a", ImageLimit(400, 20_000))
    assert sheet is not None
    assert 10_000 < len(sheet.source) * 3 / 4 < 21_000
