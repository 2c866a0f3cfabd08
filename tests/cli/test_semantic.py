"""``winnow dedup semantic`` on real sentences: what it prints, where one looks next, and what it refuses."""

from pathlib import Path

from tests.cli import corpus
from tests.cli.conftest import Prepared
from tests.cli.test_misuse import refusals
from tests.workers.test_semantic import english

NUM_LINES = 120


def test_command_prints_funnel_and_sweep_and_says_where_to_look(prepared: Prepared, tmp_path: Path) -> None:
    winnow = prepared.winnow
    lines = english(NUM_LINES)
    path = corpus.write_jsonl(tmp_path / "docs.jsonl", [{"text": line} for line in lines])
    winnow.ok("ingest", path, "--dataset", "docs")
    found = winnow.ok("dedup", "semantic", "docs", "--epsilon", "0.02")
    told = found["semantic"]
    assert (told["action"], told["epsilon"], told["encoder"], told["cells"]) == ("remove", 0.02, "static", 1)
    left = found["exact_duplicates"] + found["near_duplicates"] + found["semantic_duplicates"]
    assert found["kept"] == found["records"] - left == len(lines) - left
    assert found["semantic_duplicates"] == told["would_leave"] >= NUM_LINES // 10
    shown, clusters, export = winnow.each(
        ["dedup", "semantic", "docs", "--epsilon", "0.02"],
        ["dedup", "clusters", "docs", "--limit", "50", "--json"],
        ["dedup", "export", "docs", "--output", str(tmp_path / "docs.parquet"), "--json"],
    )
    assert (shown.code, clusters.code) == (0, 0)
    out = [line.split() for line in shown.out.splitlines()]
    assert ["semantic", "duplicates", f"{found['semantic_duplicates']}", f"{found['kept']}"] in out
    (chosen,) = [line for line in out if line[-2:] == ["<-", "chosen"]]
    (of_sweep,) = [one for one in told["sweep"] if one["epsilon"] == 0.02]
    assert chosen[:3] == ["0.02", f"{of_sweep['pairs']}", f"{of_sweep['would_leave']}"]
    assert "look at them: `winnow dedup clusters docs`" in shown.err
    kinds = {kind for one in clusters.json["clusters"] for kind in one["kinds"]}
    assert "semantic" in kinds
    assert clusters.json["reported"] == []
    assert export.json["rows"] == left


def test_wrong_option_is_refused_with_what_works(prepared: Prepared) -> None:
    told = {
        ("dedup", "semantic", "tickets", "--encoder", "hashing"): "set encoder to one of: minilm, minilm_bf16, static",
        ("dedup", "semantic", "tickets", "--encoder", "statik"): "did you mean 'static'?",
        ("dedup", "semantic", "tickets", "--epsilon", "1.5"): "epsilon=1.5 must lie in [0, 1)",
        ("dedup", "semantic", "tickets", "--action", "remov"): "did you mean 'remove'?",
        ("dedup", "semantic", "tickets", "--probes", "0"): "probes=0 must be a whole number from 1",
        ("dedup", "semantic", "tickts"): "did you mean 'tickets'?",
    }
    assert refusals(prepared.winnow, told) == []
