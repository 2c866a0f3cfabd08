"""Laws of every reader: it is found by its suffixes, repeats itself, and gives back what was written."""

import csv
import io
import json
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.sources import READERS, ReadOptions, read_batches
from curation.sources.batch import Suffixes

TEXTS = ["plain words", "오늘 날씨가 좋다", "今天天气很好", "สวัสดีครับ", "👍🏽 emoji", "a, b; c"]


def as_csv(texts):
    out = io.StringIO()
    csv.writer(out).writerows([["text"], *([text] for text in texts)])
    return out.getvalue().encode()


def as_parquet(texts):
    out = io.BytesIO()
    pq.write_table(pa.table({"text": texts}), out)
    return out.getvalue()


def as_arrow(texts):
    out, table = io.BytesIO(), pa.table({"text": texts})
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


def as_warc(texts):
    """Texts of a WET file."""
    bodies = [text.encode() for text in texts]
    heads = [f"WARC/1.0\r\nWARC-Type: conversion\r\nContent-Length: {len(body)}\r\n\r\n".encode() for body in bodies]
    return b"".join(head + body + b"\r\n\r\n" for head, body in zip(heads, bodies, strict=True))


WRITERS = {
    "arrow": as_arrow,
    "csv": as_csv,
    "json": lambda texts: json.dumps([{"text": text} for text in texts]).encode(),
    "jsonl": lambda texts: "".join(json.dumps({"text": text}) + "\n" for text in texts).encode(),
    "parquet": as_parquet,
    "text": lambda texts: "".join(text + "\n" for text in texts).encode(),
    "warc": as_warc,
    "tsv": lambda texts: "".join(text + "\n" for text in ["text", *texts]).encode(),
}
SUFFIXES = [(name, suffix) for name in sorted(READERS.load()) for suffix in READERS[name].config().suffixes]
ONE_A_FILE = {"html"}
"""Readers that make one record of a file, and not of what stands in it as it is: see ``test_web_sources``."""


def read(path: Path, **options) -> list[tuple[pl.DataFrame, pl.DataFrame]]:
    return [(one.records, one.rejected) for one in read_batches(str(path), ReadOptions(text_column="text", **options))]


def test_no_suffix_is_claimed_twice_and_every_reader_has_one():
    claimed = [suffix for _, suffix in SUFFIXES]
    assert len(claimed) == len(set(claimed))
    assert {name for name, _ in SUFFIXES} == set(READERS)
    assert all(issubclass(READERS[name].config, Suffixes) for name in READERS)


@pytest.mark.parametrize(("name", "suffix"), [one for one in SUFFIXES if one[0] not in ONE_A_FILE])
def test_reader_gives_back_the_texts_in_file_order(tmp_path, name, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(WRITERS[name](TEXTS))
    ((records, rejected),) = read(path)
    assert records["text"].to_list() == TEXTS
    assert records["fields"].to_list() == [""] * len(TEXTS)
    assert records["line"].to_list() == sorted(set(records["line"].to_list()))
    assert rejected.height == 0


@pytest.mark.parametrize("name", sorted(set(READERS.load()) - ONE_A_FILE))
def test_batches_are_the_same_every_time(tmp_path, name):
    path = tmp_path / "a.data"
    path.write_bytes(WRITERS[name](TEXTS * 50))
    first, second = (read(path, format=name, batch_rows=70) for _ in range(2))
    assert [records.height for records, _ in first] == [70, 70, 70, 70, 20]
    assert all(one[0].equals(other[0]) and one[1].equals(other[1]) for one, other in zip(first, second, strict=True))
