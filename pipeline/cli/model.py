"""`facade model`: import, show, describe, export and promote models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.assets import resolve_bundle
from pipeline.cli.options import CommonOptions, DebugOption, TrackingOption
from pipeline.cli.output import echo, finish_command

__all__ = ["model_app"]

model_app = typer.Typer(
    help="Import weights of other programs, show a bundle, export it as ONNX, promote the better one to champion."
)

BundleArgument = Annotated[
    str, typer.Argument(metavar="BUNDLE", help="A folder with a model, or default, the bundled default model.")
]


@model_app.callback(invoke_without_command=True)
def model_root(context: typer.Context) -> None:
    """Import, show, describe, export and promote models."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@model_app.command("import")
def model_import(
    file: Annotated[Path, typer.Argument(help="Weights of an SSD300 with VGG-16: .pth, .pt or .safetensors.")],
    out: Annotated[Path, typer.Option(help="The bundle to write; an earlier one there is replaced.")],
    classes: Annotated[
        str | None,
        typer.Option(metavar="A,B,C", help="The classes, by label; other classes get newly initialised heads."),
    ] = None,
    priors: Annotated[str | None, typer.Option(help="Other priors: a preset, or the priors.json of `priors`.")] = None,
    debug: DebugOption = False,
) -> None:
    """Convert weights of torchvision's ssd300_vgg16, of ssd.pytorch, or of the EPFL report's code to a bundle."""

    def command() -> dict[str, Any]:
        from pipeline.models.weight_import import import_model

        return import_model(file, out, classes, priors, echo)

    finish_command("model import", command, debug)


@model_app.command("export")
def model_export(
    bundle: BundleArgument,
    out: Annotated[Path, typer.Option(help="The folder to write; an earlier export there is replaced.")],
    debug: DebugOption = False,
) -> None:
    """Export a bundle as ONNX, checked against PyTorch, with a JSON file of priors, classes and settings."""

    def command() -> dict[str, Any]:
        from pipeline.models.onnx_export import export_model

        return export_model(resolve_bundle(bundle), out, echo)

    finish_command("model export", command, debug)


@model_app.command("show")
def model_show(bundle: BundleArgument, debug: DebugOption = False) -> None:
    """Show a bundle: network, classes, priors, origin; its weights are checked."""

    def command() -> dict[str, Any]:
        from pipeline.models.bundle import CARD_FILE, bundle_info, format_info

        folder = resolve_bundle(bundle)
        info = bundle_info(folder)
        card = folder / CARD_FILE
        echo(format_info(info))
        if card.is_file():
            echo(f"\n{card.read_text(encoding='utf-8')}")
        return {"changed": False, "outputs": {}, **info}

    finish_command("model show", command, debug)


@model_app.command("card")
def model_card(
    bundle: BundleArgument,
    work: Annotated[list[Path], typer.Option(help="A work folder where it was evaluated; may be repeated.")],
    notes: Annotated[
        Path | None, typer.Option(help="A page of Markdown to end with: what it is not for, what looks wrong.")
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Write a bundle's card into it: data and licences, scores on test photos, what it misses."""

    def command() -> dict[str, Any]:
        from pipeline.config import read_text
        from pipeline.stages.report.model_card import write_model_card

        path = write_model_card(resolve_bundle(bundle), work, read_text(notes) if notes else "")
        echo(f"model card: {path}")
        return {"changed": True, "outputs": {"card": str(path)}}

    finish_command("model card", command, debug)


@model_app.command("promote")
def model_promote(
    name: Annotated[str, typer.Option(help="The registered model of MLflow.")] = "facade",
    work: Annotated[
        Path | None,
        typer.Option(help="Where the candidate was evaluated; a champion of other boxes is evaluated there too."),
    ] = None,
    tracking: TrackingOption = None,
    debug: DebugOption = False,
) -> None:
    """Make the candidate the champion, if it is better beyond noise on the same photos, or the first; say why."""

    def command() -> dict[str, Any]:
        from pipeline.comparison.promotion import promote
        from pipeline.tracking.registry import open_store

        store = open_store(tracking)
        if work is not None:
            from pipeline.comparison.reevaluation import reevaluate_champion

            with CommonOptions(tracking=tracking).open_context(work, {}) as context:
                reevaluate_champion(context, store, name)
        promotion = promote(store, name)
        echo(f"model promote: {'' if promotion.promoted else 'the champion stays: '}{promotion.reason}")
        return promotion.to_json()

    finish_command("model promote", command, debug)
