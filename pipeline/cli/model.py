"""`facade model`: weights of other programs become bundles; bundles tell what they are, and become ONNX."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.assets import bundle_named
from pipeline.cli.options import Debug, Tracking, context_of
from pipeline.cli.output import finish, say

__all__ = ["model_app"]

model_app = typer.Typer(
    help="Weights of other programs become bundles; bundles become ONNX, and the better one the champion."
)

Bundle = Annotated[
    str, typer.Argument(metavar="BUNDLE", help="A folder with a model, or default, the model that comes along.")
]


@model_app.callback(invoke_without_command=True)
def model_root(context: typer.Context) -> None:
    """Weights of other programs become bundles; bundles become ONNX, and the better one the champion."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@model_app.command("import")
def model_import(
    file: Annotated[Path, typer.Argument(help="Weights of an SSD300 with VGG-16: .pth, .pt or .safetensors.")],
    out: Annotated[Path, typer.Option(help="The bundle to write; an earlier one there is replaced.")],
    classes: Annotated[
        str | None, typer.Option(metavar="A,B,C", help="The classes, by label; as many others as you like start anew.")
    ] = None,
    priors: Annotated[str | None, typer.Option(help="Other priors: a preset, or the priors.json of `priors`.")] = None,
    debug: Debug = False,
) -> None:
    """Make a bundle of weights of torchvision's ssd300_vgg16, of ssd.pytorch, or of the EPFL report's code."""

    def command() -> dict[str, Any]:
        from pipeline.models.weight_import import import_model

        return import_model(file, out, classes, priors, say)

    finish_model("import", command, debug)


@model_app.command("export")
def model_export(
    bundle: Bundle,
    out: Annotated[Path, typer.Option(help="The folder to write; an earlier export there is replaced.")],
    debug: Debug = False,
) -> None:
    """Write a bundle's network as ONNX, judged against PyTorch, and a JSON file with priors, classes and settings."""

    def command() -> dict[str, Any]:
        from pipeline.models.onnx_export import export_model

        return export_model(bundle_named(bundle), out, say)

    finish_model("export", command, debug)


@model_app.command("show")
def model_show(bundle: Bundle, debug: Debug = False) -> None:
    """Tell what a bundle is: network, classes, priors, where it comes from; its weights are checked."""

    def command() -> dict[str, Any]:
        from pipeline.models.bundle import CARD_FILE, facts_of, text_of

        folder = bundle_named(bundle)
        found, card = facts_of(folder), folder / CARD_FILE
        say(text_of(found))
        if card.is_file():
            say(f"\n{card.read_text(encoding='utf-8')}")
        return {"changed": False, "outputs": {}, **found}

    finish_model("show", command, debug)


@model_app.command("card")
def model_card(
    bundle: Bundle,
    work: Annotated[list[Path], typer.Option(help="A work folder where it was judged; may be repeated.")],
    notes: Annotated[
        Path | None, typer.Option(help="A page of Markdown to end with: what it is not for, what looks wrong.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Write a bundle's card beside it: data and licences, scores on photos of test, what it fails to find."""

    def command() -> dict[str, Any]:
        from pipeline.config import read_text
        from pipeline.stages.report.model_card import write_card

        path = write_card(bundle_named(bundle), work, read_text(notes) if notes else "")
        say(f"model card: {path}")
        return {"changed": True, "outputs": {"card": str(path)}}

    finish_model("card", command, debug)


@model_app.command("promote")
def model_promote(
    name: Annotated[str, typer.Option(help="The registered model of MLflow.")] = "facade",
    work: Annotated[
        Path | None,
        typer.Option(help="Where the candidate was judged: a champion that was judged on other boxes is judged anew."),
    ] = None,
    tracking: Tracking = None,
    debug: Debug = False,
) -> None:
    """Make the candidate the champion, if it is better beyond noise on the same photos, or the first; say why."""

    def command() -> dict[str, Any]:
        from pipeline.comparison.promotion import promote
        from pipeline.tracking.registry import open_store

        store = open_store(tracking)
        if work is not None:
            from pipeline.comparison.reevaluation import judge_champion

            judge_champion(context_of(work, {}, None, None, tracking, 0.05), store, name)
        found = promote(store, name)
        say(f"model promote: {'' if found.moved else 'the champion stays: '}{found.reason}")
        return found.to_json()

    finish_model("promote", command, debug)


def finish_model(name: str, command: Callable[[], dict[str, Any]], debug: bool) -> None:
    """Run a command on models, whose line has a stage and seconds as all others, and no rows."""
    stage, started = f"model {name}", time.monotonic()

    def timed() -> dict[str, Any]:
        result = command()
        return {"stage": stage, "changed": result["changed"], "seconds": round(time.monotonic() - started, 3), **result}

    finish(stage, timed, debug)
