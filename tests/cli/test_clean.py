"""``winnow clean`` and ``winnow explain``: the funnel, and why each record stayed or left."""

from pathlib import Path

import pytest

from tests.cli import corpus
from tests.cli.command import Winnow
from tests.cli.conftest import Prepared

FIRST_SHORT = corpus.NUM_PLAIN + 1
LAST_EXACT = corpus.NUM_PLAIN + corpus.NUM_SHORT + corpus.NUM_EXACT
FIRST_NEAR = LAST_EXACT + 1


def test_funnel_finds_exactly_what_was_planted(prepared: Prepared) -> None:
    found = prepared.cleaned
    assert found["dropped"] == {
        "word_count": corpus.NUM_SHORT,
        "exact_duplicate": corpus.NUM_EXACT,
        "near_duplicate": corpus.NUM_NEAR,
    }
    assert found["records"] - sum(found["dropped"].values()) == found["kept"] == corpus.NUM_PLAIN
    assert found["duplicates"] == corpus.NUM_EXACT + corpus.NUM_NEAR == found["clusters"] + 1


def test_printed_funnel_adds_up_and_the_same_command_again_gives_the_same(prepared: Prepared) -> None:
    done = prepared.winnow("clean", "tickets", "--recipe", prepared.recipe)
    assert done.code == 0
    assert "cleaned by this recipe before" in done.err
    assert "370 of 400 records stay" in done.err
    rows = [line.split() for line in done.out.splitlines()[2:]]
    assert [row[:3] for row in rows] == [
        ["(in)", "0", "400"],
        ["word_count", "8", "392"],
        ["exact_duplicate", "12", "380"],
        ["near_duplicate", "10", "370"],
    ]
    assert {row[0]: row[3] for row in rows[1:]} == {
        rule: record[:12] for rule, record in prepared.cleaned["examples"].items()
    }
    assert prepared.winnow.ok("explain", "tickets", rows[3][3])["reason"] == "near_duplicate"


def test_exact_duplicate_and_the_record_kept_instead_name_each_other(prepared: Prepared) -> None:
    # Which of two equals stays is the keeper's rule.
    planted = prepared.winnow.ok("explain", "tickets", f"{prepared.tickets}:{LAST_EXACT}")
    pair = planted["duplicate_of"] or planted["duplicates"][0]
    assert (pair["kind"], pair["jaccard"]) == ("exact", 1.0)
    dropped, kept = (prepared.winnow.ok("explain", "tickets", pair[which]) for which in ("record", "kept"))
    assert (dropped["verdict"], dropped["reason"], dropped["failed"]) == (
        "dropped",
        "exact_duplicate",
        ["exact_duplicate"],
    )
    assert (kept["verdict"], kept["reason"], kept["failed"]) == ("kept", None, [])
    assert (dropped["duplicate_of"], kept["duplicates"]) == (pair, [pair])
    assert dropped["text"].strip().lower() == kept["text"].strip().lower()
    for story in (dropped, kept):
        assert story["origin"]["file"] == str(prepared.tickets)
        assert story["text"] == corpus.records()[story["origin"]["line"] - 1]["body"]
        measured = {one["rule"]: one for one in story["rules"]}
        assert measured["word_count"]["measured"] == len(story["text"].split())
        assert (measured["word_count"]["minimum"], measured["word_count"]["passed"]) == (3, True)
        assert {"length", "compression_ratio", "rarity"} <= set(story["scores"])


def test_record_dropped_by_a_rule_is_explained_with_the_threshold(prepared: Prepared) -> None:
    done = prepared.winnow("explain", "tickets", f"tickets.jsonl:{FIRST_SHORT}")
    assert done.code == 0
    shown = [line.split() for line in done.out.splitlines()]
    assert ["origin", f"{prepared.tickets},", "line", str(FIRST_SHORT)] in shown
    assert ["text", "배송조회부탁드려요", "0번"] in shown
    assert ["word_count", "2", "3", "1,000", "FAILED"] in shown
    assert "verdict  dropped by word_count (recipe tiny, run " in done.out


def test_near_duplicate_names_the_kept_record_and_the_measured_jaccard(prepared: Prepared) -> None:
    # Which of the two stays is the keeper's rule; the other one names it.
    planted = prepared.winnow.ok("explain", "tickets", f"tickets.jsonl:{FIRST_NEAR}")
    dropped = planted["duplicate_of"] or planted["duplicates"][0]
    done = prepared.winnow("explain", "tickets", dropped["record"])
    assert "verdict  dropped by near_duplicate" in done.out
    assert f"near duplicate of {dropped['kept']}, which was kept: Jaccard {dropped['jaccard']:.3f}" in done.out
    texts = [prepared.winnow.ok("explain", "tickets", dropped[which])["text"] for which in ("record", "kept")]
    assert abs(len(texts[0]) - len(texts[1])) == len(" ok?")
    first, second = ({text[at : at + 5] for at in range(len(text) - 4)} for text in texts)
    assert dropped["jaccard"] == pytest.approx(len(first & second) / len(first | second), abs=0.03)
    assert 0.7 <= dropped["jaccard"] < 1


def test_detached_run_is_finished_by_the_workers(prepared: Prepared, winnow: Winnow, tmp_path: Path) -> None:
    path = corpus.write_jsonl(tmp_path / "few.jsonl", corpus.records(seed=3)[:40])
    winnow.ok("ingest", path, "--dataset", "few", "--text", "body")
    asked = winnow("clean", "few", "--recipe", prepared.recipe, "--detach")
    assert asked.code == 0
    assert "winnow runs" in asked.err
    # Asking again joins the run that is under way.
    assert winnow.ok("clean", "few", "--recipe", prepared.recipe)["run"] == asked.out.strip()
    states = {one["run"]: one["state"] for one in winnow.ok("runs", "--limit", "100")}
    assert states[asked.out.strip()] == "done"
    late = winnow("cancel", asked.out.strip())
    assert late.code == 1
    assert "only a running run can be cancelled" in late.err


def test_recipe_that_drops_nearly_all_is_warned_of_and_an_earlier_one_becomes_current_again(
    winnow: Winnow, tmp_path: Path
) -> None:
    path = corpus.write_jsonl(tmp_path / "short.jsonl", corpus.records(seed=5)[:30])
    winnow.ok("ingest", path, "--dataset", "short", "--text", "body")
    unjudged = winnow("explain", "short", "short.jsonl:1")
    for told in (unjudged.err, winnow("report", "short").err):
        assert "`winnow clean short --recipe short-text` (tweets, messages, tickets in any language)" in told
        assert "`winnow clean short --recipe web-text` (English web pages)" in told
    strict, loose = tmp_path / "strict.yaml", tmp_path / "loose.yaml"
    strict.write_text("name: strict\nrules: {word_count: {minimum: 50}}\nencoder: hashing\n")
    loose.write_text("name: loose\nencoder: hashing\n")
    dropped = winnow("clean", "short", "--recipe", strict)
    assert dropped.code == 0
    assert "warning: fewer than a tenth of the records stay, word_count alone dropped 30" in dropped.err
    assert "`winnow clean short --recipe short-text` (tweets, messages, tickets in any language) or " in dropped.err
    assert "warning" not in winnow("clean", "short", "--recipe", loose).err
    winnow.ok("clean", "short", "--recipe", strict)
    versions = [one for one in winnow.ok("datasets") if one["dataset"] == "short"]
    assert [(one["version"], one["recipe"]) for one in versions] == [
        (1, None),
        (2, "strict"),
        (3, "loose"),
        (4, "strict"),
    ]
    assert "loose" in winnow("datasets").out


def test_unknown_record_is_refused_with_how_to_name_one(winnow: Winnow) -> None:
    wanted = ["ffffffff", "00", "tickets.jsonl:9999", "other.jsonl:1", ""]
    for one, done in zip(wanted, winnow.each(*[["explain", "tickets", one] for one in wanted]), strict=True):
        assert done.code == 2
        assert f"there is no record {one!r} among" in done.err
        assert "FILE:LINE" in done.err
