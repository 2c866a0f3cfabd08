"""``winnow recipe`` and ``winnow what-if --set``: recipes, files and runs compared, and what comes of another."""

from pathlib import Path

import httpx

from tests.cli import corpus
from tests.cli.command import Winnow
from tests.cli.conftest import Prepared
from tests.cli.test_misuse import refusals


def test_a_recipe_is_shown_checked_and_compared_with_that_of_a_run(prepared: Prepared, tmp_path: Path) -> None:
    run = prepared.cleaned["run"]
    listed, shown, checked, differ, same = prepared.winnow.each(
        ["recipe", "show", "--json"],
        ["recipe", "show", run[:8]],
        ["recipe", "check", "instruction"],
        ["recipe", "diff", "short-text", str(prepared.recipe), "--json"],
        ["recipe", "diff", run, str(prepared.recipe)],
    )
    assert {"instruction", "classification", "web-text"} <= {one["preset"] for one in listed.json}
    again = tmp_path / "again.yaml"
    again.write_text(shown.out, "utf-8")
    assert prepared.winnow.ok("recipe", "diff", again, run[:8])["differences"] == []
    assert "duplicate_line_char_ratio" in checked.out
    assert (checked.code, "it can run here" in checked.err) == (0, True)
    changes = {one["key"]: (one["before"], one["after"]) for one in differ.json["differences"]}
    assert changes["near.threshold"] == (0.8, 0.7)
    assert changes["rules.url_ratio.maximum"] == (0.6, "(none)")
    assert (same.out, same.err) == ("", "they decide alike\n")


def test_wrong_recipes_and_names_are_refused_with_what_exists(winnow: Winnow, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("name: a\nrules:\n  word_count: {minmum: 3}\nencodr: static\n", "utf-8")
    expected = {
        ("recipe", "check", str(wrong)): "has 2 problems",
        ("recipe", "show", "instructoin"): "did you mean 'instruction'?",
        ("recipe", "diff", "web-text", "nowhere.yaml"): "no recipe 'nowhere.yaml'",
        ("what-if", "tickets"): "give --set KEY=VALUE",
        ("what-if", "tickets", "--set", "word_count.minimun=3"): "did you mean 'word_count.minimum'",
        ("what-if", "tickts", "--set", "word_count.minimum=3"): "did you mean 'tickets'?",
        ("what-if", "tickets", "--threshold", "0.9", "--publish"): "--threshold only counts",
        ("what-if", "tickets", "--set", "word_count.minimum=3", "--detach"): "--detach leaves a --publish",
    }
    assert refusals(winnow, expected) == []


def test_what_if_is_answered_by_command_and_api_and_made_a_version(prepared: Prepared, tmp_path: Path) -> None:
    winnow = prepared.winnow
    path = corpus.write_jsonl(
        tmp_path / "if.jsonl", [*corpus.records(seed=31)[:30], {"body": "세 단어 뿐입니다만", "queue": "a"}]
    )
    winnow.ok("ingest", path, "--dataset", "asked", "--text", "body")
    cleaned = winnow.ok("clean", "asked", "--recipe", prepared.recipe)
    setting = "word_count.minimum=10"
    answer = winnow.ok("what-if", cleaned["run"][:8], "--set", setting)
    told = winnow("what-if", "asked", "--set", setting)
    assert (answer["kept_before"], answer["kept_after"], answer["leaving"]) == (31, 30, {"word_count": 1})
    assert "leaves (word_count)" in told.out
    assert "세 단어 뿐입니다만" in told.out
    assert "30 of 31 records would stay; 31 do" in told.err
    token = {"Authorization": f"Bearer {winnow.ok('user', 'asker', '--role', 'curator')['token']}"}
    url = f"{prepared.url}/api/v1/runs/{cleaned['run']}/what-if"
    over_http = httpx.post(url, json={"settings": [setting]}, headers=token)
    assert over_http.json() == answer
    refused = httpx.post(f"{url}/versions", json={"settings": ["near.threshold=0.1"]}, headers=token)
    assert (refused.status_code, refused.json()["code"]) == (422, "config")
    made = winnow.ok("what-if", "asked", "--set", setting, "--publish")
    assert (made["kept"], made["dropped"]) == (30, {"word_count": 1})
    accepted = httpx.post(f"{url}/versions", json={"settings": [setting]}, headers=token)
    assert (accepted.status_code, accepted.json()) == (202, {"run_id": made["run"], "request_id": None})
    dropped = answer["samples"][0]["record"]
    assert winnow.ok("explain", "asked", dropped)["verdict"] == "dropped"
    assert winnow.ok("recipe", "diff", cleaned["run"], made["run"])["differences"][-1]["after"] == 10.0


def test_a_training_recipe_is_listed_shown_and_checked_without_being_started(winnow: Winnow, tmp_path: Path) -> None:
    mine, wrong = tmp_path / "mine.yaml", tmp_path / "wrong.yaml"
    mine.write_text("compare: controls\ncompare_seeds: 2\narms: [{name: a, steps: 7, learning_rate: 1e-3}]\n", "utf-8")
    wrong.write_text("arms: [{name: a, pacing: lineal}]\n", "utf-8")
    listed, shown, checked, told = winnow.each(
        ["recipe", "show", "--json"],
        ["recipe", "show", "classify"],
        ["recipe", "check", mine, "--json"],
        ["recipe", "check", mine],
    )
    jobs = {one["preset"]: one["job"] for one in listed.json}
    assert (jobs["classify"], jobs["pretrain"], jobs["web-text"]) == ("train", "train", "clean")
    assert shown.out.startswith("# Two ways to a small classifier")
    names = [one["arm"] for one in checked.json["plan"]]
    assert (names[:2], len(names)) == (["a", "a-random"], 8)
    assert {one["steps"] for one in checked.json["plan"]} == {7}
    assert "a-same-pacing-seed1" in told.out
    assert (
        refusals(winnow, {("recipe", "check", str(wrong)): "pacing='lineal' is unknown; did you mean 'linear'"}) == []
    )
