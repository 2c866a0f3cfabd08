"""Who is asking: users, bearer tokens, web sessions, failed guesses and the audit trail.

A web session is a short-lived token of the same kind, issued by the login page and held in a cookie. Failed guesses are
counted in the database (the audit trail itself), so the limit holds over processes and restarts; a valid token always
passes, so guessing locks nobody out.
"""

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session

from catalog.database import Catalog, among
from catalog.errors import AuthError, ConfigError, ConflictError, NotFoundError, ServiceError, nearest
from catalog.tables.access import ROLES, AuditEntry, Token, User

TOKEN = re.compile(r"wnw_([0-9a-f]{16})_([A-Za-z0-9_-]{43})", re.ASCII)
REFUSAL = "a valid token is required: send 'Authorization: Bearer wnw_…', or log in at /login"
SESSION_LIFETIME = timedelta(hours=12)
GUESSES_PER_MINUTE = 10
FAILED_LOGIN = "login.failed"


class TooManyRequestsError(ServiceError):
    """Too many failed logins came from one address: wait a minute."""

    code = "too_many_requests"
    status = 429


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """The user behind one request.

    Parameters
    ----------
    user_id, name, role : of the user.
    token_id : the public part of the token that proved it.
    by_cookie : True for a web session, whose writes must also prove that they come from our own pages.
    """

    user_id: str
    name: str
    role: str
    token_id: str
    by_cookie: bool


def create_user(session: Session, *, now: datetime, name: str, role: str, actor: str = "system") -> User:
    """Add a user; the session's owner commits.

    Raises
    ------
    ConfigError : the role does not exist, or the name is empty, too long or holds control characters.
    ConflictError : the name is taken.
    """
    if role not in ROLES:
        raise ConfigError(f"no role named {role!r}; {nearest(role, ROLES)}")
    if not 1 <= len(name) <= 200 or not name.isprintable() or name != name.strip():
        raise ConfigError(f"user name {name!r} must be 1 to 200 printable characters without spaces at its ends")
    if session.scalar(select(User.id).where(User.name == name)) is not None:
        raise ConflictError(f"a user named {name!r} exists; choose another name")
    user = User(name=name, role=role, created_at=now)
    session.add(user)
    session.flush()
    audit(session, now=now, actor=actor, action="user.created", target=f"user:{user.id}", detail={"role": role})
    return user


def issue_token(session: Session, *, now: datetime, user_id: str, days: int, actor: str = "system") -> str:
    """Make a bearer token for a user and return it: the only time it is readable.

    Parameters
    ----------
    days : until it expires, at least 1.

    Raises
    ------
    NotFoundError : no such user.
    ConfigError : ``days`` is below 1.
    """
    if days < 1:
        raise ConfigError(f"days={days} must be at least 1")
    return _issue(session, now=now, user_id=user_id, lifetime=timedelta(days=days), action="token.issued", actor=actor)


def start_session(session: Session, *, now: datetime, user_id: str, token_id: str) -> str:
    """Exchange a proven token for a web session of at most ``SESSION_LIFETIME``, never longer than the token itself.

    Raises
    ------
    NotFoundError : the token or its user has gone.
    """
    parent = session.get(Token, token_id)
    if parent is None:
        raise NotFoundError(f"no token {token_id!r}")
    lifetime = min(SESSION_LIFETIME, parent.expires_at - now)
    return _issue(session, now=now, user_id=user_id, lifetime=lifetime, action="session.started", actor=user_id)


def _issue(session: Session, *, now: datetime, user_id: str, lifetime: timedelta, action: str, actor: str) -> str:
    if session.get(User, user_id) is None:
        raise NotFoundError(f"no user with id {user_id!r}")
    token_id = secrets.token_hex(8)
    token = f"wnw_{token_id}_{secrets.token_urlsafe(32)}"
    session.add(Token(id=token_id, user_id=user_id, sha256=_digest(token), created_at=now, expires_at=now + lifetime))
    detail = {"user_id": user_id, "expires_at": (now + lifetime).isoformat()}
    audit(session, now=now, actor=actor, action=action, target=f"token:{token_id}", detail=detail)
    return token


def revoke_token(session: Session, *, now: datetime, token_id: str, actor: str = "system") -> None:
    """End a token at once, and with it every web session that its user has.

    Raises
    ------
    NotFoundError : no token has this id.
    """
    token = session.get(Token, token_id)
    if token is None:
        raise NotFoundError(f"no token {token_id!r}")
    for one in session.scalars(select(Token).where(Token.user_id == token.user_id, Token.revoked_at.is_(None))):
        if one.id == token_id or one.expires_at - one.created_at <= SESSION_LIFETIME:
            one.revoked_at = now
    audit(session, now=now, actor=actor, action="token.revoked", target=f"token:{token_id}")


def revoke_all(session: Session, *, now: datetime, user_id: str, actor: str = "system") -> int:
    """End every token and web session of a user at once; return how many there were."""
    alive = session.scalars(
        select(Token).where(Token.user_id == user_id, Token.revoked_at.is_(None), Token.expires_at > now)
    ).all()
    for one in alive:
        # The first took the web sessions with it.
        if one.revoked_at is None:
            revoke_token(session, now=now, token_id=one.id, actor=actor)
    return len(alive)


def end_session(session: Session, *, now: datetime, token_id: str, actor: str) -> None:
    """Log out: end this one web session."""
    token = session.get(Token, token_id)
    if token is not None and token.revoked_at is None:
        token.revoked_at = now
        audit(session, now=now, actor=actor, action="session.ended", target=f"token:{token_id}")


def authenticate(session: Session, *, now: datetime, token: str) -> User:
    """The user whose token this is.

    Raises
    ------
    AuthError : the token is malformed, unknown, wrong, expired or revoked; the message is always the same.
    """
    found = _matching(session, token)
    if found is None or found.Token.revoked_at is not None or found.Token.expires_at <= now:
        raise AuthError(REFUSAL)
    user: User = found.User
    return user


def identify(catalog: Catalog, *, token: str, address: str, by_cookie: bool) -> Identity:
    """Authenticate one request, counting and recording failed guesses by address.

    Raises
    ------
    AuthError : as ``authenticate``.
    TooManyRequestsError : the address has guessed wrongly ``GUESSES_PER_MINUTE`` times within a minute.
    """
    with catalog.read() as session:
        now = catalog.now(session)
        try:
            user = authenticate(session, now=now, token=token)
            match = TOKEN.fullmatch(token)
            assert match is not None, "authenticate refuses malformed tokens"
            return Identity(
                user_id=user.id, name=user.name, role=user.role, token_id=match.group(1), by_cookie=by_cookie
            )
        except AuthError:
            # An expired or revoked token of ours is no guess: a forgotten open page must not use up the limit.
            guessed = _matching(session, token) is None
            exhausted = guessed and _num_failures(session, now=now, address=address) >= GUESSES_PER_MINUTE
    if exhausted:
        raise TooManyRequestsError("too many failed logins from this address; wait a minute")
    if guessed:
        with catalog.write() as session:
            audit(session, now=now, actor=f"ip:{address}", action=FAILED_LOGIN, target="login")
    raise AuthError(REFUSAL)


class Claim(NamedTuple):
    """A token, and whether a cookie brought it."""

    token: str
    by_cookie: bool


def identities(catalog: Catalog, claims: Sequence[Claim]) -> list[Identity | None]:
    """Whose tokens these are, for many requests in one look; None where ``identify`` has to say what is wrong."""
    matches = [TOKEN.fullmatch(one.token) for one in claims]
    known = {match.group(1) for match in matches if match}
    columns = (Token.id, Token.sha256, Token.revoked_at, Token.expires_at, User.id, User.name, User.role)
    with catalog.glance() as session:
        query = select(*columns).join(User, User.id == Token.user_id).where(among(session, Token.id, known))
        rows = {row[0]: row[1:] for row in session.execute(query)} if known else {}
        now = catalog.now(session)
    found: list[Identity | None] = []
    for claim, match in zip(claims, matches, strict=True):
        row = rows.get(match.group(1)) if match else None
        if match is None or row is None:
            found.append(None)
            continue
        sha256, revoked_at, expires_at, user_id, name, role = row
        is_valid = secrets.compare_digest(_digest(claim.token), sha256) and revoked_at is None and expires_at > now
        who = Identity(user_id=user_id, name=name, role=role, token_id=match.group(1), by_cookie=claim.by_cookie)
        found.append(who if is_valid else None)
    return found


def audit(
    session: Session,
    *,
    now: datetime,
    actor: str,
    action: str,
    target: str,
    detail: dict[str, Any] | None = None,
) -> None:
    """Append one line to the audit trail, in the transaction of what it records."""
    session.add(AuditEntry(at=now, actor=actor, action=action, object=target, detail=detail or {}))


def _matching(session: Session, token: str) -> Row[Token, User] | None:
    match = TOKEN.fullmatch(token)
    query = select(Token, User).join(User, User.id == Token.user_id)
    row = session.execute(query.where(Token.id == match.group(1))).one_or_none() if match else None
    # Compared even when nothing was found, so that the time taken tells nothing about which ids exist.
    same = secrets.compare_digest(_digest(token), row.Token.sha256 if row else _digest(""))
    return row if row is not None and same else None


def _num_failures(session: Session, *, now: datetime, address: str) -> int:
    recent = select(func.count()).where(
        AuditEntry.at > now - timedelta(minutes=1),
        AuditEntry.action == FAILED_LOGIN,
        AuditEntry.actor == f"ip:{address}",
    )
    return session.scalar(recent) or 0


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
