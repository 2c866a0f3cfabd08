"""``winnow ingest`` and ``winnow rejected``: every format, and what becomes of bad files and bad rows."""

import csv
import gzip
import json
from pathlib import Path

import polars as pl
import pytest
import zstandard

from tests.cli.command import Winnow
from tests.cli.conftest import Prepared

pytestmark = pytest.mark.xdist_group("cli")


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
    assert "2 of 9 rows shown" in shown.err
    assert "\x00" not in shown.out


def test_bad_files_are_refused_whole_and_the_others_go_in(winnow: Winnow, tmp_path: Path) -> None:
    half, empty, column, unknown, good = (
        tmp_path / name for name in ("half.jsonl.gz", "empty.csv", "column.csv", "array.json", "good.jsonl")
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
