"""Personal data in the clean pipeline: counted and located with everything else that is measured, replaced at the end.

What is found in a record, as the recipe's edits left it, is in the run's ``pii_spans`` shards: kind and place, never
the value. Duplicates and repeated passages are judged on that text too: comparing with other datasets, and with what
a deduplication index remembers, needs the same text on both sides, and which records are the same must not depend on
what is written in place of a number. So replacing is last, just before the vectors are made: neither they nor the
curated version hold what was replaced. Records that become equal only by it are counted, and stay.
"""

from dataclasses import dataclass, field
from typing import Any

import polars as pl
from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog.errors import ConfigError
from catalog.settings import ENV_PREFIX, Settings
from catalog.store import StoredFile
from catalog.tables.datasets import Version
from catalog.tables.engine import Run, Unit
from curation.dedup.exact import exact_hash
from curation.pii.finding import SPAN_SCHEMA, find_spans
from curation.pii.replacing import fingerprint, redact
from curation.pii.step import PiiStep, column
from curation.recipe import Recipe
from workers.edits import measuring_run
from workers.engine import UnitResult
from workers.execution import UnitContext
from workers.pipelines import Stage, substring
from workers.pipelines.dedup import all_shards, recipe_of
from workers.pipelines.outputs import INHERITED, outputs

SPANS = "pii_spans"
STORED_SCHEMA = {"id": pl.String} | {name: kind for name, kind in SPAN_SCHEMA.items() if name != "row"}
CHANGED_SCHEMA = {"id": pl.String, "hash": pl.String}


@dataclass
class Measured:
    """What ``measure`` adds to the values of a shard."""

    counts: pl.DataFrame = field(default_factory=pl.DataFrame)
    result: dict[str, Any] = field(default_factory=dict)
    shards: list[tuple[str, StoredFile]] = field(default_factory=list)


def check(settings: Settings, recipe: Recipe) -> dict[str, str]:
    """Refuse a recipe whose personal data cannot be found or replaced here; what of the key belongs to the run.

    Returns
    -------
    ``pii_key``: the key's fingerprint where pseudonyms are written, so that another key is another run; else nothing.

    Raises
    ------
    ConfigError : a package or the key is missing.
    """
    if recipe.pii is None:
        return {}
    recipe.pii.require()
    return {"pii_key": fingerprint(_key(settings, recipe.pii))} if recipe.pii.needs_key else {}


def _key(settings: Settings, step: PiiStep) -> bytes:
    if not step.needs_key:
        return b""
    if settings.pii_key is None:
        raise ConfigError(
            f"pii action hash needs a secret of at least 16 characters; set {ENV_PREFIX}PII_KEY, "
            "the same for every worker"
        )
    return settings.pii_key.get_secret_value().encode()


def measure(unit: UnitContext, frame: pl.DataFrame, recipe: Recipe, *, own: bool) -> Measured:
    """A count a kind for every record of ``id, text``; of the run's own records also what was found where."""
    if recipe.pii is None:
        return Measured()
    spans = find_spans(frame["text"], recipe.pii.kinds, recipe.pii.min_confidence)
    unit.check()
    rows = pl.DataFrame({"row": pl.int_range(frame.height, dtype=pl.UInt32, eager=True)})
    counts = rows.select(
        rows.join(spans.filter(kind=name).group_by("row").len(), on="row", how="left", maintain_order="left")["len"]
        .fill_null(0)
        .cast(pl.Int64)
        .alias(column(name))
        for name in recipe.pii.kinds
    )
    if not own:
        return Measured(counts=counts)
    found = spans.group_by("kind").agg(
        values=pl.len(), records=pl.col("row").n_unique(), checked=pl.col("checksum").sum()
    )
    stored = spans.select(id=frame["id"].gather(spans["row"]), **{name: name for name in STORED_SCHEMA if name != "id"})
    return Measured(
        counts=counts,
        result={"pii": {one["kind"]: [one["values"], one["records"], one["checked"]] for one in found.to_dicts()}},
        shards=[(SPANS, unit.store.write_frame(stored, SPANS))],
    )


def without_empty(values: pl.DataFrame) -> pl.DataFrame:
    """Measured values without the counts that are 0 in every record: a kind that is not named has none."""
    counts = [name for name in values.columns if name.startswith(column(""))]
    return values.drop(name for name in counts if not values[name].sum())


def bounded(kind: dict[str, Any]) -> bool:
    """Whether records leave by a kind, of a recipe's canonical form."""
    return kind["action"] == "drop" or kind["maximum"] is not None


def _plan(session: Session, run: Run) -> list[dict[str, Any]]:
    step = run.config["recipe"].get("pii")
    if step is None or not PiiStep.of_canonical(step).replaces:
        return []
    return [{"index": index} for index in range(session.get_one(Version, run.version_id).num_shards)]


def _redact(unit: UnitContext) -> UnitResult:
    """The texts of one shard with personal data replaced, where there is any."""
    index, step = unit.claim.payload["index"], recipe_of(unit).pii
    assert step is not None
    key = _key(unit.catalog.settings, step)
    if step.needs_key and fingerprint(key) != unit.claim.config["pii_key"]:
        raise ConfigError(
            f"this worker's {ENV_PREFIX}PII_KEY is not the one that the run was asked for with; start it with that one"
        )
    file = substring.text_shard(unit, index)
    frame = unit.store.read_frame(file)
    unit.progress(0, frame.height)
    spans = None
    if file.to_json() == all_shards(unit)[index]["data"]:
        places = frame.select("id").with_row_index("row")
        spans = unit.store.read_frame(outputs(unit, "measure", SPANS)[index]).join(
            places, on="id", maintain_order="left"
        )
        spans = spans.select(list(SPAN_SCHEMA))
    after = redact(frame["text"], step, key, spans)
    differs = after != frame["text"]
    changed = pl.DataFrame(
        {"id": frame["id"].filter(differs), "hash": exact_hash(after.filter(differs))}, schema=CHANGED_SCHEMA
    )
    unit.progress(frame.height, frame.height)
    shards = [("redacted", unit.store.write_frame(changed, "redacted"))]
    result: dict[str, Any] = {"changed": changed.height}
    if changed.height:
        written = unit.store.write_frame(frame.with_columns(text=after), "text")
        shards.append(("text", written))
        result["text"] = written.to_json()
    return UnitResult(result=result, shards=shards)


def _results(unit: UnitContext, stage: str) -> list[dict[str, Any]]:
    with unit.catalog.read() as session:
        run_id = measuring_run(session, unit.claim.run_id) if stage in INHERITED else unit.claim.run_id
        of_stage = select(Unit.result).where(Unit.run_id == run_id, Unit.stage_name == stage)
        return [one or {} for one in session.scalars(of_stage.order_by(Unit.position))]


def text_shard(unit: UnitContext, index: int) -> StoredFile:
    """Where the texts of one of the run's shards are at last: as ``substring`` left them, personal data replaced."""
    redacted = _results(unit, "redact")
    if redacted and "text" in redacted[index]:
        return StoredFile.from_json(redacted[index]["text"])
    return substring.text_shard(unit, index)


def summary(unit: UnitContext, selections: list[StoredFile]) -> dict[str, Any]:
    """What was found and done, under ``pii``; nothing where the recipe does not ask for it.

    For each kind that was found its action, number of ``values``, of ``records`` and of values whose check digit held.
    ``changed`` texts of records that stayed were rewritten, ``became_equal`` of them are equal to another such by that.
    """
    step = unit.claim.config["recipe"].get("pii")
    if step is None:
        return {}
    totals: dict[str, list[int]] = {}
    for one in _results(unit, "measure"):
        for kind, numbers in one.get("pii", {}).items():
            totals[kind] = [sum(pair) for pair in zip(totals.get(kind, [0, 0, 0]), numbers, strict=True)]
    hashes = [pl.DataFrame(schema=CHANGED_SCHEMA)]
    for file, selection in zip(outputs(unit, "redact", "redacted"), selections, strict=False):
        stays = unit.store.read_frame(selection, ["id"])
        hashes.append(unit.store.read_frame(file).join(stays, on="id", how="semi"))
    changed = pl.concat(hashes)
    return {
        "pii": {
            "kinds": {
                kind: {
                    "action": step["kinds"][kind]["action"],
                    **dict(zip(("values", "records", "checked"), numbers, strict=True)),
                }
                for kind, numbers in sorted(totals.items())
            },
            "changed": changed.height,
            "became_equal": changed.height - changed["hash"].n_unique(),
        }
    }


STAGES = (Stage(name="redact", plan=_plan, work=_redact),)
