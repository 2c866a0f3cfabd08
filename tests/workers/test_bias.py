"""Whom cleaning removes, balanced versions and their weights, from files in to the stream that trains on them."""

from pathlib import Path

import polars as pl
import pytest
from sqlalchemy import select

from catalog.store import Store
from catalog.tables.curation import Verdict
from catalog.tables.datasets import Dataset, Version
from catalog.tables.engine import Run
from tests.workers.building import clean_dataset
from tests.workers.test_determinism import make_catalog
from training.data import TrainingData
from training.stream import Stream
from workers import curated
from workers.bias import fairness
from workers.learnable import with_labels

RECIPE = """
name: fair
rules:
  char_count: {minimum: 20}
  toxic_term_count: {maximum: 0}
exact: false
encoder: hashing
identity: {team: {blue: {en: [blue team]}}}
balance: {by: label, action: reweight, target: {rare: 1, common: 1}}
"""


def rows() -> list[dict[str, str]]:
    made = []
    for number in range(240):
        label = "rare" if number % 6 == 0 else "common"
        who = "The women of" if number % 4 == 0 else "Some of"
        # Every other text about women is too short for the rule, and one in twenty of the others.
        short = number % 8 == 0 or number % 20 == 1
        text = f"{who} {number}" if short else f"{who} the village number {number} went to the market"
        made.append({"body": text, "queue": label})
    made.append({"body": "the Blue Team says shit about number 9999", "queue": "common"})
    return made


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("bias")
    catalog = make_catalog(folder / "home")
    clean_dataset(catalog, folder, rows(), RECIPE)
    return catalog


def test_table_finds_the_rule_that_removes_a_group(cleaned) -> None:
    with cleaned.read() as session:
        run = session.scalars(select(Run).where(Run.kind == "clean")).one()
        found = fairness(session, Store.of(cleaned.settings), run)
    table = found.removals
    row = table.filter((pl.col("value") == "gender/women") & (pl.col("rule") == "char_count")).row(0, named=True)
    assert (row["records"], row["removed"], row["verdict"]) == (60, 30, "more")
    assert row["removed_ratio"] == 0.5
    assert row["others_ratio"] == 12 / 181
    # One record: three times as often is nothing to shout about.
    team = table.filter((pl.col("value") == "team/blue") & (pl.col("rule") == "toxic_term_count")).row(0, named=True)
    assert (team["removed"], team["verdict"]) == (1, None)
    groups = found.groups.filter(pl.col("group") == "gender/women").row(0, named=True)
    assert (groups["records"], groups["kept"]) == (60, 30)


def test_weights_reach_the_stream(cleaned) -> None:
    store = Store.of(cleaned.settings)
    with cleaned.read() as session:
        version = session.scalars(select(Version).where(Version.kind == "curated")).one()
        records = curated.read_records(store, version)
        balance = version.summary["balance"]["values"]
    assert [round(one["share_after"], 9) for one in balance] == [0.5, 0.5]
    labelled = with_labels(records, pl.DataFrame(schema={"id": pl.String, "answer": pl.String}), "given")
    data = TrainingData.build(labelled)
    stream = Stream(manifest=data.manifest, pacing="random", options={}, seed=1, total_steps=50, global_batch_size=8)
    rare = data.classes.index("rare")
    drawn = [data.labels[row] for step in range(50) for row in stream.batch(step)]
    assert drawn.count(rare) / len(drawn) == pytest.approx(0.5, abs=0.02)
    assert (records["label"] == "rare").mean() < 0.25


def test_surplus_leaves_with_its_reason(cleaned, tmp_path: Path) -> None:
    capped = RECIPE.replace(
        "{by: label, action: reweight, target: {rare: 1, common: 1}}", "{by: label, action: cap, cap: 20}"
    )
    clean_dataset(cleaned, tmp_path, rows(), capped)
    with cleaned.read() as session:
        dataset = session.scalars(select(Dataset)).one()
        run = session.scalars(select(Run).where(Run.kind == "clean").order_by(Run.created_at.desc())).first()
        reasons = session.scalars(select(Verdict.reason).where(Verdict.run_id == run.id, ~Verdict.kept)).all()
        found = fairness(session, Store.of(cleaned.settings), run)
        version = session.scalars(select(Version).where(Version.run_id == run.id)).one()
    assert dataset.name == "tickets"
    assert (
        run.result["dropped"]["balance"]
        == reasons.count("balance")
        == run.result["records"] - len([one for one in reasons if one != "balance"]) - version.num_records
    )
    assert curated.read_records(Store.of(cleaned.settings), version)["label"].value_counts()["count"].to_list() == [
        20,
        20,
    ]
    common = found.removals.filter((pl.col("value") == "common") & (pl.col("rule") == "balance")).row(0, named=True)
    assert common["verdict"] == "more"
