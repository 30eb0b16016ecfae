"""The page of a work folder: its content, and that a browser shows it without loading anything else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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
from pipeline.stages.train.figures import draw_training
from pipeline.stages.train.stage import write_json
from pipeline.tracking.run_logger import OFF

from ...browser import Browser, find_chromium
from .test_work_folder import write_stage

LABELS = ("building", "window", "door")


def test_page_of_an_index_says_what_to_run(drawn: Path, cards: tuple, workplace: Callable) -> None:
    work = workplace("a b")
    work.index(drawn, cards[1])
    first = report.run(work.context, report.ReportConfig())
    path = Path(first.outputs["page"])
    page = path.read_text()
    assert (first.changed, first.rows_in, first.rows_out, first.rejected) == (True, 10, 10, 0)
    for stage in ("extract", "describe", "priors", "train", "evaluate"):
        assert f"<code>facade {stage} --work &#39;{work.context.work}&#39;</code>" in page
    assert f"<code>facade detect &#39;{work.context.work}&#39;</code>" in page
    assert "are incomplete" not in page
    modified = path.stat().st_mtime_ns
    second = report.run(work.context, report.ReportConfig())
    assert (second.changed, second.digest) == (False, first.digest)
    assert path.stat().st_mtime_ns == modified
    assert report.run(work.context, report.ReportConfig(title="Other")).changed


def test_page_warns_of_incomplete_labels(drawn: Path, cards: tuple, workplace: Callable) -> None:
    work = workplace()
    work.index(drawn, "complete = false\n" + cards[1])
    page = Path(report.run(work.context, report.ReportConfig()).outputs["page"]).read_text()
    assert "The labels of drawn_boxes are incomplete: some objects are not labelled, so false positives" in page


def test_page_warns_of_stale_stages(drawn: Path, cards: tuple, workplace: Callable) -> None:
    work = workplace()
    work.index(drawn, cards[1])
    write_stage(work.context, "extract", {"index": "another"}, boxes=[], rejected=[])
    page = Path(report.run(work.context, report.ReportConfig()).outputs["page"]).read_text()
    assert '<p class="warning">extract is older than index: run <code>facade extract --work' in page


def test_page_is_logged_to_mlflow(
    drawn: Path, cards: tuple, workplace: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = workplace()
    calls: list[Any] = []

    @contextmanager
    def open_run(name: str, uri: str | None, parent: str | None) -> Iterator[Any]:
        calls.append((name, uri, parent))
        yield SimpleNamespace(run_id="7", log=lambda *_: None, log_settings=lambda _: None, log_files=calls.extend)

    work.index(drawn, cards[1])
    monkeypatch.setattr(report, "open_run", open_run)
    outcome = report.run(replace(work.context, parent_run=lambda: "above"), report.ReportConfig())
    assert outcome.run_id == "7"
    assert calls == [("report", OFF, "above"), Path(outcome.outputs["page"])]


@pytest.fixture(scope="module")
def full_page(drawn: Path, cards: tuple, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a work folder with the results of all stages."""
    context = Context(tmp_path_factory.mktemp("report") / "work", WorkerConfig(count=0), OFF, disk_retry_seconds=0.0)
    card = parse_card(cards[1], "test")
    index.run(context, index.IndexConfig(), card, cards[1], str(drawn))
    extract.run(context, extract.ExtractConfig(previews=4))
    describe.run(context, describe.DescribeConfig())
    covered = {"split": "val", "boxes": 9, "coverage_50": 0.9, "coverage_70": 0.5, "mean_iou": 0.7, "positives": 3.0}
    coverage = [{"name": name, "label": label, "share": 0.3, **covered} for name in ("a", "b") for label in LABELS]
    specs = [{"name": name, "priors": 8732, "spec": "{}", "note": ""} for name in ("a", "b")]
    choice = [{"name": "a", "split": "val", "score": 1.0, "reason": "a scores best"}]
    inputs = {"extract": context.folder("extract").require_manifest().digest}
    write_stage(context, "priors", inputs, coverage=coverage, specs=specs, choice=choice)
    _write_training(context)
    _write_detections(context)
    evaluate.run(context, evaluate.EvaluateConfig(bootstrap_samples=20, previews=2))
    return Path(report.run(context, report.ReportConfig()).outputs["page"])


def _write_training(context: Context) -> None:
    run = context.folder("train").path / "latest"
    rows = [{"epoch": float(n), "train.loss": 5.0 / n, "val.loss": 6.0 / n, "val.map50": 0.1 * n} for n in (1, 2, 3)]
    history = {"rows": rows, "best": 3, "val": {"map50": 0.3, "ap50.window": 0.3}, "test": {}, "digest": "d"}
    write_json(run / "history.json", history, context)
    model_info = {"trained": {"name": "demo-1", "init_weights": {"from": "none"}}}
    write_json(run / "bundle" / "model.json", model_info, context)
    draw_training(rows, 3, run / "figures")


def _write_detections(context: Context) -> None:
    """Write detections that equal the labels, with another class for every ninth."""
    images = context.folder("index").read("images").to_pylist()
    boxes = context.folder("extract").read("boxes").to_pylist()
    photos = [{"image_id": row["image_id"], "uri": row["uri"], "status": "done", "detections": 1} for row in images]
    keys = ("image_id", "xmin", "ymin", "xmax", "ymax")
    detections = [
        {key: row[key] for key in keys}
        | {"detection_id": f"{n}", "label": "door" if n % 9 == 0 else row["label"], "score": 0.9 - n % 7 / 10}
        | {"selected": True, "model_digest": "model"}
        for n, row in enumerate(boxes)
    ]
    write_stage(context, "detect", {"model": "model", "bundle": ""}, photos=photos, detections=detections)
    sheet = contact_sheet([("a", Image.new("RGB", (400, 300)))] * 3)
    save_picture(sheet, context.folder("detect").path / "previews" / "contact_sheet.jpg")


def test_full_page_is_self_contained(full_page: Path) -> None:
    page = full_page.read_text()
    assert "Not yet available" not in page
    assert "is older than" not in page
    assert page.count("<img ") >= 18
    assert not re.search(r"(src|href)=\"(?!#|data:)", page)
    assert not re.search(r"https?:|@import|url\(|<script|<link|<iframe", page)
    assert "content=\"default-src 'none'" in page
    assert all(re.search(rf'<img [^>]*{key}="', page) for key in ("alt", "width", "height", "loading"))
    anchors = re.findall(r'<a href="#(\w+)"', page)
    assert len(anchors) == 9
    assert all(f'<section id="{anchor}">' in page for anchor in anchors)


def test_full_page_shows_training_and_priors(full_page: Path) -> None:
    page = full_page.read_text()
    assert '<th scope="row">a<span class="badge">selected</span></th>' in page
    assert "Selected: <strong>a</strong>. a scores best." in page
    assert "<dt>run</dt><dd>demo-1</dd>" in page
    assert "<dt>epochs</dt><dd>3 of ?, best 3</dd>" in page


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if (program := find_chromium()) is None:
        pytest.skip("Chromium is not installed: the page is not tried in a browser")
    browser = Browser(program, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.mark.parametrize("width", [400, 1280])
def test_browser_shows_the_page_and_loads_nothing_else(full_page: Path, browser: Browser, width: int) -> None:
    backgrounds = set()
    for scheme in ("light", "dark"):
        browser.open(full_page, width, scheme=scheme)
        assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
        backgrounds.add(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert (
            browser.evaluate("getComputedStyle(document.querySelector('.chart .card')).backgroundColor")
            == "rgb(255, 255, 255)"
        )
    assert len(backgrounds) == 2
    loaded = "Promise.all([...document.images].map(image => image.decode())).then(() => document.images.length)"
    browser.evaluate("document.querySelectorAll('img').forEach(image => image.loading = 'eager')")
    assert browser.evaluate(loaded) >= 18
    assert browser.requests == [full_page.as_uri()]
    assert browser.messages == []


def test_policy_forbids_scripts_and_addresses(full_page: Path, browser: Browser) -> None:
    browser.open(full_page, 400)
    browser.evaluate(
        "var script = document.createElement('script'); script.textContent = 'hit = 1'; document.body.append(script)"
    )
    assert browser.evaluate("typeof hit") == "undefined"
    browser.evaluate("document.body.append(Object.assign(new Image(), {src: 'file:///etc/hostname'}))")
    assert len(browser.messages) >= 1
    assert all("Content Security Policy" in message["entry"]["text"] for message in browser.messages)
