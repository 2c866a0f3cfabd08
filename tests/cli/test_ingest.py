"""``winnow ingest`` and ``winnow rejected``: every format, and what becomes of bad files and bad rows."""

import bz2
import contextlib
import csv
import gzip
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import zstandard

from catalog.database import Catalog
from catalog.settings import Settings
from tests.cli.command import TIMEOUT_SECONDS, Winnow
from tests.cli.conftest import Prepared
from tests.cli.test_misuse import refusals
from workers.pipelines.ingest import submit_ingest


def lines(prefix: str) -> bytes:
    return b"".join(
        json.dumps({"body": f"{prefix} 안녕하세요 {number} 🙂", "queue": "a"}, ensure_ascii=False).encode() + b"\n"
        for number in range(3)
    )


def write_every_format(folder: Path) -> dict[str, Path]:
    """Three records in each file, different in all."""
    files = {
        "jsonl": folder / "a.jsonl",
        "gzip": folder / "b.jsonl.gz",
        "zstd": folder / "c.ndjson.zst",
        "csv": folder / "d.csv",
        "tsv": folder / "e.tsv.gz",
        "parquet": folder / "f.parquet",
        "text": folder / "g.txt",
    }
    files["jsonl"].write_bytes(lines("jsonl"))
    files["gzip"].write_bytes(gzip.compress(lines("gzip")))
    files["zstd"].write_bytes(zstandard.compress(lines("zstd")))
    with files["csv"].open("w", newline="", encoding="utf-8") as file:
        rows = [["body", "queue"], ["csv, with\na line break", "a"], ["csv 둘", "b"], ["csv three", ""]]
        csv.writer(file).writerows(rows)
    files["tsv"].write_bytes(gzip.compress("queue\tbody\na\ttsv one\nb\ttsv 둘\na\ttsv three\n".encode()))
    pl.DataFrame({"queue": ["a", None, "b"], "body": ["parquet 하나", "parquet two", "parquet three"]}).write_parquet(
        files["parquet"]
    )
    files["text"].write_text("plain text one\n\nplain 텍스트 둘\nplain text three\n", encoding="utf-8")
    return files


def test_every_format_goes_in_with_file_and_line(winnow: Winnow, tmp_path: Path) -> None:
    files = write_every_format(tmp_path)
    done = winnow.ok("ingest", *files.values(), "--dataset", "formats", "--text", "body", "--label", "queue")
    assert (done["files"], done["records"], done["rejected"], done["refused"]) == (7, 21, 0, {})
    assert done["labelled"] == 3 * 3 + 2 + 3 + 2
    for name, line, text, label in (
        ("csv", 4, "csv 둘", "b"),
        ("parquet", 2, "parquet two", None),
        ("text", 3, "plain 텍스트 둘", None),
    ):
        story = winnow.ok("explain", "formats", f"{files[name].name}:{line}")
        assert (story["text"], story["label"]) == (text, label)
        assert story["origin"] == {"file": str(files[name]), "line": line}
        assert "winnow clean formats" in story["hint"]


def test_same_bytes_again_are_skipped_under_any_name(winnow: Winnow, tmp_path: Path) -> None:
    first, copy, more = tmp_path / "first.jsonl", tmp_path / "copy.jsonl", tmp_path / "more.jsonl"
    first.write_bytes(lines("same"))
    copy.write_bytes(lines("same"))
    more.write_bytes(lines("more"))
    assert winnow.ok("ingest", first, "--dataset", "twice", "--text", "body")["records"] == 3
    done = winnow.ok("ingest", copy, more, "--dataset", "twice", "--text", "body")
    assert (done["records"], done["skipped"]) == (3, [str(copy)])
    again = winnow("ingest", first, "--dataset", "twice", "--text", "body")
    assert again.code == 0
    assert "skipped" in again.err
    versions = [one for one in winnow.ok("datasets") if one["dataset"] == "twice"]
    assert [one["records"] for one in versions] == [3, 6]


def test_equal_files_in_one_call_go_in_once_and_the_other_is_named(winnow: Winnow, tmp_path: Path) -> None:
    first, second = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    for path in (first, second):
        path.write_bytes(lines("equal"))
    done = winnow("ingest", second, first, "--dataset", "equal", "--text", "body")
    assert done.code == 0
    assert f"{second}: the same bytes as {first}; skipped" in done.err
    assert "3 records in 'equal' from 1 files" in done.err


def test_a_file_that_another_run_reads_is_waited_for(fresh: Winnow, tmp_path: Path) -> None:
    fresh.ok("init")
    mine, both, alone = (tmp_path / f"{name}.jsonl" for name in ("mine", "both", "alone"))
    for path in (mine, both, alone):
        path.write_bytes(lines(path.stem))
    catalog = Catalog(Settings(home=fresh.home))
    asked = submit_ingest(
        catalog, dataset="shared", paths=[str(both), str(alone)], text_column="body", label_column=None
    )
    catalog.close()
    assert asked.run_id is not None
    done = fresh("ingest", mine, both, "--dataset", "shared", "--text", "body")
    assert done.code == 0
    assert f"{both}: run {asked.run_id[:8]} is reading these bytes already; waiting for it" in done.err
    assert f"winnow cancel {asked.run_id[:8]}" in done.err
    assert "6 records in 'shared' from 2 files" in done.err
    assert "3 records in 'shared' from 1 files" in done.err
    assert max(one["records"] for one in fresh.ok("datasets")) == 9
    again = fresh.ok("ingest", both, "--dataset", "shared", "--text", "body")
    assert (again["run"], again["skipped"], again["others"]) == (None, [str(both)], {})


def on_terminal(winnow: Winnow, *arguments: str | Path) -> tuple[int, str]:
    """Exit code, and what a command wrote to a terminal that is its stderr."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "service.cli", *map(str, arguments)],
        env=winnow.environment() | {"TERM": "xterm", "COLUMNS": "150"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    ) as command:
        os.close(theirs)
        shown = b""
        # Linux ends a terminal that nobody writes to any more with an error.
        with contextlib.suppress(OSError):
            while piece := os.read(ours, 65_536):
                shown += piece
        os.close(ours)
        return command.wait(TIMEOUT_SECONDS), shown.decode(errors="replace")


def test_hashing_shows_bytes_rate_and_time_left_on_a_terminal_only(winnow: Winnow, tmp_path: Path) -> None:
    path = tmp_path / "big.jsonl"
    path.write_bytes(lines("hashed") + b'{"body": "' + b"x" * 40_000_000 + b'"}\n')
    code, shown = on_terminal(winnow, "ingest", path, "--dataset", "hashed", "--text", "body")
    assert code == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    assert re.search(r"hashing .*40\.0/40\.0 MB +[0-9.]+ [kMG]?B/s +0:00:00 left", plain), plain
    code, shown = on_terminal(winnow, "ingest", path, "--dataset", "hashed", "--text", "body", "--json")
    assert (code, shown) == (0, "")


def test_bad_rows_are_set_aside_with_file_line_and_reason(winnow: Winnow, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [
        b'{"body": "a good first line"}',
        b'{"body": "' + b"x" * 3000 + b'"}',
        b'{"body": "bad \xff\xfe bytes"}',
        b'{"body": "an escaped \\u0000 NUL"}',
        b'{"body": "a raw \x00 NUL"}',
        b'{"body": "half a line',
        b'["no", "object"]',
        b'{"text": "another column"}',
        b'{"body": "   "}',
        b'{"body": 17}',
        '{"body": "a good 마지막 line"}'.encode(),
    ]
    path.write_bytes(b"\n".join(rows))
    done = winnow("ingest", path, "--dataset", "rows", "--text", "body")
    assert done.code == 0
    assert "2 records in 'rows'" in done.err
    assert "9 rows set aside" in done.err
    assert "winnow rejected rows" in done.err
    listed = winnow.ok("rejected", "rows")
    assert listed["total"] == 9
    assert [(one["line"], one["reason"]) for one in listed["rows"]] == [
        (2, "line_too_long"),
        (3, "invalid_utf8"),
        (4, "nul_character"),
        (5, "nul_character"),
        (6, "invalid_json"),
        (7, "not_an_object"),
        (8, "missing_text"),
        (9, "empty_text"),
        (10, "text_not_string"),
    ]
    assert {one["file"] for one in listed["rows"]} == {str(path)}
    shown = winnow("rejected", "rows", "--limit", "2")
    assert "2 of 9 shown" in shown.err
    assert "\x00" not in shown.out


def test_bad_files_are_refused_whole_and_the_others_go_in(winnow: Winnow, tmp_path: Path) -> None:
    half, empty, column, unknown, good = (
        tmp_path / name for name in ("half.jsonl.gz", "empty.csv", "column.csv", "array.jsnl", "good.jsonl")
    )
    half.write_bytes(gzip.compress(lines("half"))[:-9])
    empty.touch()
    column.write_text("bdy,queue\nhello there,a\n")
    unknown.write_text('[{"body": "an array"}]')
    good.write_bytes(lines("good"))
    done = winnow("ingest", half, empty, column, unknown, good, "--dataset", "files", "--text", "body", "--json")
    assert done.code == 1
    assert done.err == ""
    assert done.json["records"] == 3
    assert set(done.json["refused"]) == {str(half), str(empty), str(column), str(unknown)}
    reasons = {one["file"]: one["detail"] for one in winnow.ok("rejected", "files")["rows"]}
    assert "ends in the middle" in reasons[str(half)]
    assert "empty" in reasons[str(empty)]
    assert "did you mean 'bdy'?" in reasons[str(column)]
    assert "did you mean '.jsonl'?" in reasons[str(unknown)]
    assert reasons == done.json["refused"]
    # The half file goes in once it is whole, and is listed no more.
    half.write_bytes(gzip.compress(lines("half")))
    again = winnow("ingest", half, empty, "--dataset", "files", "--text", "body")
    assert again.code == 1
    assert "3 records in 'files' from 2 files" in again.err
    assert f"refused whole: {empty} is empty" in again.err
    assert str(half) not in {one["file"] for one in winnow.ok("rejected", "files")["rows"]}


def test_what_is_no_file_is_refused_before_anything_is_made(winnow: Winnow, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "good.jsonl").write_bytes(lines("good"))
    for name in ("folder", "missing.jsonl"):
        done = winnow("ingest", tmp_path / "good.jsonl", tmp_path / name, "--dataset", "never", "--text", "body")
        assert done.code == 2
        assert str(tmp_path / name) in done.err
    assert "never" not in {one["dataset"] for one in winnow.ok("datasets")}


def test_other_columns_than_the_dataset_was_made_with_are_refused(prepared: Prepared, tmp_path: Path) -> None:
    path = tmp_path / "more.jsonl"
    path.write_bytes(lines("columns"))
    done = prepared.winnow("ingest", path, "--dataset", "tickets", "--text", "text")
    assert done.code == 2
    assert "--text body --label queue" in done.err


def test_conversations_and_nested_columns_go_in_and_out_again(winnow: Winnow, tmp_path: Path) -> None:
    talks = [
        {"conversations": [{"from": "human", "value": f"질문 {n}"}, {"from": "gpt", "value": "답"}]} for n in range(3)
    ]
    rows = [{"body": {"text": f"글 {n}"}, "site": "가.kr"} for n in range(3)]
    for name, given in (("talks", talks), ("nested", rows)):
        lines = "".join(json.dumps(row) + "\n" for row in given)
        (tmp_path / f"{name}.data").write_bytes(bz2.compress(lines.encode()))
    mapping = tmp_path / "map.yaml"
    mapping.write_text("text: body.text\nsource: site\nformat: jsonl\n")
    talking = ["--dataset", "talks", "--turns", "sharegpt", "--format", "jsonl"]
    assert winnow.ok("ingest", tmp_path / "talks.data", *talking)["records"] == 3
    assert winnow.ok("ingest", tmp_path / "nested.data", "--dataset", "nested", "--mapping", mapping)["records"] == 3
    assert winnow.ok("explain", "talks", "talks.data:2")["text"] == "질문 1\n\n답"
    written = winnow.ok("export", "talks", "--output", tmp_path / "out.jsonl", "--plain")
    assert (written["format"], written["records"]) == ("jsonl", 3)
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == talks
    winnow.ok("export", "nested", "--output", tmp_path / "folder")
    assert (tmp_path / "folder" / "train" / "data-00000-of-00001.arrow").exists()
    (tmp_path / "empty").mkdir()
    refused = {
        ("ingest", "x", "--dataset", "d", "--mapping", str(mapping), "--text", "a"): "--mapping says all of it",
        ("ingest", "x", "--dataset", "d", "--turns", "sharegtp"): "did you mean 'sharegpt'",
        ("ingest", str(tmp_path / "empty"), "--dataset", "d"): "is no dataset folder",
        ("ingest", str(tmp_path / "talks.data"), "--dataset", "talks"): "was made with --turns sharegpt",
        ("export", "nested", "--output", str(tmp_path / "folder")): "exists; remove it",
        ("export", "nested", "--output", str(tmp_path / "none" / "a.csv")): "does not exist; make it",
        (
            "export",
            "nested",
            "--output",
            str(tmp_path / "a.csv"),
            "--records",
            "dropped",
        ): "no record of it has a verdict",
    }
    assert refusals(winnow, refused) == []
