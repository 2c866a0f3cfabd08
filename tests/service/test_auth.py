"""Tokens and users: what is stored, what is refused, and that refusals do not differ."""

import hashlib
import re
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from catalog.errors import AuthError, ConfigError, ConflictError, NotFoundError
from catalog.tables.access import AuditEntry, Token
from service.auth import authenticate, create_user, issue_token, revoke_all, revoke_token, start_session

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def user(database):
    with database.write() as session:
        return create_user(session, now=NOW, name="김민아", role="curator").id


@pytest.fixture
def token(database, user):
    with database.write() as session:
        return issue_token(session, now=NOW, user_id=user, days=90)


def ask(catalog, token, now=NOW):
    with catalog.write() as session:
        return authenticate(session, now=now, token=token).name


def test_token_has_the_documented_form_and_only_its_hash_is_stored(database, token):
    assert re.fullmatch(r"wnw_[0-9a-f]{16}_[A-Za-z0-9_-]{43}", token)
    with database.read() as session:
        row = session.scalars(select(Token)).one()
        stored = {column.name: str(getattr(row, column.name)) for column in Token.__table__.columns}
    assert stored["sha256"] == hashlib.sha256(token.encode()).hexdigest()
    assert token[21:] not in " ".join(stored.values())


def test_valid_token_names_its_user(database, token):
    assert ask(database, token) == "김민아"


def wrong_tokens(token):
    flipped = token[:-1] + ("A" if token[-1] != "A" else "B")
    unknown = token.replace(token[4:20], "f" * 16)
    return [
        "",
        "wnw_",
        token[:-1],
        token + "A",
        token.upper(),
        flipped,
        unknown,
        "키",
        "\udcff",
        token + "\n",
        f" {token}",
    ]


def test_every_wrong_token_is_refused_with_one_message(database, token):
    messages = set()
    for wrong in wrong_tokens(token):
        with pytest.raises(AuthError) as caught:
            ask(database, wrong)
        messages.add(str(caught.value))
    with pytest.raises(AuthError) as caught:
        ask(database, token, NOW + timedelta(days=90))
    messages.add(str(caught.value))
    with database.write() as session:
        revoke_token(session, now=NOW, token_id=token[4:20])
    with pytest.raises(AuthError) as caught:
        ask(database, token)
    messages.add(str(caught.value))
    assert len(messages) == 1


def test_token_works_until_the_moment_it_expires(database, token):
    assert ask(database, token, NOW + timedelta(days=90, seconds=-1)) == "김민아"


def test_session_never_outlives_its_token(database, user):
    with database.write() as session:
        token = issue_token(session, now=NOW, user_id=user, days=1)
        late = NOW + timedelta(hours=20)
        cookie = start_session(session, now=late, user_id=user, token_id=token[4:20])
    assert ask(database, cookie, NOW + timedelta(hours=23)) == "김민아"
    with pytest.raises(AuthError):
        ask(database, cookie, NOW + timedelta(hours=24))


def test_revoking_a_token_ends_the_sessions_of_its_user_but_not_other_tokens(database, user, token):
    with database.write() as session:
        other = issue_token(session, now=NOW, user_id=user, days=90)
        cookie = start_session(session, now=NOW, user_id=user, token_id=token[4:20])
        revoke_token(session, now=NOW, token_id=token[4:20])
    with pytest.raises(AuthError):
        ask(database, cookie)
    assert ask(database, other) == "김민아"


def test_revoking_all_of_a_user_ends_every_token_and_session_and_nobody_elses(database, user, token):
    with database.write() as session:
        other = issue_token(session, now=NOW, user_id=user, days=90)
        expired = issue_token(session, now=NOW - timedelta(days=9), user_id=user, days=1)
        cookie = start_session(session, now=NOW, user_id=user, token_id=token[4:20])
        friend = create_user(session, now=NOW, name="민호", role="annotator").id
        kept = issue_token(session, now=NOW, user_id=friend, days=90)
        assert revoke_all(session, now=NOW, user_id=user, actor="command line") == 3
        assert revoke_all(session, now=NOW, user_id=user, actor="command line") == 0
    for ended in (token, other, expired, cookie):
        with pytest.raises(AuthError):
            ask(database, ended)
    assert ask(database, kept) == "민호"
    with database.read() as session:
        told = session.scalars(select(AuditEntry).where(AuditEntry.action == "token.revoked")).all()
    assert {one.object for one in told} == {f"token:{one[4:20]}" for one in (token, other)}
    assert {one.actor for one in told} == {"command line"}


def test_users_and_tokens_refuse_what_makes_no_sense(database, user):
    with database.write() as session:
        with pytest.raises(ConfigError, match="did you mean 'annotator'"):
            create_user(session, now=NOW, name="a", role="anotator")
        with pytest.raises(ConflictError, match="김민아"):
            create_user(session, now=NOW, name="김민아", role="admin")
        for name in ("", " a", "a\nb", "x" * 201):
            with pytest.raises(ConfigError):
                create_user(session, now=NOW, name=name, role="admin")
        with pytest.raises(ConfigError, match="days=0"):
            issue_token(session, now=NOW, user_id=user, days=0)
        with pytest.raises(NotFoundError):
            issue_token(session, now=NOW, user_id="nobody", days=1)
        with pytest.raises(NotFoundError):
            revoke_token(session, now=NOW, token_id="0" * 16)
