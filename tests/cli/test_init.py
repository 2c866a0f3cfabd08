"""``winnow init`` and ``winnow user``: the home folder and who may come in."""

import stat

import httpx
import pytest

from tests.cli.command import Winnow
from tests.cli.conftest import Prepared

pytestmark = pytest.mark.xdist_group("cli")


def test_token_is_shown_once_and_kept_in_a_file_for_the_owner_alone(fresh: Winnow) -> None:
    first = fresh("init")
    token = first.out.strip()
    assert first.code == 0
    assert token.startswith("wnw_")
    assert token not in first.err
    file = fresh.home / "admin.token"
    assert file.read_text().strip() == token
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(fresh.home.stat().st_mode) == 0o700


def test_second_init_changes_nothing_and_shows_no_token(fresh: Winnow) -> None:
    first = fresh.ok("init")
    token = (fresh.home / "admin.token").read_text()
    second = fresh.ok("init")
    assert (first["migrated"], second["migrated"]) == (True, False)
    assert second["token"] is None
    assert (fresh.home / "admin.token").read_text() == token
    assert token.strip() not in fresh("init").out


def test_two_homes_have_different_tokens(fresh: Winnow) -> None:
    one = fresh.ok("init")["token"]
    other = Winnow(fresh.home.with_name("other")).ok("init")["token"]
    assert one.split("_")[1] != other.split("_")[1]
    assert one.split("_")[2] != other.split("_")[2]


def test_home_option_wins_over_the_environment_and_may_be_relative(fresh: Winnow) -> None:
    elsewhere = fresh.home.with_name("elsewhere")
    assert fresh.ok("--home", str(elsewhere), "init")["home"] == str(elsewhere)
    assert not fresh.home.exists()
    assert Winnow(elsewhere).ok("datasets") == []


def test_home_that_is_a_file_is_refused(fresh: Winnow) -> None:
    fresh.home.write_text("not a folder")
    done = fresh("init")
    assert done.code == 2
    assert str(fresh.home) in done.err
    assert "--home" in done.err


def test_new_token_lets_its_owner_in_with_the_role_given(prepared: Prepared) -> None:
    made = prepared.winnow.ok("user", "민지", "--role", "annotator")
    assert made["role"] == "annotator"
    header = {"Authorization": f"Bearer {made['token']}"}
    assert httpx.get(f"{prepared.url}/api/v1/datasets", headers=header).status_code in (200, 403)
    wrong = {"Authorization": f"Bearer {made['token'][:-1]}"}
    assert httpx.get(f"{prepared.url}/api/v1/datasets", headers=wrong).status_code == 401


def test_token_of_another_role_than_the_person_has_is_refused(winnow: Winnow) -> None:
    done = winnow("user", "admin", "--role", "annotator")
    assert done.code == 2
    assert "'admin' is admin, not annotator" in done.err
    assert winnow.ok("user", "admin")["role"] == "admin"


def test_unknown_role_is_refused_with_the_known_ones(winnow: Winnow) -> None:
    done = winnow("user", "somebody", "--role", "anotator")
    assert done.code == 2
    assert "did you mean 'annotator'?" in done.err
