"""``winnow dedup substring`` over the licences of what is installed here: real texts, most of which repeat."""

from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.cli import corpus
from tests.cli.conftest import Prepared
from tests.cli.test_misuse import refusals

GRANT = "free of charge, to any person obtaining a copy"


def licences() -> list[str]:
    """Distinct short licences, as they came with the packages."""
    files = [file for one in distributions() for file in one.files or [] if file.name.upper().startswith("LICENSE")]
    texts = {Path(str(file.locate())).read_text("utf-8", errors="ignore") for file in files if file.locate().exists()}
    return sorted(text for text in texts if 500 < len(text) < 3_000)


@pytest.fixture(scope="module")
def cut(prepared: Prepared) -> dict[str, Any]:
    """What cutting answers, after a look."""
    rows = [{"body": text, "queue": ""} for text in licences()]
    path = corpus.write_jsonl(prepared.folder / "licences.jsonl", rows)
    prepared.winnow.ok("ingest", path, "--dataset", "licences", "--text", "body")
    looked = prepared.winnow.ok("dedup", "substring", "licences")
    answer: dict[str, Any] = prepared.winnow.ok("dedup", "substring", "licences", "--action", "remove")
    same = ("compared", "of_characters", "passages", "spans", "records", "characters", "min_tokens")
    assert {key: looked["passages"][key] for key in same} == {key: answer["passages"][key] for key in same}
    assert (looked["kept"], looked["passages"]["changed"]) == (looked["passages"]["compared"], 0)
    assert answer["kept"] == looked["kept"] - answer["passages"]["emptied"]
    return answer


def test_most_repeated_passage_is_the_one_of_most_licences(cut: dict[str, Any]) -> None:
    assert cut["passages"]["records"] == cut["passages"]["changed"] + cut["passages"]["emptied"] > 20
    assert cut["passages"]["characters"] > cut["passages"]["of_characters"] / 2
    first, *others = cut["most_repeated"]
    assert GRANT in " ".join(first["text"].split())
    assert all(first["records"] >= one["records"] for one in others)


def test_words_tell_how_much_what_and_where_to_look(prepared: Prepared, cut: dict[str, Any], tmp_path: Path) -> None:
    first, path = cut["most_repeated"][0], tmp_path / "spans.parquet"
    shown, keeper, exported = prepared.winnow.each(
        ["dedup", "substring", "licences", "--action", "remove", "--limit", "1"],
        ["explain", "licences", first["keeper"]],
        ["dedup", "export", "licences", "--spans", "--output", str(path)],
    )
    assert [one.code for one in (shown, keeper, exported)] == [0, 0, 0]
    assert shown.out.splitlines()[-1].split()[:2] == [str(first["records"]), str(first["num_tokens"])]
    assert "50 tokens in a row or more, cut at ends of sentences" in shown.out
    assert f"{cut['passages']['changed']:,} texts were cut" in shown.err
    assert "clean by a recipe with `substring: {action: remove}`" in shown.err
    assert "winnow dedup export licences --spans" in shown.err
    assert "what is kept here and repeated elsewhere" in keeper.out
    spans = pl.read_parquet(path)
    assert spans.height == cut["passages"]["spans"]
    texts = licences()
    for one in spans.to_dicts():
        assert one["passage"] == texts[one["record_line"] - 1][one["start"] : one["end"]]
        there = texts[one["keeper_line"] - 1][one["keeper_start"] : one["keeper_end"]]
        assert "".join(filter(str.isalnum, there.lower())) == "".join(filter(str.isalnum, one["passage"].lower()))


def test_what_cannot_work_is_refused(prepared: Prepared) -> None:
    told = {
        ("dedup", "substring", "tickets", "--action", "cut"): "action='cut' must be one of report, remove",
        ("dedup", "export", "tickets", "--spans"): "run `winnow dedup substring tickets`",
    }
    assert refusals(prepared.winnow, told) == []
