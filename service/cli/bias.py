"""``winnow bias``: whom each rule removed, how groups differ, what goes with them, what swapping them changes."""

from typing import Annotated, Any

import polars as pl
import typer
from sqlalchemy.orm import Session

from catalog.database import Catalog
from catalog.errors import ConfigError, nearest
from catalog.store import Store
from catalog.tables.engine import Run
from curation.bias.identity import IdentityTerms
from curation.bias.removal import DIMENSIONS
from service.cli.output import AsJson, emit_json, emit_table, say, workspace
from workers.bias import Fairness, cleaning_run, fairness

NUM_WORDS = 8
NUM_PAIRS = 10
NUM_VALUES = 20
EXCERPT = 120


def add(app: typer.Typer) -> None:
    """Register this module's commands."""
    app.command("bias")(bias)


def bias(
    name: Annotated[str, typer.Argument(help="Name of a cleaned dataset, or the id of a cleaning run.")],
    *,
    by: Annotated[str | None, typer.Option(help="One of identity, language, source, label; default all.")] = None,
    rule: Annotated[str | None, typer.Option(help="Only what this rule removed; (run) is the whole run.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Also rows that are not called.")] = False,
    words: Annotated[bool, typer.Option("--words", help="Also which words go with which group (reads texts).")] = False,
    counterfactual: Annotated[
        str | None,
        typer.Option(help="Swap groups in texts and compare a score: a rule, a quality score, or label:CLASS."),
    ] = None,
    sample: Annotated[int, typer.Option(min=1, help="Records whose texts are read, at most.")] = 20_000,
    json: AsJson = False,
) -> None:
    """Tell whom each rule of a cleaning run removed, more or less often than the others, and how groups differ."""
    if by is not None and by not in DIMENSIONS:
        raise ConfigError(f"--by {by!r}; {nearest(by, DIMENSIONS)}")
    catalog = workspace()
    with catalog.read() as session:
        store = Store.of(catalog.settings)
        run = cleaning_run(session, name)
        found = fairness(session, store, run)
        table = _wanted(found, by, rule)
        more = _from_texts(catalog, session, run, words=words, counterfactual=counterfactual, limit=sample)
    if json:
        emit_json(found.to_json() | {"removals": table.to_dicts()} | more)
        return
    _tell_removals(table, every=every)
    _tell_groups(found)
    _tell_words(more.get("words", []))
    _tell_pairs(more.get("counterfactual"))


def _wanted(found: Fairness, by: str | None, rule: str | None) -> pl.DataFrame:
    table = found.removals
    rules = sorted(table["rule"].unique())
    if rule is not None and rule not in rules:
        raise ConfigError(f"--rule {rule!r} removed nobody; {nearest(rule, rules)}")
    chosen = pl.lit(value=True)
    if by is not None:
        chosen &= pl.col("dimension") == by
    if rule is not None:
        chosen &= pl.col("rule") == rule
    return table.filter(chosen)


def _from_texts(
    catalog: Catalog, session: Session, run: Run, *, words: bool, counterfactual: str | None, limit: int
) -> dict[str, Any]:
    """What the stored counts cannot tell."""
    if not words and counterfactual is None:
        return {}
    from curation.bias.association import associations, words_of
    from curation.bias.counterfactual import score_pairs, swapped_pairs
    from curation.recipe import recipe_from_canonical
    from workers.counterfactual import sampled_texts, scorer_named

    terms = recipe_from_canonical(run.config["recipe"]).identity
    if terms is None:
        raise ConfigError("the recipe stored no mentions of groups (identity: null); clean without that line")
    texts = sampled_texts(Store.of(catalog.settings), session, run, limit)
    told: dict[str, Any] = {"sampled": texts.height}
    if words:
        found = associations(texts["identity"], words_of(texts["text"])).filter(pl.col("q") < 0.05)
        told["words"] = _without_names(found, terms).to_dicts()
    if counterfactual is not None:
        scorer = scorer_named(catalog, session, run, counterfactual)
        naming = texts.filter(pl.col("identity").list.len() > 0)
        scored, summary = score_pairs(swapped_pairs(naming["text"].to_list(), terms), scorer)
        told["counterfactual"] = {
            "scorer": counterfactual,
            "pairs": scored.height,
            "groups": summary.to_dicts(),
            "worst": scored.head(NUM_PAIRS).drop("row").to_dicts(),
        }
    return told


def _without_names(found: pl.DataFrame, terms: IdentityTerms) -> pl.DataFrame:
    """Associations without a group's own names, and words of them, which go with it by definition."""
    named = [
        (group, word.lower()) for group, own in terms.index.groups.items() for term in own for word in term.split()
    ]
    words = pl.DataFrame(named, schema={"group": pl.String, "word": pl.String}, orient="row")
    # With their Korean particles.
    whole = terms.index.counts(found["word"])
    rest = found.with_row_index("row").join(whole, on=["row", "group"], how="anti", maintain_order="left")
    return rest.drop("row").join(words, on=["group", "word"], how="anti", maintain_order="left")


def tell_balance(found: dict[str, Any] | None) -> None:
    """What a run's balance step did to each value."""
    if found is None:
        return
    emit_table(
        f"balance by {found['by']}: {found['action']}",
        (found["by"], "before", "after", "weight", "share before", "share after", "wanted"),
        [
            (
                one["value"], one["before"], one["after"], f"{one['weight']:.3g}", _percent(one["share_before"]),
                _percent(one["share_after"]), _percent(one["wanted"]),
            )
            for one in found["values"][:NUM_VALUES]
        ],
    )  # fmt: skip


def _tell_removals(table: pl.DataFrame, *, every: bool) -> None:
    shown = table if every else table.filter(pl.col("verdict").is_not_null())
    emit_table(
        "who was removed, against everybody else",
        ("by", "value", "rule", "records", "removed", "share", "of others", "ratio", "95 %", "before", "after", ""),
        [
            (
                one["dimension"], one["value"], one["rule"], one["records"], one["removed"],
                _percent(one["removed_ratio"]), _percent(one["others_ratio"]), f"{one['ratio']:.2f}",
                f"{one['low']:.2f} to {one['high']:.2f}", _percent(one["share_before"]), _percent(one["share_after"]),
                one["verdict"] or "",
            )
            for one in shown.iter_rows(named=True)
        ],
    )  # fmt: skip
    hidden = table.height - shown.height
    if hidden:
        say(f"{hidden:,} rows whose ratio may be chance or is near 1 are not shown; see them with --all")


def _tell_groups(found: Fairness) -> None:
    emit_table(
        "groups",
        ("group", "records", "share", "kept", "share of kept", "toxicity", "gap to others", "95 %"),
        [
            (
                one["group"], one["records"], _percent(one["share"]), one["kept"], _percent(one["kept_share"]),
                _plain(one["toxicity"]), _number(one["toxicity_gap"]), _interval(one["gap_low"], one["gap_high"]),
            )
            for one in found.groups.iter_rows(named=True)
        ],
    )  # fmt: skip
    gaps = found.labels.filter((pl.col("low") > 0) | (pl.col("high") < 0)).head(20)
    if gaps.height:
        emit_table(
            "labels that go with a group more or less often than with the other records",
            ("group", "label", "records", "share", "of others", "gap", "95 %"),
            [
                (
                    one["group"], one["label"], one["records"], _percent(one["share"]), _percent(one["others_share"]),
                    _number(one["gap"]), _interval(one["low"], one["high"]),
                )
                for one in gaps.iter_rows(named=True)
            ],
        )  # fmt: skip


def _tell_words(rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    frame = pl.DataFrame(rows).filter(pl.col("pmi") > 0).group_by("group", maintain_order=True).head(NUM_WORDS)
    emit_table(
        "words that go with a group, by pointwise mutual information",
        ("group", "word", "both", "of word", "bits"),
        [(one["group"], one["word"], one["both"], one["of_word"], f"{one['pmi']:.2f}") for one in frame.to_dicts()],
    )


def _tell_pairs(found: dict[str, Any] | None) -> None:
    if found is None:
        return
    emit_table(
        f"{found['scorer']} of {found['pairs']:,} pairs that differ in the group alone",
        ("group", "put instead", "pairs", "mean change", "95 %", "mean size"),
        [
            (one["group"], one["other"], one["pairs"], _number(one["change"]), _interval(one["low"], one["high"]),
             _plain(one["mean_size"]))
            for one in found["groups"]
        ],
    )  # fmt: skip
    emit_table(
        "worst pairs",
        ("change", "text", "instead"),
        [(_number(one["change"]), one["text"][:EXCERPT], one["swapped"][:EXCERPT]) for one in found["worst"]],
    )


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f} %"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:+.3f}"


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:+.3f} to {high:+.3f}"
