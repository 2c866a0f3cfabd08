"""``winnow quality``: scorers trained from good and bad examples or from a reference, for recipes to use."""

from typing import Annotated, Any

import typer

from catalog.errors import ConfigError
from service.cli.output import AsJson, emit_json, emit_table, say, show, workspace

app = typer.Typer(help="Train quality scorers that recipes use, and list them.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name under which recipes find it; a new training is a new version.")]
Text = Annotated[str, typer.Option(help="Column of the files that holds the text.")]


@app.command("train")
def train(
    name: Name,
    *,
    good: Annotated[list[str] | None, typer.Option(help="File of good examples; may be given several times.")] = None,
    bad: Annotated[list[str] | None, typer.Option(help="File of bad examples; may be given several times.")] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Dataset whose labels say what is good, instead of files.")
    ] = None,
    good_label: Annotated[str | None, typer.Option(help="Label of its good records.")] = None,
    bad_label: Annotated[str | None, typer.Option(help="Label of its bad records; all others by default.")] = None,
    text: Text = "text",
    encoder: Annotated[
        str, typer.Option(help="Whose vectors it reads; that of the recipe costs nothing more.")
    ] = "static",
    json: AsJson = False,
) -> None:
    """Train a classifier on your own good and bad examples; its score on unseen examples is shown."""
    from workers.quality import labelled_texts, train_classifier

    catalog = workspace()
    if dataset is not None:
        if good or bad or good_label is None:
            raise ConfigError("with --dataset give --good-label, perhaps --bad-label, and no files")
        pair = labelled_texts(catalog, dataset, good_label, bad_label)
        origin: dict[str, Any] = {"dataset": dataset, "good": good_label, "bad": bad_label}
    else:
        if not good or not bad or good_label is not None or bad_label is not None:
            raise ConfigError("give --good FILE and --bad FILE, or --dataset NAME with --good-label LABEL")
        pair = _texts(good, text), _texts(bad, text)
        origin = {"good": good, "bad": bad}
    found = train_classifier(catalog, name, good=pair[0], bad=pair[1], encoder=encoder, origin=origin)
    if json:
        emit_json(found)
        return
    show(
        f"{name} version {found['version']}: AUROC {found['auroc']:.3f} (± {found['auroc_deviation']:.3f}), "
        f"accuracy {found['accuracy']:.3f}, log loss {found['log_loss']:.3f}, "
        f"calibration error {found['calibration_error']:.3f}"
    )
    say(f"from {found['num_good']:,} good and {found['num_bad']:,} bad examples, each judged unseen, in five folds")
    if found["num_contradicting"]:
        say(f"{found['num_contradicting']:,} texts are both good and bad; left out")
    say(f"in a recipe: `quality: {{classifier: {name}, minimum: 0.5}}`")


@app.command("reference")
def reference(
    name: Name,
    files: Annotated[
        list[str] | None, typer.Argument(help="Files of the reference, of any format ingest reads.")
    ] = None,
    *,
    dataset: Annotated[str | None, typer.Option(help="Dataset that is the reference, instead of files.")] = None,
    text: Text = "text",
    unit: Annotated[str, typer.Option(help="word, or character.")] = "word",
    order: Annotated[int | None, typer.Option(help="Words of the longest n-gram, 2 to 8; default 3.")] = None,
    json: AsJson = False,
) -> None:
    """Count a reference's n-grams, so that a recipe can measure how much each text surprises who has read it."""
    import polars as pl

    from curation.quality.perplexity import ReferenceConfig
    from workers.quality import texts_of_dataset, train_perplexity

    config = ReferenceConfig(unit=unit, order=order)
    catalog = workspace()
    if (dataset is None) == (not files):
        raise ConfigError("give the files of the reference, or --dataset NAME")
    if dataset is not None:
        texts = pl.concat([frame["text"] for frame in texts_of_dataset(catalog, dataset)])
        origin: dict[str, Any] = {"dataset": dataset}
    else:
        texts, origin = _texts(files or [], text), {"files": files}
    found = train_perplexity(catalog, name, reference=texts, config=config, origin=origin)
    if json:
        emit_json(found)
        return
    show(
        f"{name} version {found['version']}: n-grams of {unit}s in {found['num_texts']:,} texts, "
        f"{found['num_bytes'] / 1e6:,.1f} MB"
    )
    if found["num_left_out"]:
        say(f"{found['num_left_out']:,} texts beyond what one model holds were left out, by their hashes")
    if found["quantiles"]:
        emit_table(
            "perplexity of texts of the reference that were not counted",
            ("share below", "perplexity"),
            [(f"{float(level):.0%}", value) for level, value in found["quantiles"].items()],
        )
        say(f"in a recipe: `quality: {{perplexity: {name}, maximum: {found['quantiles']['0.99']:g}}}`")


@app.command("list")
def list_(*, json: AsJson = False) -> None:
    """List the trained scorers, each version with what it was trained on."""
    from workers.quality import list_models

    catalog = workspace()
    with catalog.read() as session:
        models: list[dict[str, Any]] = [
            {"name": one.name, "version": one.version, "scorer": one.scorer, "created_at": one.created_at.isoformat()}
            | one.summary
            for one in list_models(session)
        ]
    if json:
        emit_json(models)
        return
    rows = [(one["name"], one["version"], one["scorer"], one["created_at"][:19], _measured(one)) for one in models]
    emit_table("quality scorers", ("name", "version", "scorer", "trained", ""), rows)


def _measured(one: dict[str, Any]) -> str:
    if one["scorer"] == "classifier":
        return f"AUROC {one['auroc']:.3f}, {one['num_good']:,} good, {one['num_bad']:,} bad, encoder {one['encoder']}"
    return f"{one['num_bytes'] / 1e6:,.1f} MB of reference, by {one['unit']}"


def _texts(files: list[str], column: str) -> Any:
    import polars as pl

    from workers.quality import texts_of_file

    return pl.concat([texts_of_file(file, column) for file in files])
