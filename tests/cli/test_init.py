"""``winnow init`` and ``winnow user``: the home folder and who may come in."""

import stat

import httpx

from tests.cli.command import Winnow
from tests.cli.conftest import Prepared


def test_token_is_shown_once_kept_for_the_owner_alone_and_differs_between_homes(fresh: Winnow) -> None:
    first = fresh("init")
    token = first.out.strip()
    assert first.code == 0
    assert token.startswith("wnw_")
    assert token not in first.err
    file = fresh.home / "admin.token"
    assert file.read_text().strip() == token
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(fresh.home.stat().st_mode) == 0o700
    second = fresh.ok("init")
    assert (second["migrated"], second["token"]) == (False, None)
    assert file.read_text().strip() == token
    other = Winnow(fresh.home.with_name("other")).ok("init")["token"]
    for mine, theirs in zip(token.split("_")[1:], other.split("_")[1:], strict=False):
        assert mine != theirs


def test_home_option_wins_over_the_environment(fresh: Winnow) -> None:
    elsewhere = fresh.home.with_name("elsewhere")
    assert fresh.ok("--home", str(elsewhere), "init")["home"] == str(elsewhere)
    assert (elsewhere / "winnow.db").exists()
    assert not fresh.home.exists()


def test_home_that_is_a_file_is_refused(fresh: Winnow) -> None:
    fresh.home.write_text("not a folder")
    done = fresh("init")
    assert done.code == 2
    assert str(fresh.home) in done.err
    assert "--home" in done.err


def test_new_token_lets_its_owner_in(prepared: Prepared) -> None:
    made = prepared.winnow.ok("user", "민지", "--role", "curator")
    assert made["role"] == "curator"
    answers = [
        httpx.get(f"{prepared.url}/api/v1/datasets", headers={"Authorization": f"Bearer {token}"}).status_code
        for token in (made["token"], made["token"][:-1])
    ]
    assert answers == [200, 401]


def test_revoked_person_is_out_at_once_until_given_a_new_token(prepared: Prepared) -> None:
    winnow = prepared.winnow
    first, second = winnow.ok("user", "수아")["token"], winnow.ok("user", "수아")["token"]

    def answers(*tokens: str) -> list[int]:
        headers = [{"Authorization": f"Bearer {token}"} for token in tokens]
        return [httpx.get(f"{prepared.url}/api/v1/queues", headers=one).status_code for one in headers]

    assert 401 not in answers(first, second)
    assert winnow.ok("user", "수아", "--revoke") == {"user": "수아", "revoked": 2}
    assert answers(first, second) == [401, 401]
    assert 401 not in answers(winnow.ok("user", "수아")["token"])
    again, unknown, confused = winnow.each(
        ["user", "수아", "--revoke"], ["user", "수안", "--revoke"], ["user", "수아", "--revoke", "--role", "curator"]
    )
    assert (again.code, "1 tokens and web sessions of 수아 ended" in again.err) == (0, True)
    assert unknown.code == confused.code == 2
    assert "there is no user '수안'; did you mean '수아'?" in unknown.err
    assert "leave one of them out" in confused.err


def test_token_of_another_role_than_the_person_has_is_refused(winnow: Winnow) -> None:
    other, unknown = winnow.each(["user", "admin", "--role", "annotator"], ["user", "somebody", "--role", "anotator"])
    assert other.code == 2
    assert "'admin' is admin, not annotator" in other.err
    assert unknown.code == 2
    assert "did you mean 'annotator'?" in unknown.err
