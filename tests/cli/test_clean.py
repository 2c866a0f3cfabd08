"""``winnow clean`` and ``winnow explain``: the funnel, and why each record stayed or left."""

import pytest

from tests.cli import corpus
from tests.cli.command import Winnow
from tests.cli.conftest import Prepared

pytestmark = pytest.mark.xdist_group("cli")

FIRST_SHORT = corpus.NUM_PLAIN + 1
FIRST_EXACT = FIRST_SHORT + corpus.NUM_SHORT
FIRST_NEAR = FIRST_EXACT + corpus.NUM_EXACT


def test_funnel_finds_exactly_what_was_planted(prepared: Prepared) -> None:
    found = prepared.cleaned
    assert found["dropped"] == {
        "word_count": corpus.NUM_SHORT,
        "exact_duplicate": corpus.NUM_EXACT,
        "near_duplicate": corpus.NUM_NEAR,
    }
    assert found["records"] - sum(found["dropped"].values()) == found["kept"] == corpus.NUM_PLAIN
    assert found["duplicates"] == found["clusters"] == corpus.NUM_EXACT + corpus.NUM_NEAR


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
    for rule, _, _, example in rows[1:]:
        assert prepared.winnow.ok("explain", "tickets", example)["reason"] == rule
    again = prepared.winnow.ok("clean", "tickets", "--recipe", prepared.recipe)
    assert again == prepared.cleaned
    kinds = [one["kind"] for one in prepared.winnow.ok("datasets") if one["dataset"] == "tickets"]
    assert kinds == ["raw", "curated"]


def test_kept_record_is_explained_with_every_value_and_its_duplicates(prepared: Prepared) -> None:
    duplicate = prepared.winnow.ok("explain", "tickets", f"tickets.jsonl:{FIRST_EXACT}")
    story = prepared.winnow.ok("explain", "tickets", duplicate["duplicate_of"]["kept"][:12])
    assert (story["verdict"], story["reason"], story["failed"]) == ("kept", None, [])
    assert story["origin"]["file"] == str(prepared.tickets)
    assert story["text"] == corpus.records()[story["origin"]["line"] - 1]["body"]
    measured = {one["rule"]: one for one in story["rules"]}
    assert measured["word_count"]["measured"] == len(story["text"].split())
    assert (measured["word_count"]["minimum"], measured["word_count"]["passed"]) == (3, True)
    assert [one["record"] for one in story["duplicates"]] == [duplicate["record"]]
    assert set(story["scores"]) == {"length", "compression_ratio", "rarity", "difficulty"}


def test_record_dropped_by_a_rule_is_explained_with_the_threshold(prepared: Prepared) -> None:
    done = prepared.winnow("explain", "tickets", f"tickets.jsonl:{FIRST_SHORT}")
    assert done.code == 0
    shown = [line.split() for line in done.out.splitlines()]
    assert ["origin", f"{prepared.tickets},", "line", str(FIRST_SHORT)] in shown
    assert ["text", "배송조회부탁드려요", "0번"] in shown
    assert ["word_count", "2", "3", "1,000", "FAILED"] in shown
    assert "verdict  dropped by word_count (recipe tiny, run " in done.out


def test_exact_duplicate_names_the_kept_record(prepared: Prepared) -> None:
    for line in (FIRST_EXACT, FIRST_EXACT + corpus.NUM_EXACT - 1):
        story = prepared.winnow.ok("explain", "tickets", f"{prepared.tickets}:{line}")
        assert (story["verdict"], story["reason"]) == ("dropped", "exact_duplicate")
        pair = story["duplicate_of"]
        assert (pair["kind"], pair["jaccard"]) == ("exact", 1.0)
        kept = prepared.winnow.ok("explain", "tickets", pair["kept"])
        assert (kept["verdict"], kept["text"].lower()) == ("kept", story["text"].strip().lower())


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


def test_detached_run_is_finished_by_the_workers(prepared: Prepared, winnow: Winnow) -> None:
    recipe = prepared.folder / "loose.yaml"
    recipe.write_text("name: loose\nexact: false\nencoder: hashing\n")
    run = winnow("clean", "tickets", "--recipe", recipe, "--detach")
    assert run.code == 0
    assert "winnow runs" in run.err
    # Asking again joins the run that is under way.
    assert winnow.ok("clean", "tickets", "--recipe", recipe)["run"] == run.out.strip()
    states = {one["run"]: one["state"] for one in winnow.ok("runs", "--limit", "100")}
    assert states[run.out.strip()[:8]] == "done"
    assert winnow("cancel", run.out.strip()).code == 1
    # The newest version is what the other tests see: give them theirs back.
    assert winnow.ok("clean", "tickets", "--recipe", write_again(prepared))["kept"] == corpus.NUM_PLAIN


def write_again(prepared: Prepared) -> str:
    """The recipe of the prepared version under another name: equal verdicts, a run of its own."""
    path = prepared.folder / "tiny-again.yaml"
    path.write_text(corpus.RECIPE.replace("name: tiny", "name: tiny\nversion: 2"))
    return str(path)


@pytest.mark.parametrize("wanted", ["ffffffff", "00", "tickets.jsonl:9999", "other.jsonl:1", "", "*"])
def test_unknown_record_is_refused_with_how_to_name_one(winnow: Winnow, wanted: str) -> None:
    done = winnow("explain", "tickets", wanted)
    assert done.code == 2
    assert repr(wanted) in done.err
    assert "FILE:LINE" in done.err
