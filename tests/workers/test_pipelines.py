"""What the job kinds do with real text, and what they answer to wrong input."""

import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from sqlalchemy import func, select

from catalog.database import Catalog
from catalog.errors import ConfigError, DataError, NotFoundError
from catalog.store import Store, StoredFile
from catalog.tables.curation import Verdict
from catalog.tables.datasets import Quarantined, Source, Version
from catalog.tables.engine import Run, Unit
from catalog.tables.labeling import LabelQueue, LabelRound
from catalog.tables.training import Evaluation, LossPoint
from curation.recipe import load_recipe
from labeling import queue as queues
from labeling.schema import parse_schema
from tests.workers.building import clean_dataset, drain
from tests.workers.corpus import LABELS, RECIPE, sentences
from tests.workers.test_determinism import ask_clean, ask_ingest, make_catalog
from training.recipe import TrainRecipe
from training.stream import StreamManifest
from workers import curated, manifests
from workers.biography import biography
from workers.jobs import submit_run
from workers.labeling import label_counts, open_queue, refresh_if_due
from workers.learnable import annotated_labels
from workers.pipelines.clean import submit_clean
from workers.pipelines.ingest import submit_ingest
from workers.pipelines.train import submit_train

SCHEMA = "question: Which queue?\nlabels:\n" + "".join(f"  - name: {name}\n" for name in LABELS)
TINY = """
name: tiny
test_share: 0.3
compressions: [int8]
max_tokens: 16
arms:
  - name: small
    backbone: small
    backbone_options: {dim: 16, num_layers: 1, num_heads: 2, vocab_size: 300}
    pacing: linear
    steps: 6
    batch_size: 8
    checkpoint_every: 2
"""


def write_rows(path: Path, rows: list[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """A home with one cleaned dataset of 300 records."""
    folder = tmp_path_factory.mktemp("cleaned")
    catalog = make_catalog(folder / "home")
    ask_ingest(catalog, [write_rows(folder / "a.jsonl", sentences(300, seed=3))])
    drain(catalog)
    ask_clean(catalog, folder)
    drain(catalog)
    return catalog


def newest(catalog: Catalog, kind: str) -> Run:
    with catalog.read() as session:
        return session.scalars(select(Run).where(Run.kind == kind).order_by(Run.created_at.desc())).first()  # type: ignore[return-value]


def ingest(catalog: Catalog, paths: list[str], **options: str) -> Run:
    submit_ingest(catalog, dataset="tickets", paths=paths, text_column="body", label_column="queue", **options)
    drain(catalog)
    return newest(catalog, "ingest")


def test_bad_rows_are_set_aside_with_line_and_reason_and_the_rest_goes_in(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path / "home")
    rows = [json.dumps(row, ensure_ascii=False).encode() for row in sentences(40, seed=1)]
    rows[4] = b'{"body": "half'
    rows[7] = b"\xff\xfe"
    rows[9] = b'{"body": "with \\u0000 inside"}'
    path = tmp_path / "dirty.jsonl"
    path.write_bytes(b"\n".join(rows))
    run = ingest(catalog, [str(path)])
    assert run.state == "done"
    assert run.result is not None
    assert (run.result["records"], run.result["rejected"], run.result["labelled"]) == (37, 3, 37)
    with catalog.read() as session:
        found = session.execute(select(Quarantined.line, Quarantined.reason).order_by(Quarantined.line)).all()
        source = session.scalars(select(Source)).one()
    assert [line for line, _ in found] == [5, 8, 10]
    assert len({reason for _, reason in found}) == 3
    assert (source.num_records, source.num_rejected, source.refused) == (37, 3, None)


def test_a_refused_file_stops_no_other_and_can_be_mended(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path / "home")
    good = write_rows(tmp_path / "good.jsonl", sentences(20, seed=1))
    bad = tmp_path / "bad.jsonl.gz"
    whole = gzip.compress(Path(write_rows(tmp_path / "x", sentences(200, seed=2))).read_bytes())
    bad.write_bytes(whole[: len(whole) // 2])
    run = ingest(catalog, [good, str(bad)])
    assert run.result is not None
    assert run.result["records"] == 20
    assert list(run.result["refused"]) == [str(bad)]
    assert ingest(catalog, [good, str(bad)]).result["refused"]  # type: ignore[index]
    bad.write_bytes(whole)
    again = ingest(catalog, [good, str(bad)])
    assert again.result is not None
    assert (again.result["records"], again.result["refused"]) == (200, {})
    with catalog.read() as session:
        assert session.scalar(select(Version.num_records).order_by(Version.number.desc()).limit(1)) == 220


def test_the_same_bytes_are_ingested_once_and_new_ones_are_added(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path / "home")
    first = write_rows(tmp_path / "a.jsonl", sentences(20, seed=1))
    ingest(catalog, [first])
    copy = write_rows(tmp_path / "copy.jsonl", sentences(20, seed=1))
    asked = submit_ingest(catalog, dataset="tickets", paths=[copy], text_column="body", label_column="queue")
    assert (asked.run_id, list(asked.skipped)) == (None, [copy])
    twice = write_rows(tmp_path / "b.jsonl", sentences(20, seed=1)[:5] + sentences(3, seed=8))
    ingest(catalog, [twice])
    with catalog.read() as session:
        version = manifests.latest_version(session, session.scalars(select(Source.dataset_id)).first() or "", "raw")
        assert version is not None
        entries = manifests.read(Store.of(catalog.settings), version)["shards"]
    store = Store.of(catalog.settings)
    from catalog.store import StoredFile

    ids = pl.concat([store.read_frame(StoredFile.from_json(entry["data"]), ["id"]) for entry in entries])["id"]
    assert ids.n_unique() == 28
    assert sum(one.endswith("-1") for one in ids) >= 5


def test_another_encoding_is_read_when_named(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path / "home")
    path = tmp_path / "korean.jsonl"
    text = "\n".join(json.dumps({"body": f"환불 문의 {n}", "queue": "a"}, ensure_ascii=False) for n in range(5))
    path.write_bytes(text.encode("cp949"))
    with pytest.raises(ConfigError, match="encoding='cp94x' is unknown"):
        ingest(catalog, [str(path)], encoding="cp94x")
    assert ingest(catalog, [str(path)], encoding="cp949").result["records"] == 5  # type: ignore[index]


def test_wrong_asking_is_refused_before_anything_exists(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path / "home")
    path = write_rows(tmp_path / "a.jsonl", sentences(20, seed=1))
    with pytest.raises(DataError, match=r"is no dataset folder: .* give files, e\.g\. .*\*\.jsonl\.gz"):
        ingest(catalog, [str(tmp_path / "home" / "store")])
    with pytest.raises(DataError, match="does not exist"):
        ingest(catalog, [str(tmp_path / "none.jsonl")])
    with pytest.raises(ConfigError, match=r"dataset name '\.\./x' must be"):
        submit_ingest(catalog, dataset="../x", paths=[path], text_column="body", label_column=None)
    with pytest.raises(NotFoundError, match="there is no dataset 'tickets'; none exist yet"):
        submit_clean(catalog, dataset="tickets", recipe=load_recipe("short-text"))
    ingest(catalog, [path])
    with pytest.raises(ConfigError, match="was made with --text body --label queue"):
        submit_ingest(catalog, dataset="tickets", paths=[path], text_column="text", label_column=None)
    with pytest.raises(NotFoundError, match="has no curated version yet; run `winnow clean tickets"):
        label_counts(catalog, "tickets")


def test_a_file_that_changes_after_asking_is_noticed(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path / "home")
    path = write_rows(tmp_path / "a.jsonl", sentences(20, seed=1))
    ask_ingest(catalog, [path])
    write_rows(tmp_path / "a.jsonl", sentences(21, seed=1))
    drain(catalog)
    assert "changed since the ingest was asked for" in (newest(catalog, "ingest").reason or "")


def test_biographies_tell_origin_values_and_duplicates(cleaned: Catalog) -> None:
    store = Store.of(cleaned.settings)
    with cleaned.read() as session:
        dataset = manifests.find_dataset(session, "tickets")
        stories = [
            biography(session, store, dataset, record_id)
            for record_id in session.scalars(select(func.min(Verdict.record_id)).group_by(Verdict.reason))
        ]
        kept = next(story for story in stories if story["verdict"] == "kept")
        near = next(story for story in stories if story["reason"] == "near_duplicate")
        short = next(story for story in stories if story["reason"] == "char_count")
        assert biography(session, store, dataset, kept["record"][:20])["record"] == kept["record"]
        with pytest.raises(NotFoundError, match="there is no record 'ffffffffffff' among 300"):
            biography(session, store, dataset, "ffffffffffff")
        with pytest.raises(NotFoundError):
            biography(session, store, dataset, near["record"][:5])
        keeper = biography(session, store, dataset, near["duplicate_of"]["kept"])
    rows = sentences(300, seed=3)
    for story in stories:
        assert rows[story["origin"]["line"] - 1]["body"] == story["text"]
        assert story["origin"]["file"].endswith("a.jsonl")
    assert [rule["rule"] for rule in kept["rules"]] == ["char_count", "word_count"]
    assert near["duplicate_of"]["jaccard"] >= 0.7
    assert near["record"] in [one["record"] for one in keeper["duplicates"]]
    assert short["rules"][0] == {
        "rule": "char_count",
        "version": 1,
        "measured": float(len(short["text"])),
        "minimum": 10.0,
        "maximum": 1_000_000.0,
        "passed": False,
    }
    assert 0 <= kept["scores"]["difficulty"] <= 1


def test_nobody_stands_behind_a_record_that_left(cleaned: Catalog) -> None:
    from catalog.tables.curation import DuplicatePair

    with cleaned.read() as session:
        accepted = session.scalars(select(DuplicatePair).where(DuplicatePair.accepted)).all()
        exact = session.scalars(select(DuplicatePair).where(DuplicatePair.kind == "exact")).all()
    assert exact
    assert not {one.keeper_id for one in accepted} & {one.record_id for one in accepted}
    assert len({one.record_id for one in accepted}) == len(accepted)


def test_a_curated_version_reads_back_aligned(cleaned: Catalog) -> None:
    store = Store.of(cleaned.settings)
    with cleaned.read() as session:
        dataset = manifests.find_dataset(session, "tickets")
        version = manifests.require_version(session, dataset, "curated")
    records = curated.read_records(store, version)
    vectors = curated.read_embeddings(store, version)
    assert records.height == version.num_records == len(vectors)
    assert records["id"].n_unique() == records.height
    assert records["difficulty"].is_between(0, 1).all()
    from curation.encoders import ENCODERS

    expected = ENCODERS["hashing"].member(records["text"].to_list()[:5], cleaned.settings.home)
    assert abs(vectors[:5] - expected).max() < 1e-5
    assert label_counts(cleaned, "tickets").keys() == set(LABELS)


def test_a_queue_is_filled_refilled_and_measured(cleaned: Catalog) -> None:
    queue_id, _, state = open_queue(
        cleaned,
        dataset="tickets",
        name="q",
        schema=parse_schema(SCHEMA),
        strategy="margin",
        held_out_share=0.3,
        refresh_every=6,
        num_entries=10,
    )
    assert state == "new"
    drain(cleaned)
    assert refresh_if_due(cleaned, queue_id) is None
    asked: list[str] = []
    for number in range(12):
        with cleaned.write() as session:
            now = cleaned.now(session)
            served = queues.next_task(session, now=now, queue_id=queue_id, annotator_id="ann")
            assert isinstance(served, queues.Served)
            asked.append(served.record_id)
            queues.submit(
                session,
                now=now,
                lease_id=served.lease_id,
                annotator_id="ann",
                value=LABELS[number % 3],
                key=f"answer-{number}",
            )
        if refresh_if_due(cleaned, queue_id) is not None:
            assert refresh_if_due(cleaned, queue_id) is None
            drain(cleaned)
    assert len(set(asked)) == 12
    with cleaned.read() as session:
        found = session.get_one(LabelQueue, queue_id)
        rounds = session.scalars(select(LabelRound).where(LabelRound.queue_id == queue_id)).all()
        labels = annotated_labels(session, found.dataset_id)
    assert found.generation == 3
    assert [one.num_labels for one in rounds] == [6, 12]
    assert labels.keys() >= set(asked)


def test_training_measures_every_arm_and_variant(cleaned: Catalog) -> None:
    recipe = TrainRecipe.from_yaml(TINY, name="tiny")
    run_id, state = submit_train(cleaned, dataset="tickets", recipe=recipe)
    assert state == "new"
    drain(cleaned)
    run = newest(cleaned, "train")
    assert run.state == "done", run.reason
    with cleaned.read() as session:
        rows = session.scalars(select(Evaluation).where(Evaluation.run_id == run_id)).all()
        steps = session.execute(
            select(LossPoint.arm, func.count()).where(LossPoint.run_id == run_id).group_by(LossPoint.arm)
        ).all()
    assert {(row.arm, row.variant) for row in rows} == {("small", "none"), ("small", "int8"), ("small-random", "none")}
    assert {tuple(row) for row in steps} == {("small", 6), ("small-random", 6)}
    assert all(0 <= row.accuracy <= 1 and row.latency_ms > 0 and row.flops > 0 and row.size_bytes > 0 for row in rows)
    assert run.result is not None
    (comparison,) = run.result["comparisons"]
    assert comparison["low"] <= comparison["difference"] <= comparison["high"]
    assert comparison["verdict"] in ("paid", "did worse than random order", "no gain shown")
    assert submit_train(cleaned, dataset="tickets", recipe=recipe) == (run_id, "done")
    assert not (cleaned.settings.home / "checkpoints" / run_id).exists()


MIXED = """
labels: given
test_share: 0.3
compressions: []
max_tokens: 16
arms:
  - name: mixed
    backbone_options: {dim: 16, num_layers: 1, num_heads: 2, vocab_size: 300}
    pacing: mixture
    pacing_options: {shares: {SOURCE: 1}, start: 0.5}
    steps: 4
    batch_size: 8
"""
PACED = """
labels: given
test_share: 0.3
compressions: []
max_tokens: 16
compare: none
arms:
  - name: paced
    backbone_options: {dim: 16, num_layers: 1, num_heads: 2, vocab_size: 300}
    pacing: self_paced
    pacing_options: {every: 2}
    steps: 4
    batch_size: 8
"""


def trained(catalog: Catalog, recipe: TrainRecipe) -> tuple[Run, list[Unit]]:
    run_id, _ = submit_train(catalog, dataset="tickets", recipe=recipe)
    drain(catalog)
    with catalog.read() as session:
        run = session.get_one(Run, run_id)
        units = session.scalars(
            select(Unit).where(Unit.run_id == run_id, Unit.stage == 1).order_by(Unit.position)
        ).all()
    return run, list(units)


@pytest.mark.no_cover
def test_every_control_is_run_at_equal_steps_and_the_verdict_has_an_interval(cleaned: Catalog) -> None:
    # Long enough that no text is cut: all would cost alike.
    text = MIXED.replace("SOURCE", "a.jsonl").replace("max_tokens: 16", "max_tokens: 64")
    recipe = TrainRecipe.from_yaml(text, name="compared").compared(2)
    run, units = trained(cleaned, recipe)
    assert run.state == "done", run.reason
    result: dict[str, Any] = run.result or {}
    assert [(one["arm"], one["control"], one["seeds"], one["steps"]) for one in result["comparisons"]] == [
        ("mixed", "mixed-random", 2, 4),
        ("mixed", "mixed-anti", 2, 4),
        ("mixed", "mixed-same-pacing", 2, 4),
    ]
    # Two models that have hardly learned may predict the same, whatever their order was.
    assert all(one["low"] <= one["difference"] <= one["high"] for one in result["comparisons"])
    assert any(one["low"] < one["high"] for one in result["comparisons"])
    # A few steps of a tiny model show nothing, and that is said.
    assert result["curricula"] == [{"arm": "mixed", "verdict": "no gain shown"}]
    # All are of one shape, and operations are counted on the same texts whatever the seed.
    assert len({one["flops"] for one in result["variants"]}) == 1
    assert len(units) == 8
    assert all(0 <= (one.result or {})["stream_wait_share"] < 1 for one in units)
    assert not (cleaned.settings.home / "tokens" / run.id).exists()


def test_manifests_published_during_a_training_are_kept_with_it(cleaned: Catalog) -> None:
    run, (unit,) = trained(cleaned, TrainRecipe.from_yaml(PACED, name="paced"))
    assert run.state == "done", run.reason
    (published,) = (unit.result or {})["manifests"]
    frame = Store.of(cleaned.settings).read_frame(StoredFile.from_json(published["file"]))
    assert (published["step"], published["digest"]) == (2, StreamManifest.build(frame).digest)
    assert set(frame["label_version"]) == {"given"}
    with cleaned.read() as session:
        measured = session.execute(select(Verdict.record_id, Verdict.measured).where(Verdict.kept)).all()
    told = {record_id: one["language"] for record_id, one in measured}
    assert len(set(told.values())) > 1
    for record_id, slices in frame.select("id", "slices").rows():
        source, *language, of_class = slices
        assert (source, of_class.partition(":")[0]) == ("source:a.jsonl", "class")
        assert language == [f"language:{told[record_id]}"] * (told[record_id] is not None)
    assert set(frame["slices"].list.last()) == {f"class:{name}" for name in LABELS}
    assert (run.result or {})["curricula"] == []


def test_a_source_that_is_not_there_fails_before_any_arm_is_trained(cleaned: Catalog) -> None:
    run, units = trained(cleaned, TrainRecipe.from_yaml(MIXED.replace("SOURCE", "b.jsonl"), name="astray"))
    assert run.state == "failed"
    assert "names source 'b.jsonl', which has no record to draw; did you mean 'a.jsonl'" in (run.reason or "")
    assert units == []


@pytest.mark.no_cover
def test_a_training_takes_the_labels_of_the_moment_it_was_asked_for(cleaned: Catalog) -> None:
    queue_id = open_queue(
        cleaned, dataset="tickets", name="late", schema=parse_schema(SCHEMA), strategy="random", num_entries=10
    )[0]
    drain(cleaned)

    def answer(key: str) -> tuple[str, str]:
        """The next record gets a label that it was not given."""
        with cleaned.write() as session:
            now = cleaned.now(session)
            served = queues.next_task(session, now=now, queue_id=queue_id, annotator_id="late")
            assert isinstance(served, queues.Served)
            value = next(name for name in LABELS if name != given[served.record_id])
            queues.submit(
                session, now=now, lease_id=served.lease_id, annotator_id="late", value=value, key=f"{queue_id}-{key}"
            )
        return served.record_id, value

    store = Store.of(cleaned.settings)
    with cleaned.read() as session:
        dataset = manifests.find_dataset(session, "tickets")
        version = manifests.require_version(session, dataset, "curated")
        before = annotated_labels(session, dataset.id)
    records = curated.read_records(store, version)
    given = dict(records.select("id", "label").iter_rows())
    early, value = answer("early")
    recipe = TrainRecipe.from_yaml(TINY.replace("name: tiny", "name: snapshot"), name="snapshot")
    run_id, state = submit_train(cleaned, dataset="tickets", recipe=recipe)
    late, _ = answer("late")
    assert (state, late in before) == ("new", False)
    drain(cleaned)
    with cleaned.read() as session:
        run = session.get_one(Run, run_id)
        assert run.state == "done", run.reason
        prepared = session.scalars(select(Unit).where(Unit.run_id == run_id, Unit.stage == 0)).one()
        files = [file for kind in ("train", "test") for file in manifests.unit_files(session, prepared.id, kind)]
    labels = dict(pl.concat([store.read_frame(file, ["id", "label"]) for file in files]).iter_rows())
    assert (labels[early], labels[late]) == (value, given[late])
    # Asked for now, it is another run: there is one label more.
    assert submit_train(cleaned, dataset="tickets", recipe=recipe)[1] == "new"
    drain(cleaned)


def test_training_without_labels_says_what_brings_them(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path / "home")
    path = write_rows(tmp_path / "a.jsonl", [{"body": row["body"]} for row in sentences(60, seed=1)])
    submit_ingest(catalog, dataset="bare", paths=[path], text_column="body", label_column=None)
    drain(catalog)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    submit_clean(catalog, dataset="bare", recipe=load_recipe(str(recipe)))
    drain(catalog)
    for attempt in (
        lambda: submit_train(catalog, dataset="bare", recipe=TrainRecipe.from_yaml(TINY, name="tiny")),
        lambda: label_counts(catalog, "bare"),
    ):
        with pytest.raises(DataError, match="has no labels; ingest it with --label COLUMN, or collect some"):
            attempt()


def test_jobs_are_asked_for_by_kind_and_preset_only(cleaned: Catalog) -> None:
    def ask(kind: str, **config: str) -> str:
        return submit_run(cleaned, kind=kind, dataset="tickets", config=config)

    with pytest.raises(ConfigError, match="there is no job kind 'clan' to ask for; did you mean 'clean'"):
        ask("clan")
    with pytest.raises(ConfigError, match="unknown option 'recpie'; did you mean 'recipe'"):
        ask("clean", recpie="short-text")
    with pytest.raises(ConfigError, match="there is no clean recipe '/etc/passwd'"):
        ask("clean", recipe="/etc/passwd")
    with pytest.raises(ConfigError, match="did you mean 'classify'"):
        ask("train", recipe="clasify")
    assert ask("clean", recipe="web-text") == newest(cleaned, "clean").id


@pytest.mark.no_cover
def test_a_recipe_without_rules_drops_duplicates_alone(cleaned: Catalog, tmp_path: Path) -> None:
    recipe = tmp_path / "bare.yaml"
    recipe.write_text("name: bare\nnear: {threshold: 0.7, bands: 20, rows: 5}\nencoder: hashing\n")
    submit_clean(cleaned, dataset="tickets", recipe=load_recipe(str(recipe)))
    drain(cleaned)
    run = newest(cleaned, "clean")
    assert run.state == "done", run.reason
    assert run.result is not None
    assert run.result["dropped"].keys() == {"exact_duplicate", "near_duplicate"}
    assert run.result["kept"] + sum(run.result["dropped"].values()) == 300


def test_an_earlier_recipe_asked_for_again_becomes_the_newest_version(database: Catalog, tmp_path: Path) -> None:
    other = RECIPE.replace("name: small", "name: other")
    assert other != RECIPE
    rows = sentences(40, seed=5)
    asked = []
    for recipe in (RECIPE, other, RECIPE, RECIPE, other, RECIPE):
        clean_dataset(database, tmp_path, rows, recipe)
        with database.read() as session:
            dataset = manifests.find_dataset(session, "tickets")
            version = manifests.require_version(session, dataset, "curated")
            asked.append((version.number, version.summary["recipe"], version.manifest_sha256))
    assert [one[:2] for one in asked] == [
        (2, "small"),
        (3, "other"),
        (4, "small"),
        (4, "small"),
        (5, "other"),
        (6, "small"),
    ]
    assert len({manifest for _, name, manifest in asked if name == "small"}) == 1
    with database.read() as session:
        newest = session.scalars(
            select(Version).where(Version.kind == "curated").order_by(Version.number.desc())
        ).first()
        assert newest is not None
        runs_before = session.scalar(select(func.count()).select_from(Run))
    again = load_recipe(str(tmp_path / "recipe.yaml"))
    assert submit_clean(database, dataset="tickets", recipe=again) == (newest.run_id, "done")
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Run)) == runs_before


def test_explaining_a_row_that_was_set_aside_gives_its_reason(database: Catalog, tmp_path: Path) -> None:
    Store.of(database.settings).create()
    path = tmp_path / "dirty_.jsonl"
    path.write_text('{"body": "a whole text"}\n{"body": "half\n')
    ingest(database, [str(path)])
    with database.read() as session:
        dataset, store = manifests.find_dataset(session, "tickets"), Store.of(database.settings)
        for name in (str(path), "dirty_.jsonl"):
            with pytest.raises(
                NotFoundError, match=r"line 2 was set aside by ingest and is no record: .*winnow rejected"
            ):
                biography(session, store, dataset, f"{name}:2")
        assert biography(session, store, dataset, "dirty_.jsonl:1")["origin"]["line"] == 1
        with pytest.raises(NotFoundError, match=r"there is no record 'dirtyx\.jsonl:2'"):
            biography(session, store, dataset, "dirtyx.jsonl:2")
