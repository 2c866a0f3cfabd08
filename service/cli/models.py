"""``winnow export-model``: a trained model as a folder of its own."""

from pathlib import Path
from typing import Annotated

import typer

from service.cli.output import AsJson, emit_json, say, show, workspace


def add(app: typer.Typer) -> None:
    """Register this module's command."""
    app.command("export-model")(export_model)


def export_model(
    model: Annotated[str, typer.Argument(help="RUN/ARM of a training; of the run, its first characters do.")],
    *,
    output: Annotated[Path, typer.Option(help="Folder to make; nothing may be there.")],
    transformers: Annotated[
        bool, typer.Option("--transformers", help="As AutoModelForCausalLM loads it, where it has the architecture.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Write a trained model as a folder: card, safetensors, config, tokenizer."""
    from workers.models import export_model as write

    files = write(workspace(), model, output, layout="transformers" if transformers else "winnow")
    if json:
        emit_json({"output": str(output), "model": model, "files": files})
        return
    show(str(output))
    if transformers:
        say("loaded by transformers: AutoModelForCausalLM.from_pretrained and AutoTokenizer.from_pretrained")
    else:
        say("another training starts from it by init_from: FOLDER, which begins with / or ./")
