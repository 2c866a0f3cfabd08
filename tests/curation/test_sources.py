"""Reading: every bad row gets its line and reason, every bad file its refusal, and memory stays bounded."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from catalog.errors import NotFoundError
from curation.sources import ReadOptions, SourceRefusedError, read_batches

KOREAN = "호스트분들이 너무 친절하셨습니다"


def read(path: Path, **options) -> tuple[pl.DataFrame, pl.DataFrame]:
    batches = list(read_batches(str(path), ReadOptions(**{"text_column": "text", **options})))
    return pl.concat([one.records for one in batches]), pl.concat([one.rejected for one in batches])


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def reasons(rejected: pl.DataFrame) -> list[tuple[int, str]]:
    return list(rejected.select("line", "reason").iter_rows())


def refusal(path: Path, **options) -> SourceRefusedError:
    with pytest.raises(SourceRefusedError) as raised:
        read(path, **options)
    return raised.value


def test_jsonl_gives_text_label_canonical_fields_and_line(tmp_path):
    rows = [
        {"text": KOREAN, "label": "pos", "z": 1, "a": {"y": [1.5, None], "x": "가"}},
        {"text": "two", "label": 3},
        {"label": True, "text": "three"},
    ]
    path = write(tmp_path / "a.jsonl", "\n\n".join(json.dumps(row) for row in rows))
    records, rejected = read(path, label_column="label")
    assert records["text"].to_list() == [KOREAN, "two", "three"]
    assert records["label"].to_list() == ["pos", "3", "true"]
    assert records["fields"].to_list() == ['{"a":{"x":"가","y":[1.5,null]},"z":1}', "", ""]
    assert records["line"].to_list() == [1, 3, 5]
    assert rejected.height == 0


def test_jsonl_rejects_each_bad_row_with_its_line_and_reason(tmp_path):
    lines = [
        b'{"text": "good"}',
        b'{"text": "broken',
        b"[1, 2]",
        b'{"other": 1}',
        b'{"text": "  \\n"}',
        b'{"text": 7}',
        b'{"text": "x", "label": ["a"]}',
        b'{"text": "\xff\xfe"}',
        b'{"text": "a\\u0000b"}',
        b'{"text": "a\x00b"}',
        b'{"text": "\\ud800"}',
        b'{"text": "x", "more": {"k": "\\udc00"}}',
        b'{"text": "x", "more": ["\\u0000"]}',
        b'{"text": "' + b"y" * 200 + b'"}',
        b'{"text": "x", "n": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        b'{"text": "x", "n": ' + b"9" * 5_000 + b"}",
        b'{"text": null}',
        b'{"text": "also good", "literal": "\\\\u0000"}',
    ]
    path = write(tmp_path / "a.jsonl", b"\r\n".join(lines) + b"\r\n")
    records, rejected = read(path, label_column="label", max_line_bytes=150)
    assert records["line"].to_list() == [1, 18]
    assert reasons(rejected) == [
        (2, "invalid_json"),
        (3, "not_an_object"),
        (4, "missing_text"),
        (5, "empty_text"),
        (6, "text_not_string"),
        (7, "label_not_scalar"),
        (8, "invalid_utf8"),
        (9, "nul_character"),
        (10, "nul_character"),
        (11, "lone_surrogate"),
        (12, "lone_surrogate"),
        (13, "nul_character"),
        (14, "line_too_long"),
        (15, "line_too_long"),
        (16, "line_too_long"),
        (17, "missing_text"),
    ]
    _, rejected = read(path, label_column="label")
    assert reasons(rejected)[-3:] == [(15, "invalid_json"), (16, "invalid_json"), (17, "missing_text")]


def test_numbers_that_json_lacks_become_null_in_fields(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "x", "a": NaN, "b": [-Infinity, 1e999, 2], "label": NaN}')
    records, _ = read(path, label_column="label")
    assert records.row(0) == ("x", None, '{"a":null,"b":[null,null,2]}', 1)


def test_byte_order_mark_is_dropped_and_utf16_refused(tmp_path):
    records, _ = read(write(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"text": "x"}'))
    assert records["text"].to_list() == ["x"]
    assert refusal(write(tmp_path / "b.jsonl", '{"text": "x"}'.encode("utf-16"))).reason == "wrong_encoding"
    zipped = gzip.compress('{"text": "x"}'.encode("utf-16"))
    assert refusal(write(tmp_path / "c.jsonl.gz", zipped)).reason == "wrong_encoding"


def test_csv_keeps_quoted_line_breaks_and_rejects_ragged_rows(tmp_path):
    content = 'text,label,n\n"a, ""b""\nc",pos,1\nshort,neg\n\n  5" pipe ,pos,3\nx,neg,4,5\n,pos,6\nlast,,7\n'
    records, rejected = read(write(tmp_path / "a.csv", content), label_column="label")
    assert records["text"].to_list() == ['a, "b"\nc', '  5" pipe ', "last"]
    assert records["label"].to_list() == ["pos", "pos", None]
    assert records["fields"].to_list() == ['{"n":"1"}', '{"n":"3"}', '{"n":"7"}']
    assert records["line"].to_list() == [2, 6, 9]
    assert reasons(rejected) == [(4, "ragged_row"), (7, "ragged_row"), (8, "empty_text")]


def test_csv_rejects_undecodable_and_nul_rows_and_goes_on(tmp_path):
    content = b'text,n\ngood,1\n\xff\xfe,2\n"two\n\xff lines",3\na\x00b,4\n' + KOREAN.encode() + b",5\n"
    records, rejected = read(write(tmp_path / "a.csv", content))
    assert records["text"].to_list() == ["good", KOREAN]
    assert reasons(rejected) == [(3, "invalid_utf8"), (4, "invalid_utf8"), (6, "nul_character")]


def test_csv_quote_that_never_closes_costs_one_line(tmp_path):
    content = 'text,n\na,1\n"open,2\nb,3\nc,4\n'
    records, rejected = read(write(tmp_path / "a.csv", content))
    assert records["text"].to_list() == ["a", "b", "c"]
    assert reasons(rejected) == [(3, "unclosed_quote")]


def test_csv_huge_quoted_field_is_one_rejected_row_and_the_next_row_is_read(tmp_path):
    field = "line, of text \n" * 1_000
    content = f'text,n\na,1\n"{field}",2\nb,3\n"{"y" * 9_000}",4\nc,5\n'
    records, rejected = read(write(tmp_path / "a.csv", content), max_line_bytes=4_000)
    assert records["text"].to_list() == ["a", "b", "c"]
    assert reasons(rejected) == [(3, "line_too_long"), (1005, "line_too_long")]


def test_csv_unclosed_quote_beyond_the_bound_is_reported_not_swallowed(tmp_path):
    content = 'text,n\na,1\n"open,2\n' + "row,3\n" * 5_000
    records, rejected = read(write(tmp_path / "a.csv", content), max_line_bytes=1_000)
    assert records["text"].to_list() == ["a"]
    assert reasons(rejected) == [(3, "line_too_long")]
    assert "lines 3 to 5003" in rejected["detail"][0]


def test_csv_field_larger_than_the_csv_modules_default_is_read(tmp_path):
    records, _ = read(write(tmp_path / "a.csv", "text,n\n" + "가" * 200_000 + ",1\n"))
    assert records["text"].str.len_chars().to_list() == [200_000]


def test_csv_header_faults_are_refused(tmp_path):
    assert refusal(write(tmp_path / "a.csv", "text,n,n\na,1,2\n")).reason == "duplicate_column"
    assert refusal(write(tmp_path / "b.csv", "h" * 500 + "\na\n"), max_line_bytes=100).reason == "header_too_long"
    assert refusal(write(tmp_path / "c.csv", b"text,\xff\na,1\n")).reason == "wrong_encoding"


def test_tsv_takes_quotes_as_plain_characters(tmp_path):
    content = 'text\tlabel\n"Hey, you\tham\n\tspam\nx\ty\tz\n\xff\n'.encode("latin-1")
    records, rejected = read(write(tmp_path / "a.tsv", content), label_column="label")
    assert records.rows() == [('"Hey, you', "ham", "", 2)]
    assert reasons(rejected) == [(3, "empty_text"), (4, "ragged_row"), (5, "invalid_utf8")]


def test_text_takes_each_line_that_is_not_blank(tmp_path):
    records, rejected = read(write(tmp_path / "a.txt", f"one\n\n  \n{KOREAN}\r\n".encode() + b"\xff\n"))
    assert records["text"].to_list() == ["one", KOREAN]
    assert records["line"].to_list() == [1, 4]
    assert reasons(rejected) == [(5, "invalid_utf8")]


def test_other_encodings_are_read_when_named(tmp_path):
    path = write(tmp_path / "a.csv", f"text,n\n{KOREAN},1\n".encode("cp949") + b"\xff\xff,2\n")
    records, rejected = read(path, encoding="cp949")
    assert records["text"].to_list() == [KOREAN]
    assert reasons(rejected) == [(3, "invalid_encoding")]


def test_parquet_gives_the_same_records_as_jsonl(tmp_path):
    rows = [
        {"text": f"{KOREAN} {i}", "label": i % 3, "extra": {"i": i, "f": i / 7}, "c": "가나다"[i % 3]}
        for i in range(2_500)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=700)
    write(tmp_path / "a.jsonl", "\n".join(json.dumps(row) for row in rows))
    parquet, _ = read(tmp_path / "a.parquet", label_column="label")
    jsonl, _ = read(tmp_path / "a.jsonl", label_column="label")
    assert parquet.equals(jsonl)


def test_parquet_rejects_bad_rows_by_row_number(tmp_path):
    texts = pa.array([b"good", b"\xff\xfe", None, b"a\x00b", b"x" * 300, KOREAN.encode()]).cast(pa.binary())
    unchecked = pa.StringArray.from_buffers(len(texts), *texts.buffers()[1:], null_bitmap=texts.buffers()[0])
    pq.write_table(pa.table({"text": unchecked, "n": [float("nan")] * 6}), tmp_path / "a.parquet")
    records, rejected = read(tmp_path / "a.parquet", max_line_bytes=200)
    assert records["text"].to_list() == ["good", KOREAN]
    assert records["fields"].to_list() == ['{"n":null}'] * 2
    assert reasons(rejected) == [
        (2, "invalid_utf8"),
        (3, "missing_text"),
        (4, "nul_character"),
        (5, "line_too_long"),
    ]


def test_parquet_without_magic_without_tail_or_damaged_is_refused(tmp_path):
    pq.write_table(pa.table({"text": [f"text {i}" * 50 for i in range(2_000)]}), tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    assert refusal(write(tmp_path / "b.parquet", b"not parquet at all")).reason == "not_parquet"
    assert refusal(write(tmp_path / "c.parquet", whole[: len(whole) // 2])).reason == "truncated"
    assert refusal(write(tmp_path / "d.parquet", whole[:4] + b"\xff" * 3_000 + whole[3_004:])).reason == "corrupt"
    assert refusal(write(tmp_path / "e.parquet.gz", gzip.compress(whole))).reason == "unknown_format"


def test_parquet_that_declares_far_more_than_it_holds_is_refused(tmp_path):
    values = pa.array(["x" * 1_000]).take(pa.array([0] * 100_000))
    pq.write_table(pa.table({"text": values}), tmp_path / "a.parquet", use_dictionary=False, compression="zstd")
    assert refusal(tmp_path / "a.parquet", max_ratio=1).reason == "decompression_bomb"


def test_parquet_that_repeats_one_long_value_is_read_in_bounded_memory(tmp_path):
    values = pa.array(["x" * 2**20]).take(pa.array([0])).dictionary_encode().take(pa.array([0] * 400))
    pq.write_table(pa.table({"text": values}), tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 2**21
    probe = subprocess.run(
        [sys.executable, "-c", PROBE, tmp_path / "a.parquet"], capture_output=True, text=True, check=True
    )
    kept, _, grown_megabytes = map(int, probe.stdout.split())
    assert kept == 400
    assert grown_megabytes < 350


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed_files_read_like_plain_ones_by_name_or_by_magic(tmp_path, suffix):
    compress = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}[suffix]
    content = "".join(f'{{"text": "{KOREAN} {i}"}}\n' for i in range(1_000)).encode()
    two_members = compress(content) + compress(content)
    plain, _ = read(write(tmp_path / "plain.jsonl", content * 2))
    named, _ = read(write(tmp_path / f"a.jsonl{suffix}", two_members))
    unnamed, _ = read(write(tmp_path / "b.jsonl", two_members))
    assert named.equals(plain)
    assert unnamed.equals(plain)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_half_written_or_damaged_compressed_file_is_refused_before_the_first_batch(tmp_path, suffix):
    compress = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}[suffix]
    whole = compress("".join(f'{{"text": "number {i * i}"}}\n' for i in range(20_000)).encode())
    batches = read_batches(
        str(write(tmp_path / f"a.jsonl{suffix}", whole[:-5])), ReadOptions(text_column="text", batch_rows=10)
    )
    with pytest.raises(SourceRefusedError, match="half-written") as raised:
        next(batches)
    assert raised.value.reason == "truncated"
    assert refusal(write(tmp_path / f"b.jsonl{suffix}", whole + b"junk at the end")).reason == "corrupt"
    assert refusal(write(tmp_path / f"c.jsonl{suffix}", b'{"text": "plain"}')).reason == "wrong_compression"
    assert refusal(write(tmp_path / f"d.jsonl{suffix}", compress(b""))).reason == "empty_file"


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_decompression_bomb_is_refused(tmp_path, suffix):
    compress = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}[suffix]
    path = write(tmp_path / f"a.txt{suffix}", compress(b"a" * 70 * 2**20))
    assert refusal(path).reason == "decompression_bomb"


def test_small_but_very_compressible_file_is_read(tmp_path):
    records, _ = read(write(tmp_path / "a.txt.gz", gzip.compress(b"the same line\n" * 100_000)))
    assert records.height == 100_000


def test_files_that_are_no_source_are_refused_with_a_remedy(tmp_path):
    assert refusal(tmp_path).reason == "not_a_file"
    assert refusal(write(tmp_path / "empty.jsonl", "")).reason == "empty_file"
    assert refusal(write(tmp_path / "blank.jsonl", "\n \n")).reason == "empty_file"
    assert refusal(write(tmp_path / "header.csv", "text,label\n")).reason == "empty_file"
    assert refusal(write(tmp_path / "a.csv", b"PK\x03\x04rest")).reason == "unknown_format"
    unknown = refusal(write(tmp_path / "a.jsonlines", '{"text": "x"}'))
    assert unknown.reason == "unknown_format"
    assert all(known in str(unknown) for known in (".jsonl", ".csv", ".parquet", ".txt", ".gz", ".zst"))
    with pytest.raises(NotFoundError):
        read(tmp_path / "absent.jsonl")
    with pytest.raises(NotFoundError, match="jsonl"):
        read(write(tmp_path / "b.dat", "x"), format="jsonk")


def test_named_format_reads_a_file_of_any_suffix(tmp_path):
    records, _ = read(write(tmp_path / "a.json", '{"text": "x"}'), format="jsonl")
    assert records["text"].to_list() == ["x"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"body": "x", "id": 1}\n' * 1_500),
        ("a.jsonl", 'broken\n{"body": "x"}\n'),
        ("a.csv", "id,body\n1,x\n"),
    ],
)
def test_missing_text_column_is_refused_with_the_columns_seen(tmp_path, name, content):
    error = refusal(write(tmp_path / name, content), text_column="bodi", batch_rows=10)
    assert error.reason == "missing_column"
    assert "did you mean 'body'" in str(error)
    assert ("write a header line above it" in str(error)) == name.endswith(".csv")


def test_text_column_that_comes_late_is_found(tmp_path):
    content = '{"body": "x"}\n' * 990 + '{"text": "found"}\n' * 20
    records, rejected = read(write(tmp_path / "a.jsonl", content))
    assert (records.height, rejected.height) == (20, 990)


def test_file_of_only_invalid_rows_is_rejected_row_by_row(tmp_path):
    path = write(tmp_path / "a.jsonl", "no json\n" * 2_500)
    batches = list(read_batches(str(path), ReadOptions(text_column="text", batch_rows=600)))
    assert [one.rejected.height for one in batches] == [600, 600, 600, 600, 100]
    assert pl.concat([one.rejected for one in batches])["line"].to_list() == list(range(1, 2_501))


def test_batches_are_bounded_by_rows_and_bytes(tmp_path):
    path = write(tmp_path / "a.jsonl", "".join(json.dumps({"text": "x" * 900}) + "\n" for _ in range(100)))
    by_rows = [one.records.height for one in read_batches(str(path), ReadOptions(text_column="text", batch_rows=30))]
    by_bytes = [
        one.records.height for one in read_batches(str(path), ReadOptions(text_column="text", batch_bytes=10_000))
    ]
    assert by_rows == [30, 30, 30, 10]
    assert by_bytes == [10] * 10


@given(
    rows=st.lists(
        st.one_of(
            st.fixed_dictionaries({"text": st.text(), "extra": st.integers() | st.floats() | st.text()}).map(
                json.dumps
            ),
            st.text(alphabet=st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), min_size=1),
        ),
        min_size=1,
        max_size=20,
    ),
    batch_rows=st.integers(1, 7),
)
def test_every_row_is_a_record_or_a_rejection_exactly_once(tmp_path_factory, rows, batch_rows):
    path = tmp_path_factory.mktemp("law") / "a.jsonl"
    path.write_text("".join(row + "\n" for row in [*rows, '{"text": "anchor"}']), "utf-8")
    whole, whole_rejected = read(path)
    cut, cut_rejected = read(path, batch_rows=batch_rows)
    assert cut.equals(whole)
    assert cut_rejected.equals(whole_rejected)
    written = [number for number, row in enumerate(rows, 1) if row.encode().strip()] + [len(rows) + 1]
    assert sorted(whole["line"].to_list() + whole_rejected["line"].to_list()) == written
    for fields in whole["fields"].to_list():
        assert fields == "" or isinstance(json.loads(fields), dict)


PROBE = """
import resource, sys
import polars, pyarrow.parquet
from curation.sources import ReadOptions, read_batches
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
kept = rejected = 0
for batch in read_batches(sys.argv[1], ReadOptions(text_column="text")):
    kept += batch.records.height
    rejected += batch.rejected.height
sys.stdout.write(f"{kept} {rejected} {(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024}")
"""


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_line_of_200_megabytes_is_skipped_in_bounded_memory(tmp_path, name):
    path = tmp_path / name
    with path.open("wb") as file:
        file.write(b'{"text": "first"}\n{"text": "' if name.endswith("jsonl") else b'text\nfirst\n"')
        for _ in range(200):
            file.write(b"y" * 2**20)
        file.write(b'"}\n{"text": "last"}\n' if name.endswith("jsonl") else b'"\nlast\n')
    probe = subprocess.run([sys.executable, "-c", PROBE, path], capture_output=True, text=True, check=True)
    kept, rejected, grown_megabytes = map(int, probe.stdout.split())
    assert (kept, rejected) == (2, 1)
    assert grown_megabytes < 100


@pytest.mark.parametrize(
    "options",
    [
        {"text_column": ""},
        {"label_column": "text"},
        {"batch_rows": 0},
        {"max_ratio": float("nan")},
        {"encoding": "utf-16"},
        {"encoding": "klingon"},
    ],
)
def test_options_without_meaning_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        ReadOptions(**{"text_column": "text", **options})
