"""The page of a work folder: what it says, that it is safe, and that a browser shows it without asking for anything."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from pipeline.datasets.card import parse_card
from pipeline.execution.parallel import WorkerConfig
from pipeline.execution.runner import Context
from pipeline.imaging.drawing import contact_sheet, save_picture
from pipeline.stages.describe import stage as describe
from pipeline.stages.evaluate import stage as evaluate
from pipeline.stages.extract import stage as extract
from pipeline.stages.index import stage as index
from pipeline.stages.report import stage as report
from pipeline.stages.report.confusion import (
    BACKGROUND,
    DUPLICATE,
    MISLOCALISED,
    MISSED,
    confusion_table,
    count_confusion,
)
from pipeline.stages.report.dataset_sections import rejected_table
from pipeline.stages.report.html import (
    ImageLimit,
    Section,
    definition_list,
    format_interval,
    format_points,
    join_html,
    picture,
    render_page,
    swatch,
    table,
    tag,
)
from pipeline.stages.report.result_sections import protocols_table, splits_table
from pipeline.stages.report.work_folder import WorkFolder
from pipeline.stages.train.figures import draw_training
from pipeline.stages.train.stage import write_json
from pipeline.storage.manifest import Manifest, Shard
from pipeline.storage.schemas import table_from_rows
from pipeline.tracking.run_logger import OFF

from ...browser import Browser, find_chromium
from ...noise_model import make_noisy_evaluation

EVIL = """<script>alert(1)</script>"onload='x'&"""
LABELS = ("building", "window", "door")


def put(context: Context, stage: str, settings: Mapping[str, Any], **tables: list[dict]) -> None:
    """Write tables as if a stage had."""
    folder = context.folder(stage)
    made = {name: table_from_rows(name, rows) for name, rows in tables.items()}
    receipt = folder.write_shard(Shard("all", 0, "0" * 64), made, 0)
    folder.commit(Manifest(stage, (receipt,), dict(settings)))


# Blocks


def test_what_comes_from_data_is_escaped() -> None:
    full_report = render_page(
        EVIL,
        EVIL,
        [Section("a", EVIL, join_html(definition_list([(EVIL, EVIL)]), table([EVIL], [[EVIL]], EVIL), EVIL))],
    )
    assert "<script" not in full_report
    assert "onload='" not in full_report
    assert full_report.count("&lt;script&gt;") == 13
    assert tag("p", "a<b", tag("i", "&"), class_='"') == '<p class="&quot;">a&lt;b<i>&amp;</i></p>'
    assert tag("p", str(tag("i", "x"))) == "<p>&lt;i&gt;x&lt;/i&gt;</p>"  # what is no Html any more is only text
    assert EVIL not in swatch(EVIL)


def test_names_of_photos_and_messages_are_escaped() -> None:
    told = rejected_table([{"stage": "index", "message": EVIL, "image_id": EVIL}] * 3)
    assert "<script" not in told
    assert ">3<" in told


def test_numbers() -> None:
    assert (format_points(0.6437), format_points(None), format_points(float("nan")), format_points(1)) == (
        "64.4",
        "-",
        "-",
        "100.0",
    )
    assert (format_interval(0.61, 0.672), format_interval(None, 0.5), format_interval(float("nan"), 0.5)) == (
        "61.0-67.2",
        "",
        "",
    )


def test_only_columns_of_numbers_are_aligned_as_such() -> None:
    shown = table(["name", "count", "word"], [["a", "1,200", "7"], ["b", "-", "x"]], "")
    assert re.findall(r'<th scope="col"( class="number")?>', shown) == ["", ' class="number"', ""]


def test_a_picture_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    assert picture(tmp_path / "bad.png", "") == picture(tmp_path / "absent.jpg", "", ImageLimit(9, 9)) == ""


def test_sheets_are_made_smaller_and_never_larger(tmp_path: Path) -> None:
    Image.new("RGB", (300, 90)).save(tmp_path / "a.png")
    assert 'width="100" height="30"' in picture(tmp_path / "a.png", "a", ImageLimit(100, 10**6))
    assert 'width="300" height="90"' in picture(tmp_path / "a.png", "a", ImageLimit(1000, 10**6))
    assert "data:image/jpeg" in picture(tmp_path / "a.png", "a", ImageLimit(1000, 10**6))


def test_a_sheet_is_made_smaller_until_it_takes_no_more_bytes(tmp_path: Path) -> None:
    Image.effect_noise((400, 300), 90).save(tmp_path / "a.png")
    shown = picture(tmp_path / "a.png", "a", ImageLimit(400, 20_000))
    assert 10_000 < len(shown) * 3 / 4 < 21_000


# Confusion


def verdict(name: str, label: str, kind: str, box: str | None = None, chosen: bool = True, score: float = 0.5) -> dict:
    row = {"detection_id": name, "image_id": "a", "label": label, "score": score, "outcome": kind, "selected": chosen}
    return {**row, "iou": 0.0, "box_id": box}


def truth(box: str, label: str, chosen: bool = False, ignore: bool = False) -> dict:
    row = {"box_id": box, "image_id": "a", "label": label, "ignore": ignore, "detected": chosen, "selected": chosen}
    return {**row, "size": "M", "shape": "M"}


def test_confusion_with_a_known_answer() -> None:
    truths = [truth("w1", "window", True), truth("w2", "window"), truth("w3", "window"), truth("d1", "door")]
    truths += [truth("d2", "door", True), truth("i", "door", ignore=True)]
    verdicts = [
        verdict("1", "window", "correct", "w1"),
        verdict("2", "door", "correct", "d2"),
        verdict("3", "door", "class", "w2", score=0.4),
        verdict("4", "building", "class", "w2", score=0.9),  # the surer one says what w2 is taken for
        verdict("5", "window", "duplicate", "w1"),
        verdict("6", "door", "class", "w1"),  # of a window that is found as one
        verdict("7", "window", "localisation", "w3"),
        verdict("8", "door", "background"),
        verdict("9", "door", "ignored", "i"),
        verdict("10", "door", "background", chosen=False),
    ]
    cells = count_confusion(table_from_rows("detection_matches", verdicts), table_from_rows("ground_truths", truths))
    assert cells == {
        ("window", "window"): 1,
        ("door", "door"): 1,
        ("window", "building"): 1,
        ("window", MISSED): 1,
        ("door", MISSED): 1,
        (DUPLICATE, "door"): 2,
        (DUPLICATE, "window"): 1,
        (MISLOCALISED, "window"): 1,
        (BACKGROUND, "door"): 1,
    }


def test_confusion_counts_everything_once() -> None:
    tables = evaluate.evaluate_images(make_noisy_evaluation(20, 3).data, "model", 0)
    cells = count_confusion(tables["detection_matches"], tables["ground_truths"])
    chosen = [row for row in tables["detection_matches"].to_pylist() if row["selected"] and row["outcome"] != "ignored"]
    for label in LABELS:
        assert sum(n for (true, _), n in cells.items() if true == label) == _number(tables["ground_truths"], label)
        assert sum(n for (_, found), n in cells.items() if found == label) == sum(r["label"] == label for r in chosen)
    right = sum(n for (true, found), n in cells.items() if true == found)
    assert right == sum(row["outcome"] == "correct" for row in chosen)


def _number(truths: pa.Table, label: str) -> int:
    return sum(row["label"] == label and not row["ignore"] for row in truths.to_pylist())


def test_the_table_of_confusion_says_shares_and_sums() -> None:
    shown = confusion_table(
        {("window", "window"): 30, ("window", MISSED): 10, (BACKGROUND, "window"): 20}, ["window"], ""
    )
    assert '<td class="tint right" style="--share:0.750">30<small>75 %</small></td>' in shown
    assert '<td class="tint wrong" style="--share:0.250">10<small>25 %</small></td><td class="number">40</td>' in shown
    assert '<td class="tint wrong" style="--share:0.400">20<small>40 %</small></td>' in shown
    assert "nan" not in confusion_table({}, LABELS, "test")


# Scores


def score(label: str, value: float, **changes: Any) -> dict:
    row = {"split": "test", "dataset": "", "label": label, "part": "", "protocol": "voc11_50", "value": value}
    return {**row, "positives": 1, "images": 7, "low": value - 0.1, "high": value + 0.1, **changes}


def test_scores_by_protocol_split_and_dataset() -> None:
    rows = [score("", 0.644), score("window", 0.7), score("window", 0.9, part="size XS"), score("", 0.85, split="val")]
    rows += [score("", 0.3, protocol="coco_100", low=None, high=None), score("window", 0.1, dataset="cmp")]
    rows += [score("window", 0.71, part="without suspects"), score("door", 1.5, protocol="count_error_selected")]
    shown = protocols_table(rows, "test", ["window", "door"])
    assert "64.4<small>54.4-74.4</small>" in shown
    assert ("30.0" in shown, "71.0" in shown) == (True, True)
    assert not {"90.0", "85.0", "10.0", "150.0"} & set(re.findall(r"[\d.]+", shown))
    named = re.findall(r'<th scope="row">(.*?)</th>', splits_table(rows, ["test", "val"], ["window"]))
    assert named == ["test, all", "test, cmp", "val, all"]


# Whole pages


def test_a_work_folder_with_an_index_says_what_to_run(drawn: Path, cards: tuple, workplace: Callable) -> None:
    place = workplace("a b")
    place.index(drawn, cards[1])
    first = report.run(place.context, report.ReportConfig())
    full_report = Path(first.outputs["render_page"]).read_text()
    assert (first.changed, first.rows_in, first.rows_out, first.rejected) == (True, 10, 10, 0)
    for stage in ("extract", "describe", "priors", "train", "evaluate"):
        assert f"<code>facade {stage} --work &#x27;{place.context.work}&#x27;</code>" in full_report
    assert f"<code>facade detect &#x27;{place.context.work}&#x27;</code>" in full_report
    stamp = Path(first.outputs["render_page"]).stat().st_mtime_ns
    again = report.run(place.context, report.ReportConfig())
    assert (again.changed, again.digest) == (False, first.digest)
    assert Path(first.outputs["render_page"]).stat().st_mtime_ns == stamp
    assert report.run(place.context, report.ReportConfig(title="Other")).changed


def test_the_page_goes_to_mlflow(
    drawn: Path, cards: tuple, workplace: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, kept = workplace(), []

    @contextmanager
    def opened(name: str, uri: str | None, parent: str | None) -> Iterator[Any]:
        kept.append((name, uri, parent))
        yield SimpleNamespace(run_id="7", log=lambda *_: None, log_settings=lambda _: None, log_files=kept.extend)

    place.index(drawn, cards[1])
    monkeypatch.setattr(report, "open_run", opened)
    outcome = report.run(replace(place.context, parent=lambda: "above"), report.ReportConfig())
    assert outcome.run_id == "7"
    assert kept == [("report", OFF, "above"), Path(outcome.outputs["render_page"])]


def test_tables_that_are_older_than_their_sources_are_told(workplace: Callable) -> None:
    context = workplace().context
    put(context, "index", {}, remarks=[])
    put(context, "extract", {"index": "another"})
    assert [re.sub(" --work.*", "", line) for line in WorkFolder(context.work).stale_stages()] == [
        "extract is older than index: run <code>facade extract"
    ]
    put(context, "extract", {"index": context.folder("index").manifest().digest})
    assert WorkFolder(context.work).stale_stages() == []


@pytest.fixture(scope="module")
def full_report(drawn: Path, cards: tuple, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a work folder in which everything has run, or as good as."""
    context = Context(tmp_path_factory.mktemp("report") / "work", WorkerConfig(count=0), OFF, disk_retry_seconds=0.0)
    card = parse_card(cards[1], "test")
    index.run(context, index.IndexConfig(), card, cards[1], str(drawn))
    extract.run(context, extract.ExtractConfig(previews=4))
    describe.run(context, describe.DescribeConfig())
    covered = {"split": "val", "boxes": 9, "coverage_50": 0.9, "coverage_70": 0.5, "mean_iou": 0.7, "positives": 3.0}
    coverage = [{"name": name, "label": label, "share": 0.3, **covered} for name in ("a", "b") for label in LABELS]
    specs = [{"name": name, "priors": 8732, "spec": "{}", "note": ""} for name in ("a", "b")]
    choice = [{"name": "a", "split": "val", "score": 1.0, "reason": "a scores best"}]
    made_from = {"extract": context.folder("extract").require_manifest().digest}
    put(context, "priors", made_from, coverage=coverage, specs=specs, choice=choice)
    _trained(context)
    _found(context)
    evaluate.run(context, evaluate.EvaluateConfig(bootstrap_samples=20, previews=2))
    return Path(report.run(context, report.ReportConfig()).outputs["render_page"])


def _trained(context: Context) -> None:
    run = context.folder("train").path / "latest"
    rows = [{"epoch": float(n), "train.loss": 5.0 / n, "val.loss": 6.0 / n, "val.map50": 0.1 * n} for n in (1, 2, 3)]
    history = {"rows": rows, "best": 3, "val": {"map50": 0.3, "ap50.window": 0.3}, "test": {}, "digest": "d"}
    write_json(run / "history.json", history, context)
    write_json(
        run / "bundle" / "model.json", {"trained": {"name": "demo-1", "init_weights": {"from": "none"}}}, context
    )
    draw_training(rows, 3, run / "figures")


def _found(context: Context) -> None:
    """Write detections as good as the labels, but for every ninth."""
    images = context.folder("index").read("images").to_pylist()
    boxes = context.folder("extract").read("boxes").to_pylist()
    photos = [{"image_id": row["image_id"], "uri": row["uri"], "status": "done", "detections": 1} for row in images]
    own = ("image_id", "xmin", "ymin", "xmax", "ymax")
    found = [
        {key: row[key] for key in own}
        | {"detection_id": f"{n}", "label": "door" if n % 9 == 0 else row["label"], "score": 0.9 - n % 7 / 10}
        | {"selected": True, "model_digest": "model"}
        for n, row in enumerate(boxes)
    ]
    put(context, "detect", {"model": "model", "bundle": ""}, photos=photos, detections=found)
    sheet = contact_sheet([("a", Image.new("RGB", (400, 300)))] * 3)
    save_picture(sheet, context.folder("detect").path / "previews" / "contact_sheet.jpg")


def test_a_page_with_everything_needs_nothing_else(full_report: Path) -> None:
    text = full_report.read_text()
    assert "Not yet" not in text
    assert "is older than" not in text
    assert text.count("<img ") >= 18
    assert not re.search(r"(src|href)=\"(?!#|data:)", text)
    assert not re.search(r"https?:|@import|url\(|<script|<link|<iframe", text)
    assert 'content="default-src &#x27;none&#x27;' in text
    assert all(re.search(rf'<img [^>]*{key}="', text) for key in ("alt", "width", "height", "loading"))
    anchors = re.findall(r'<a href="#(\w+)"', text)
    assert len(anchors) == 9
    assert all(f'<section id="{anchor}">' in text for anchor in anchors)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if (program := find_chromium()) is None:
        pytest.skip("no Chromium is installed: pages are not looked at")
    opened = Browser(program, tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.mark.parametrize("width", [400, 1280])
def test_a_browser_shows_it_and_asks_for_nothing(full_report: Path, browser: Browser, width: int) -> None:
    papers = set()
    for scheme in ("light", "dark"):
        browser.open(full_report, width, scheme=scheme)
        assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
        papers.add(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert (
            browser.evaluate("getComputedStyle(document.querySelector('.chart .card')).backgroundColor")
            == "rgb(255, 255, 255)"
        )
    assert len(papers) == 2
    loaded = "Promise.all([...document.images].map(one => one.decode())).then(() => document.images.length)"
    browser.evaluate("document.querySelectorAll('img').forEach(one => one.loading = 'eager')")
    assert browser.evaluate(loaded) >= 18
    assert browser.requests == [full_report.as_uri()]
    assert browser.messages == []


def test_the_policy_forbids_scripts_and_addresses(full_report: Path, browser: Browser) -> None:
    browser.open(full_report, 400)
    browser.evaluate(
        "var one = document.createElement('script'); one.textContent = 'seen = 1'; document.body.append(one)"
    )
    assert browser.evaluate("typeof seen") == "undefined"
    browser.evaluate("document.body.append(Object.assign(new Image(), {src: 'file:///etc/hostname'}))")
    assert len(browser.messages) >= 1
    assert all("Content Security Policy" in one["entry"]["text"] for one in browser.messages)
