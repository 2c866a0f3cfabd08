"""Rows that cannot be records and numbers that JSON lacks: the same answer on both databases, each row in one place."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import String, cast, select

from catalog.database import Catalog
from catalog.tables.datasets import Quarantined, Version
from catalog.tables.engine import Run
from tests.faults.world import World
from tests.workers.building import add_dataset, add_run, drain

NUM_ROWS, RAGGED = 10_000, (2, 999, 1_000, 1_001, 3_333, 5_000, 7_777, 9_998, 9_999, 10_001)
"""Lines, of which the header is the first."""
ODD = [
    b'{"body": "a number that JSON lacks", "x": NaN, "y": [Infinity, -Infinity]}',
    b'{"body": "a lone surrogate \\ud800 in the text"}',
    b'{"body": "a lone surrogate elsewhere", "x": "\\udfff"}',
    b'{"body": "a NUL \\u0000 in the text"}',
    b'{"body": "a NUL elsewhere", "x": "\\u0000"}',
    b'{"body": "no UTF-8 \xff in the text"}',
    b'{"body": NaN}',
    b'{"body": "' + b"x" * 2_000 + b'"}',
    b"[1, 2]",
    '{"body": "한국어 문장입니다 🎉", "x": "plain"}'.encode(),
]
PLACES = ("sqlite+embedded", "postgresql+embedded")


def ingested(world: World, paths: list[Path]) -> dict[str, Any]:
    """What comes of files: rows set aside with their reasons, and all that is the same in two worlds."""
    run_id = world.ask_ingest([str(path) for path in paths])
    drain(world.catalog)
    world.ask_judge()
    drain(world.catalog)
    with world.catalog.read() as session:
        rejected = {row.line: row.reason for row in session.execute(select(Quarantined.line, Quarantined.reason))}
        records = session.scalars(select(Version.num_records).where(Version.run_id == run_id)).one()
    return {"rejected": rejected, "records": records, "outcome": world.outcome()}


@pytest.fixture
def both(new_world: Callable[..., World]) -> Callable[[list[Path]], dict[str, Any]]:
    """Ingest files on both databases, and see that nothing differs."""

    def ask(paths: list[Path]) -> dict[str, Any]:
        found = [ingested(new_world(place, shard_rows=2_000, max_line_bytes=1_024), paths) for place in PLACES]
        assert found[0] == found[1]
        return found[0]

    return ask


def test_odd_values_are_judged_alike_on_both_databases(
    both: Callable[[list[Path]], dict[str, Any]], tmp_path: Path
) -> None:
    path = tmp_path / "odd.jsonl"
    path.write_bytes(b"\n".join([*ODD, b'{"queue": "' + b"y" * 5_000, *ODD[-1:]]) + b"\n")
    found = both([path])
    assert found["rejected"] == {
        2: "lone_surrogate",
        3: "lone_surrogate",
        4: "nul_character",
        5: "nul_character",
        6: "invalid_utf8",
        7: "missing_text",
        8: "line_too_long",
        9: "not_an_object",
        11: "line_too_long",
    }
    assert found["records"] == len(ODD) + 2 - len(found["rejected"])
    assert len(found["outcome"]["verdicts"]) == found["records"]


def test_ten_ragged_rows_of_ten_thousand_are_set_aside_with_their_lines(
    both: Callable[[list[Path]], dict[str, Any]], tmp_path: Path
) -> None:
    path = tmp_path / "ragged.csv"
    with path.open("w") as file:
        file.write("body,queue\n")
        for line in range(2, NUM_ROWS + 2):
            extra = ",too,many" if line in RAGGED and line % 2 else ""
            file.write("alone\n" if line in RAGGED and not extra else f"text of line {line},q{line % 3}{extra}\n")
    found = both([path])
    assert found["rejected"] == dict.fromkeys(RAGGED, "ragged_row")
    assert found["records"] == NUM_ROWS - len(RAGGED)
    assert len(found["outcome"]["verdicts"]) == found["records"]


def test_numbers_that_json_lacks_are_null_in_both_databases(database: Catalog) -> None:
    odd = {"loss": float("nan"), "more": [float("inf"), 0.5, {"deep": float("-inf")}], "name": "NaN"}
    with database.write() as session:
        run = add_run(session, add_dataset(session))
        run.result = odd
        run_id = run.id
    with database.read() as session:
        stored = session.scalar(select(cast(Run.result, String)).where(Run.id == run_id))
        assert session.get_one(Run, run_id).result == {"loss": None, "more": [None, 0.5, {"deep": None}], "name": "NaN"}
    assert stored is not None
    assert stored.count("NaN") == 1
