"""What wrong names, settings and surroundings get: exit 2, the value, what exists, what to do."""

import shutil
import socket
import sqlite3
from pathlib import Path

import pytest

from tests.cli import corpus
from tests.cli.command import Winnow
from tests.cli.conftest import Prepared


def refusals(winnow: Winnow, told: dict[tuple[str, ...], str]) -> list[tuple[tuple[str, ...], str]]:
    """Which of the commands did not exit with 2, say what they must, and leave stdout empty."""
    done = winnow.each(*map(list, told))
    return [
        (arguments, one.err)
        for (arguments, wanted), one in zip(told.items(), done, strict=True)
        if (one.code, one.out) != (2, "") or wanted not in one.err
    ]


def test_wrong_name_or_value_exits_with_two_and_says_what_is_known(winnow: Winnow) -> None:
    here = ("ingest", __file__, "--dataset")
    told = {
        ("claen",): "there is no command 'claen'; did you mean 'clean'?",
        ("label", "creat"): "there is no command 'creat'; did you mean 'create'?",
        ("clean", "tickets", "--recip", "x"): "--recipe",
        ("clean", "tickets"): "Missing option '--recipe'",
        ("clean", "tickts", "--recipe", "short-text"): "there is no dataset 'tickts'; did you mean 'tickets'?",
        ("clean", "tickets", "--recipe", "short-txt"): "no recipe 'short-txt'; did you mean 'short-text'?",
        ("report", "tickts"): "did you mean 'tickets'?",
        ("explain", "tickts", "abcdef"): "did you mean 'tickets'?",
        ("rejected", "tickts"): "did you mean 'tickets'?",
        ("label", "list", "tickts"): "did you mean 'tickets'?",
        ("label", "simulate", "tickets", "--oracle", "queu"): "did you mean 'queue'?",
        ("label", "simulate", "tickets", "--oracle", "queue", "--strategy", "margn"): "did you mean 'margin'?",
        (*here, "a/b"): "dataset name 'a/b'",
        (*here, "ok", "--encoding", "klingon"): "encoding='klingon' is unknown",
        ("up", "--port", "70000"): "less than or equal to 65535",
        ("cancel", "0000"): "no run and no request begins with '0000'",
        ("user", "\udcff"): "is not valid UTF-8",
    }
    assert refusals(winnow, told) == []


def test_recipe_that_is_refused_says_why(winnow: Winnow, tmp_path: Path) -> None:
    cases = {
        "name: a\nrulez: {}": "unknown key 'rulez'; did you mean 'rules'?",
        "name: a\nrules: {word_count: {minimun: 1}}": "did you mean 'minimum'?",
        "name: a\nnear: {threshold: 1.3}": "threshold=1.3 must lie in (0, 1]",
        "name: [": "not YAML",
    }
    told = {}
    for number, (text, wanted) in enumerate(cases.items()):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text)
        told["clean", "tickets", "--recipe", str(path)] = wanted
    assert refusals(winnow, told) == []


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"prot": 1}, "WINNOW_PROT is no setting; did you mean 'port'?"),
        ({"num_workers": 0}, "num_workers='0': Input should be greater than or equal to 1"),
        ({"store_url": "file:///no/such/store"}, "store file:///no/such/store is not there"),
        ({"store_url": "nosuch://store"}, "store_url='nosuch://store' cannot be opened"),
        ({"database_url": "mysql://me:hidden@host/name"}, "me:***@host"),
        ({"database_url": "postgresql+psycopg://127.0.0.1:1/name"}, "Connection refused"),
    ],
)
def test_wrong_setting_exits_with_two_and_says_which(winnow: Winnow, settings: dict[str, object], told: str) -> None:
    done = winnow("datasets", **settings)
    assert done.code == 2
    assert told in done.err
    assert "hidden" not in done.err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("prot = 1\n", "unknown setting 'prot'; did you mean 'port'?"),
        ("port = \n", "does not parse"),
        ("\xff", "UTF-8"),
    ],
)
def test_wrong_settings_file_exits_with_two(fresh: Winnow, text: str, told: str) -> None:
    fresh.home.mkdir()
    (fresh.home / "winnow.toml").write_text(text, encoding="latin-1")
    done = fresh("init")
    assert done.code == 2
    assert told in done.err
    assert not (fresh.home / "winnow.db").exists()


def test_home_without_a_database_says_to_run_init(fresh: Winnow) -> None:
    told = dict.fromkeys([("datasets",), ("up",)], "run `winnow init`")
    assert refusals(fresh, told) == []
    assert not fresh.home.exists()


def test_database_of_a_newer_release_is_left_alone(fresh: Winnow) -> None:
    fresh.ok("init")
    database = sqlite3.connect(fresh.home / "winnow.db")
    database.execute("UPDATE alembic_version SET version_num = '9999_from_tomorrow'")
    database.commit()
    told = dict.fromkeys([("init",), ("up",)], "revision 9999_from_tomorrow, from a newer release")
    assert refusals(fresh, told) == []
    assert database.execute("SELECT version_num FROM alembic_version").fetchone() == ("9999_from_tomorrow",)
    database.close()


def test_file_that_is_no_database_is_refused(fresh: Winnow) -> None:
    fresh.home.mkdir()
    (fresh.home / "winnow.db").write_text("this is a letter to my aunt, not a database of any kind " * 40)
    assert refusals(fresh, dict.fromkeys([("datasets",), ("init",)], "not a database")) == []


def test_store_that_is_gone_is_refused_before_any_work(fresh: Winnow, tmp_path: Path) -> None:
    fresh.ok("init")
    shutil.rmtree(fresh.home / "store")
    path = corpus.write_jsonl(tmp_path / "a.jsonl", corpus.records()[:5])
    command = ("ingest", str(path), "--dataset", "tickets", "--text", "body")
    assert refusals(fresh, {command: f"store file://{fresh.home / 'store'} is not there"}) == []
    fresh.ok("init")
    assert fresh.ok("datasets") == []


def test_port_in_use_is_refused_with_what_to_do(winnow: Winnow) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = winnow("up", "--port", str(port))
    assert done.code == 2
    assert f"port {port} on 127.0.0.1" in done.err
    assert "--port" in done.err


def test_address_reachable_from_outside_is_refused_without_a_proxy(winnow: Winnow) -> None:
    done = winnow("up", "--port", "0", host="0.0.0.0")
    assert done.code == 2
    assert "WINNOW_BEHIND_PROXY" in done.err


def test_dataset_without_labels_says_which_command_supplies_them(prepared: Prepared, tmp_path: Path) -> None:
    winnow = prepared.winnow
    rows = [{"body": one["body"]} for one in corpus.records(seed=11)[:60]]
    path = corpus.write_jsonl(tmp_path / "bare.jsonl", rows)
    winnow.ok("ingest", path, "--dataset", "bare", "--text", "body")
    rehearse, train = ("label", "simulate", "bare", "--oracle", "queue"), ("train", "bare", "--recipe", "classify")
    assert refusals(winnow, {rehearse: "run `winnow clean bare --recipe"}) == []
    winnow.ok("clean", "bare", "--recipe", prepared.recipe)
    assert refusals(winnow, dict.fromkeys([rehearse, train], "--label COLUMN")) == []
    assert refusals(winnow, dict.fromkeys([rehearse], "`winnow label create bare --schema labels.yaml`")) == []
