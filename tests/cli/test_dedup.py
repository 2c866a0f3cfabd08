"""``winnow dedup`` and ``winnow what-if``: what was planted is found, shown, exported; what cannot work is refused."""

import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.cli import corpus
from tests.cli.command import Winnow
from tests.cli.conftest import Prepared
from tests.cli.test_misuse import refusals

NUM_KEPT = corpus.NUM_PLAIN + corpus.NUM_SHORT
NUM_REMOVED = corpus.NUM_EXACT + corpus.NUM_NEAR


@pytest.fixture(scope="module")
def deduplicated(prepared: Prepared) -> dict[str, Any]:
    """What ``winnow dedup tickets`` answers; no test deduplicates ``tickets`` in another way."""
    answer: dict[str, Any] = prepared.winnow.ok("dedup", "tickets")
    return answer


@pytest.fixture(scope="module")
def leaked(prepared: Prepared) -> dict[str, Any]:
    """A training set with two records of an evaluation set in it, and a duplicate of its own, cleared of the two."""
    rows = corpus.records(seed=23)[:40]
    golden = rows[:5]
    own = [*rows[10:], {"body": rows[10]["body"].upper(), "queue": "device"}]
    taken = [golden[1] | {"body": golden[1]["body"].upper()}, golden[3] | {"body": golden[3]["body"] + " ok?"}]
    for name, part in (("golden", golden), ("leaky", [*own, *taken])):
        path = corpus.write_jsonl(prepared.folder / f"{name}.jsonl", part)
        prepared.winnow.ok("ingest", path, "--dataset", name, "--text", "body")
    answer: dict[str, Any] = prepared.winnow.ok("dedup", "against", "leaky", "golden")
    return answer | {"golden": [golden[1]["body"], golden[3]["body"]], "taken": [one["body"] for one in taken]}


def small(winnow: Winnow, folder: Path, name: str) -> None:
    """A dataset of twenty records and a near duplicate, which nobody has looked at."""
    rows = corpus.records(seed=29)[:20]
    path = corpus.write_jsonl(folder / f"{name}.jsonl", [*rows, rows[0] | {"body": rows[0]["body"] + " ok?"}])
    winnow.ok("ingest", path, "--dataset", name, "--text", "body")


def test_duplicates_that_were_planted_are_found_and_no_others(deduplicated: dict[str, Any]) -> None:
    counts = {key: deduplicated[key] for key in ("records", "kept", "exact_duplicates", "near_duplicates")}
    assert counts == {
        "records": corpus.NUM_RECORDS,
        "kept": NUM_KEPT,
        "exact_duplicates": corpus.NUM_EXACT,
        "near_duplicates": corpus.NUM_NEAR,
    }
    assert (deduplicated["clusters"], deduplicated["biggest_cluster"]) == (NUM_REMOVED - 1, 2)
    assert deduplicated["near"] == {"threshold": 0.8, "bands": 14, "rows": 8}


def test_a_dataset_is_enough_and_options_may_come_first(prepared: Prepared, deduplicated: dict[str, Any]) -> None:
    named, options_first = prepared.winnow.each(
        ["dedup", "run", "tickets", "--json"], ["dedup", "--threshold", "0.8", "--json", "tickets"]
    )
    assert (named.code, named.err, options_first.code, options_first.err) == (0, "", 0, "")
    assert named.json == options_first.json == deduplicated


def test_second_call_says_that_it_was_done_before(prepared: Prepared, deduplicated: dict[str, Any]) -> None:
    done = prepared.winnow("dedup", "tickets")
    assert done.code == 0
    assert "this version was deduplicated so before; the same result:" in done.err
    assert f"{deduplicated['clusters']} clusters, 2 records behind the biggest keeper" in done.err
    assert "14 bands of 8 find 92.4% of pairs at 0.8, 100.0% at 0.9" in done.err
    assert [line.split() for line in done.out.splitlines()[2:]] == [
        ["(in)", "0", "400"],
        ["exact", "duplicates", "12", "388"],
        ["near", "duplicates", "10", "378"],
    ]


def test_clean_with_the_same_options_removes_the_same_records(prepared: Prepared, deduplicated: dict[str, Any]) -> None:
    counts = prepared.cleaned["dropped"]
    assert (counts["exact_duplicate"], counts["near_duplicate"]) == (
        deduplicated["exact_duplicates"],
        deduplicated["near_duplicates"],
    )


def test_clusters_show_the_biggest_first(prepared: Prepared, deduplicated: dict[str, Any]) -> None:
    told, shown = prepared.winnow.each(
        ["dedup", "clusters", "tickets", "--limit", "3", "--json"], ["dedup", "clusters", "tickets"]
    )
    assert (told.code, told.err) == (0, "")
    assert told.json["run"] == deduplicated["run"]
    biggest = told.json["clusters"]
    assert [one["removed"] for one in biggest] == [2, 1, 1]
    assert biggest[0]["text"].strip().lower() == corpus.MARKUP.lower()
    lines = shown.out.splitlines()
    assert lines[0] == f"biggest clusters of run {deduplicated['run'][:8]}"
    assert lines[2].split()[:2] == ["2", biggest[0]["keeper"]]
    assert len(lines) == 2 + 10


def test_export_holds_both_texts_and_where_they_came_from(
    prepared: Prepared, deduplicated: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "pairs.parquet"
    assert prepared.winnow.ok("dedup", "export", "tickets", "--output", path) == {
        "file": str(path),
        "rows": NUM_REMOVED,
    }
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    rows = pl.read_parquet(path).to_dicts()
    assert Counter(one["kind"] for one in rows) == {"exact": corpus.NUM_EXACT, "near": corpus.NUM_NEAR}
    bodies = [one["body"] for one in corpus.records()]
    for one in rows:
        assert one["record_source"] == one["keeper_source"] == str(prepared.tickets)
        assert one["record_text"] == bodies[one["record_line"] - 1]
        assert one["keeper_text"] == bodies[one["keeper_line"] - 1]
        texts = [one[f"{role}_text"].strip().lower().removesuffix(" ok?") for role in ("record", "keeper")]
        assert texts[0] == texts[1]
        assert (one["jaccard"] == 1) == (one["kind"] == "exact")
    assert len({one["cluster"] for one in rows}) == deduplicated["clusters"]
    assert not {one["record_id"] for one in rows} & {one["cluster"] for one in rows}


def test_dry_run_estimates_and_writes_nothing(winnow: Winnow, tmp_path: Path) -> None:
    small(winnow, tmp_path, "untouched")

    def traces() -> tuple[Any, Any, list[Path]]:
        store = sorted(one for one in (winnow.home / "store").rglob("*") if one.is_file())
        return winnow.ok("runs", "--limit", "100"), winnow.ok("datasets"), store

    before = traces()
    told, shown = winnow.each(["dedup", "untouched", "--dry-run", "--json"], ["dedup", "untouched", "--dry-run"])
    assert (told.code, told.err, shown.code) == (0, "", 0)
    assert (told.json["records"], told.json["sampled"], told.json["workers"]) == (21, 21, 1)
    assert "21 records, 0 MB of text in " in shown.out
    assert "nothing was written" in shown.err
    against = winnow.ok("dedup", "against", "untouched", "tickets", "tickets", "--dry-run")
    assert against["records"] == 21 + corpus.NUM_RECORDS
    assert traces() == before
    looked = {("dedup", "clusters", "untouched"): "nobody has looked for duplicates in 'untouched' yet"}
    assert refusals(winnow, looked) == []


def test_record_of_an_evaluation_set_leaves_and_is_named(
    prepared: Prepared, leaked: dict[str, Any], tmp_path: Path
) -> None:
    counts = {key: leaked[key] for key in ("records", "kept", "exact_duplicates", "near_duplicates")}
    assert counts == {"records": 33, "kept": 31, "exact_duplicates": 1, "near_duplicates": 1}
    path = tmp_path / "leaked.parquet"
    assert prepared.winnow.ok("dedup", "export", "leaky", "--output", path)["rows"] == 2
    rows = {one["record_text"]: one for one in pl.read_parquet(path).to_dicts()}
    assert {text: one["keeper_text"] for text, one in rows.items()} == dict(
        zip(leaked["taken"], leaked["golden"], strict=True)
    )
    for one in rows.values():
        assert one["cluster"].startswith("golden:")
        assert one["keeper_source"] == str(prepared.folder / "golden.jsonl")
    clusters = prepared.winnow.ok("dedup", "clusters", "leaky")["clusters"]
    assert {one["text"] for one in clusters} == set(leaked["golden"])


def test_what_stood_in_no_other_dataset_leaves_nothing_to_export_and_no_file(
    winnow: Winnow, leaked: dict[str, Any], tmp_path: Path
) -> None:
    small(winnow, tmp_path, "clear")
    winnow.ok("dedup", "against", "clear", "golden")
    path = tmp_path / "none.parquet"
    assert refusals(winnow, {("dedup", "export", "clear", "--output", str(path)): "there is nothing to export"}) == []
    assert not path.exists()
    shown = winnow("dedup", "clusters", "clear")
    assert (shown.code, shown.out) == (0, "")
    assert "no record of 'clear' left as a duplicate" in shown.err


def test_curve_has_the_wanted_recall_at_the_threshold(winnow: Winnow) -> None:
    found = winnow.ok("dedup", "curve", "--threshold", "0.7", "--recall", "0.95")
    at = dict(map(tuple, found["curve"]))
    assert 0.95 <= at[0.7] == pytest.approx(1 - (1 - 0.7 ** found["rows"]) ** found["bands"])
    assert [*at.values()] == sorted(at.values())
    assert (at[0.0], at[1.0]) == (0, 1)


@pytest.mark.parametrize("threshold", ["0.62", "0.7", "0.85", "1"])
def test_curve_marks_the_threshold_itself(winnow: Winnow, threshold: str) -> None:
    done = winnow("dedup", "curve", "--threshold", threshold, "--preset", "strict")
    assert done.code == 0
    (marked,) = [line for line in done.out.splitlines() if line.endswith("<- threshold")]
    similarity, percent = marked.split()[0], marked.split()[-3]
    assert float(similarity) == float(threshold)
    assert float(percent.rstrip("%")) == pytest.approx(100 * (1 - (1 - float(threshold) ** 13) ** 20), abs=0.001)


def test_what_if_says_what_other_thresholds_would_remove(prepared: Prepared, deduplicated: dict[str, Any]) -> None:
    ask = ["what-if", "tickets", "--threshold", "0.9", "--threshold", "0.999"]
    told, shown, below = prepared.winnow.each(
        [*ask, "--json"], ask, ["what-if", "tickets", "--threshold", "0.5", "--threshold", "0.9"]
    )
    assert (told.code, told.err) == (0, "")
    assert told.json["run"] == deduplicated["run"]
    rows = {one["threshold"]: one for one in told.json["thresholds"]}
    assert {threshold: one["removed"] for threshold, one in rows.items()} == {0.8: 10, 0.9: 10, 0.999: 0}
    assert {threshold: one["of_the_run"] for threshold, one in rows.items()} == {0.8: True, 0.9: False, 0.999: False}
    assert rows[0.9]["found_at_threshold"] == pytest.approx(1 - (1 - 0.9**8) ** 14, abs=1e-4)
    assert shown.out.splitlines()[2].split()[:4] == ["0.8", "10", "10", "1"]
    assert "lower bounds" not in shown.err
    assert "lower bounds" in below.err


def test_what_if_reads_the_newest_run_that_measured_near_duplicates(winnow: Winnow, tmp_path: Path) -> None:
    small(winnow, tmp_path, "exactly")
    exact = winnow.ok("dedup", "exactly", "--exact-only")
    assert (exact["near_duplicates"], exact["near"]) == (0, None)
    ask = ("what-if", "exactly", "--threshold", "0.9")
    assert refusals(winnow, {ask: "nobody has looked for near duplicates in 'exactly' yet; run `winnow dedup"}) == []
    near = winnow.ok("dedup", "exactly")
    assert winnow.ok("dedup", "exactly", "--exact-only")["kept"] == exact["kept"]
    found = winnow.ok(*ask)
    assert (found["run"], [one["removed"] for one in found["thresholds"]]) == (near["run"], [1, 1])


def test_option_out_of_range_exits_with_two_and_says_what_works(winnow: Winnow) -> None:
    few = ("dedup", "tickets", "--bands", "5", "--rows", "8")
    told = {
        ("dedup", "tickets", "--threshold", "1.3"): "threshold=1.3 must lie in (0, 1]; 0.8 is usual",
        ("dedup", "curve", "--threshold", "nan"): "threshold=nan must lie in (0, 1]",
        ("what-if", "tickets", "--threshold", "1.3"): "threshold=1.3 must lie in (0, 1]; 0.8 is usual",
        ("what-if", "tickets"): "give --set KEY=VALUE",
        ("dedup", "tickets", "--bands", "200", "--rows", "8"): (
            "bands=200 times rows=8 need 1600 permutations, at most 1024 are drawn; with 8 rows, bands=128 works"
        ),
        ("dedup", "tickets", "--bands", "300"): "bands=300 must be a whole number from 1 to 256",
        (*few, "--recall", "0.99"): "bands=65, rows=12 find enough, or set recall=0.6",
        ("dedup", "tickets", "--recall", "1.5"): "recall=1.5 must lie between 0 and 1; 0.95 is usual",
        ("dedup", "tickets", "--rows", "40", "--recall", "0.99"): "recall=0.99 at threshold=0.8 is out of reach",
        ("dedup", "tickets", "--preset", "strct"): "preset='strct'; did you mean 'strict'?",
        ("dedup", "tickets", "--preset", "strict", "--bands", "3"): "leave those out, or the preset",
        ("dedup", "tickets", "--exact-only", "--threshold", "0.9"): "--exact-only measures no similarity",
        ("dedup", "tickets", "--dry-run", "--detach"): "leave out one of the two",
    }
    assert refusals(winnow, told) == []
    assert winnow.ok("dedup", "curve", "--recall", "0.99", "--bands", "65", "--rows", "12")["bands"] == 65


def test_wrong_name_exits_with_two_and_says_which_is_nearest(winnow: Winnow, leaked: dict[str, Any]) -> None:
    told = {
        ("dedup", "tickts"): "there is no dataset 'tickts'; did you mean 'tickets'?",
        ("dedup", "exprot", "tickets"): "there is no command 'exprot'; did you mean 'export'?",
        ("dedup", "tickets", "--treshold", "0.9"): "--treshold",
        ("dedup", "clusters", "tickts"): "did you mean 'tickets'?",
        ("dedup", "export", "tickts"): "did you mean 'tickets'?",
        ("what-if", "tickts", "--threshold", "0.9"): "did you mean 'tickets'?",
        ("dedup", "against", "leaky", "goldn"): "did you mean 'golden'?",
        ("dedup", "against", "leaky", "leaky"): "'leaky' is compared with itself anyway",
        ("dedup", "against", "leaky", "leaky", "--dry-run"): "'leaky' is compared with itself anyway",
        ("dedup", "clusters", "golden"): "run `winnow dedup golden`",
        ("what-if", "golden", "--threshold", "0.9"): "run `winnow dedup golden`",
    }
    assert refusals(winnow, told) == []


def test_place_that_cannot_be_written_exits_with_two_and_says_why(
    winnow: Winnow, deduplicated: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    told = {
        tmp_path / "no" / "a": f"folder {tmp_path / 'no'} does not exist; make it, or write elsewhere with --output",
        tmp_path: f"--output {tmp_path} is a folder; give a file name, e.g. {tmp_path / 'clusters.parquet'}",
        tmp_path / "file" / "a": f"folder {tmp_path / 'file'} does not exist",
        Path("/proc/a"): "--output /proc/a cannot be written: No such file or directory",
    }
    asked = {("dedup", "export", "tickets", "--output", str(path)): wanted for path, wanted in told.items()}
    assert refusals(winnow, asked) == []
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() != 0 and "CI" not in os.environ, reason="mounting a small filesystem needs root")
def test_export_on_a_full_disk_leaves_nothing_behind(
    prepared: Prepared, deduplicated: dict[str, Any], tmp_path: Path
) -> None:
    full = tmp_path / "full"
    full.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(full)], check=True)
    try:
        done = prepared.winnow("dedup", "export", "tickets", "--output", full / "a.parquet")
        assert (done.code, done.out) == (1, "")
        assert f"no space left for {full / 'a.parquet'}; free space, then run" in done.err
        assert list(full.iterdir()) == []
    finally:
        subprocess.run(["umount", str(full)], check=True)
