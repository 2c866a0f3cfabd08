"""Which files an ingest reads and which it leaves to others, and that every rejected row is listed."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from catalog.database import Catalog
from catalog.errors import ConfigError
from catalog.store import Store, StoredFile
from catalog.tables.datasets import Quarantined, Shard, Source, Version
from catalog.tables.engine import Run, Unit
from tests.workers.building import ME, drain
from tests.workers.corpus import sentences
from tests.workers.test_determinism import make_catalog
from tests.workers.test_pipelines import write_rows
from workers import manifests, outbox, runs
from workers.execution import execute
from workers.pipelines.ingest import Asked, submit_ingest

SHARD_ROWS = 20


@pytest.fixture(params=["sqlite", "postgresql"])
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalog]:
    """A migrated home with shards of 20 rows, on SQLite and on PostgreSQL."""
    url = request.getfixturevalue("new_empty_postgres") if request.param == "postgresql" else ""
    made = make_catalog(tmp_path / "home", database_url=url)
    assert made.settings.shard_rows == SHARD_ROWS
    yield made
    made.close()


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Paths of three files of five records, by name."""
    return {
        name: write_rows(tmp_path / f"{name}.jsonl", sentences(5, seed=number)) for number, name in enumerate("acd")
    }


def ask(catalog: Catalog, *paths: str, encoding: str = "utf-8") -> Asked:
    return submit_ingest(
        catalog, dataset="tickets", paths=list(paths), text_column="body", label_column="queue", encoding=encoding
    )


def published(catalog: Catalog) -> list[list[str]]:
    """The files of every version, one name a shard."""
    store = Store.of(catalog.settings)
    with catalog.read() as session:
        versions = session.scalars(select(Version).order_by(Version.number)).all()
    return [[Path(entry["source"]).stem for entry in manifests.read(store, one)["shards"]] for one in versions]


def test_a_file_that_a_running_run_reads_is_left_to_it(catalog: Catalog, files: dict[str, str]) -> None:
    both = ask(catalog, files["a"], files["c"])
    assert both.run_id is not None
    assert ask(catalog, files["c"], files["a"]) == both
    assert ask(catalog, files["a"]) == Asked(None, {}, {files["a"]: both.run_id})
    mixed = ask(catalog, files["d"], files["a"])
    assert mixed.run_id not in (None, both.run_id)
    assert mixed.others == {files["a"]: both.run_id}
    drain(catalog)
    assert sorted(published(catalog)[-1]) == ["a", "c", "d"]
    with catalog.read() as session:
        assert session.scalar(select(Version.num_records).order_by(Version.number.desc()).limit(1)) == 15
        owners = {Path(name).stem: run_id for name, run_id in session.execute(select(Source.name, Source.run_id))}
    assert owners == {"a": both.run_id, "c": both.run_id, "d": mixed.run_id}
    assert ask(catalog, files["a"]) == Asked(None, {files["a"]: "these bytes are in 'tickets' already"}, {})


def test_a_cancelled_run_holds_no_file(catalog: Catalog, files: dict[str, str]) -> None:
    both = ask(catalog, files["a"], files["c"])
    with catalog.write() as session:
        runs.cancel(session, session.get_one(Run, both.run_id), catalog.now(session))
    alone = ask(catalog, files["a"])
    assert alone.run_id not in (None, both.run_id)
    assert alone.others == {}
    # Asked for again, the cancelled run would read a file that another now reads.
    rest = ask(catalog, files["a"], files["c"])
    assert rest.run_id not in (both.run_id, alone.run_id)
    assert rest.others == {files["a"]: alone.run_id}
    drain(catalog)
    assert sorted(published(catalog)[-1]) == ["a", "c"]


def test_records_that_another_run_brought_meanwhile_are_not_doubled(catalog: Catalog, files: dict[str, str]) -> None:
    both = ask(catalog, files["a"], files["c"])
    for _ in range(2):
        message_id, _, (unit_id,), _ = outbox.unsent(catalog)[0]
        assert execute(catalog, unit_id, owner=ME()) == "done"
        outbox.mark_sent(catalog, message_id)
    with catalog.write() as session:
        runs.cancel(session, session.get_one(Run, both.run_id), catalog.now(session))
    alone = ask(catalog, files["a"])
    drain(catalog)
    assert published(catalog) == [["a"]]
    with catalog.write() as session:
        runs.resume(session, session.get_one(Run, both.run_id), catalog.now(session))
    drain(catalog)
    assert published(catalog) == [["a"], ["a", "c"]]
    with catalog.read() as session:
        run = session.get_one(Run, both.run_id)
        owners = {Path(name).stem: run_id for name, run_id in session.execute(select(Source.name, Source.run_id))}
    assert (run.state, run.result["records"], run.result["skipped"]) == ("done", 5, [files["a"]])  # type: ignore[index]
    assert owners == {"a": alone.run_id, "c": both.run_id}


def test_a_run_whose_files_are_all_in_by_now_publishes_nothing(catalog: Catalog, files: dict[str, str]) -> None:
    first = ask(catalog, files["a"])
    with catalog.write() as session:
        runs.cancel(session, session.get_one(Run, first.run_id), catalog.now(session))
    ask(catalog, files["a"], files["c"])
    drain(catalog)
    with catalog.write() as session:
        runs.resume(session, session.get_one(Run, first.run_id), catalog.now(session))
    drain(catalog)
    assert published(catalog) == [["a", "c"]]
    with catalog.read() as session:
        result = session.get_one(Run, first.run_id).result
    assert result is not None
    assert (result["version"], result["records"], result["skipped"]) == (None, 0, [files["a"]])


def test_of_equal_files_the_smallest_name_goes_in_and_the_others_are_named(
    tmp_path: Path, files: dict[str, str]
) -> None:
    copies = [write_rows(tmp_path / f"{name}.jsonl", sentences(5, seed=0)) for name in ("b", "copy")]
    manifest_names = set()
    for number, order in enumerate(([copies[1], files["a"], copies[0]], [files["a"], *copies, files["a"]])):
        catalog = make_catalog(tmp_path / f"home{number}")
        asked = ask(catalog, *order, files["c"])
        assert asked.skipped == dict.fromkeys(copies, f"the same bytes as {files['a']}")
        drain(catalog)
        assert published(catalog) == [["a", "c"]]
        with catalog.read() as session:
            manifest_names.add(session.scalars(select(Version.manifest_name)).one())
        catalog.close()
    assert len(manifest_names) == 1


def test_hashing_tells_how_many_bytes_are_done(catalog: Catalog, tmp_path: Path, files: dict[str, str]) -> None:
    big = tmp_path / "big.jsonl"
    big.write_bytes(b'{"body": "' + b"x" * 3_000_000 + b'"}\n')
    told: list[tuple[int, int]] = []
    submit_ingest(
        catalog,
        dataset="tickets",
        paths=[files["a"], str(big)],
        text_column="body",
        label_column="queue",
        on_hash=lambda done, total: told.append((done, total)),
    )
    total = big.stat().st_size + Path(files["a"]).stat().st_size
    assert {one for _, one in told} == {total}
    assert len(told) >= 4
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert told[-1] == (total, total)


def test_every_rejected_row_is_listed_by_way_of_bounded_shards(catalog: Catalog, tmp_path: Path) -> None:
    lines = [b'{"body": "half' if number % 3 else b'{"body": "a good line"}' for number in range(1, 301)]
    path = tmp_path / "dirty.jsonl"
    path.write_bytes(b"\n".join([*lines, b'{"body": 5}']))
    asked = ask(catalog, str(path))
    drain(catalog)
    expected = [(number, "invalid_json") for number in range(1, 301) if number % 3] + [(301, "text_not_string")]
    with catalog.read() as session:
        listed = session.execute(select(Quarantined.line, Quarantined.reason).order_by(Quarantined.line)).all()
        shards = session.scalars(select(Shard).where(Shard.kind == "rejected").order_by(Shard.position)).all()
        source = session.scalars(select(Source)).one()
        result = session.get_one(Run, asked.run_id).result
    assert [tuple(one) for one in listed] == expected
    assert (source.num_records, source.num_rejected) == (100, 201)
    assert result is not None
    assert (result["rejected"], result["reasons"]) == (201, {"invalid_json": 200, "text_not_string": 1})
    assert sum(one.num_rows for one in shards) == 201
    assert len(shards) > 1
    assert max(one.num_rows for one in shards) <= 2 * SHARD_ROWS
    # Each in a transaction of its own: no other writer waits for all of them.
    with catalog.read() as session:
        units = session.scalars(select(Unit).where(Unit.run_id == asked.run_id, Unit.stage_name == "quarantine")).all()
    assert [one.state for one in units] == ["done"] * len(shards)


def test_rows_rejected_in_an_encoding_that_was_given_up_are_listed_no_more(catalog: Catalog, tmp_path: Path) -> None:
    path = tmp_path / "korean.jsonl"
    path.write_bytes("".join(f'{{"body": "환불 문의 {n}"}}\n' for n in range(5)).encode("cp949") + b"{\n")
    wrong = ask(catalog, str(path))
    for _ in range(2):
        message_id, _, (unit_id,), _ = outbox.unsent(catalog)[0]
        assert execute(catalog, unit_id, owner=ME()) == "done"
        outbox.mark_sent(catalog, message_id)
    with catalog.write() as session:
        assert session.scalar(select(func.count()).select_from(Quarantined)) == 6
        runs.cancel(session, session.get_one(Run, wrong.run_id), catalog.now(session))
    ask(catalog, str(path), encoding="cp949")
    drain(catalog)
    with catalog.read() as session:
        assert [tuple(one) for one in session.execute(select(Quarantined.line, Quarantined.reason))] == [
            (6, "invalid_json")
        ]


def test_ids_go_on_counting_from_what_the_dataset_has(catalog: Catalog, tmp_path: Path) -> None:
    same = [{"body": "오늘도 같은 말", "queue": "a"}]
    ask(catalog, write_rows(tmp_path / "z.jsonl", same * 25))
    drain(catalog)
    ask(catalog, write_rows(tmp_path / "b.jsonl", same * 3), write_rows(tmp_path / "a.jsonl", same * 21))
    drain(catalog)
    store = Store.of(catalog.settings)
    with catalog.read() as session:
        version = session.scalars(select(Version).where(Version.number == 2)).one()
    ids: dict[str, list[str]] = {}
    for entry in manifests.read(store, version)["shards"]:
        frame = store.read_frame(StoredFile.from_json(entry["data"]), ["id"])
        ids.setdefault(Path(entry["source"]).stem, []).extend(frame["id"])
    counters = {name: [int(one.split("-")[1]) for one in found] for name, found in ids.items()}
    assert counters == {"z": list(range(25)), "a": list(range(25, 46)), "b": list(range(46, 49))}


def test_columns_of_a_first_try_that_brought_nothing_can_be_mended(catalog: Catalog, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"body": "환불 문의합니다", "queue": "a"}])
    asked = {"dataset": "tickets", "paths": [path], "label_column": None}
    submit_ingest(catalog, text_column="txt", **asked)
    drain(catalog)
    submit_ingest(catalog, text_column="body", **asked)
    drain(catalog)
    with catalog.read() as session:
        assert session.scalars(select(Version.num_records)).all() == [1]
    with pytest.raises(ConfigError, match="--text body without --label, not --text txt without --label"):
        submit_ingest(catalog, text_column="txt", **asked)


def test_file_of_which_no_row_went_in_can_be_tried_in_its_own_encoding(catalog: Catalog, tmp_path: Path) -> None:
    path = tmp_path / "korean.jsonl"
    path.write_bytes("".join(f'{{"body": "환불 문의 {n}"}}\n' for n in range(5)).encode("cp949"))
    ask(catalog, str(path))
    drain(catalog)
    ask(catalog, str(path), encoding="cp949")
    drain(catalog)
    with catalog.read() as session:
        assert session.scalars(select(Version.num_records)).all() == [5]
        assert session.scalar(select(func.count()).select_from(Quarantined)) == 0
    assert ask(catalog, str(path), encoding="cp949").run_id is None
