"""``winnow init``, ``user``, ``datasets``: the home folder, who may do what, what there is."""

import os
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import select

from catalog import migrate
from catalog.database import Catalog
from catalog.errors import ConfigError, NotFoundError, nearest
from catalog.settings import load_settings
from catalog.store import Store
from catalog.tables.access import ROLES, User
from catalog.tables.datasets import Dataset, Version
from service.auth import create_user, issue_token, revoke_all
from service.cli.output import AsJson, database_refusals, emit_json, emit_table, say, show, workspace

ADMIN = "admin"
TOKEN_FILE = "admin.token"  # noqa: S105 - a file name


def add(app: typer.Typer) -> None:
    """Register this module's commands."""
    app.command("init")(init)
    app.command("user")(user)
    app.command("datasets")(datasets)


def init(*, json: AsJson = False) -> None:
    """Create the home folder, the database and the first admin token, or bring an older database up to date."""
    settings = load_settings()
    try:
        settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(
            f"home {settings.home} cannot be made ({error.strerror}); choose another folder with --home or WINNOW_HOME"
        ) from error
    catalog = Catalog(settings)
    with database_refusals(settings):
        was_there = migrate.has_schema(catalog)
        changed = migrate.upgrade(catalog)
    Store.of(settings).create()
    token_path = settings.home / TOKEN_FILE
    token = _first_admin(catalog, token_path)
    if json:
        emit_json({"home": str(settings.home), "migrated": changed, "token": token, "token_file": str(token_path)})
        return
    say(f"home      {settings.home}")
    done = "made" if not was_there else "migrated" if changed else "up to date"
    say(f"database  {catalog.engine.url.render_as_string()} ({done})")
    say(f"store     {settings.store}")
    if token is None:
        say("an admin exists already; nothing was changed. New tokens: `winnow user NAME --role annotator`")
        return
    say(f"admin token, shown this once, also in {token_path} (mode 0600):")
    show(token)
    say("next: `winnow up` in one terminal, `winnow ingest FILES --dataset NAME --text COLUMN` in another")


def _first_admin(catalog: Catalog, path: Path) -> str | None:
    with catalog.write() as session:
        if session.scalars(select(User).where(User.role == "admin")).first() is not None:
            return None
        now = catalog.now(session)
        admin = create_user(session, now=now, name=ADMIN, role="admin")
        token = issue_token(session, now=now, user_id=admin.id, days=catalog.settings.token_days)
        # Within the transaction: an admin whose token nobody could read would lock everybody out.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.fchmod(descriptor, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(token + "\n")
    return token


def user(
    name: Annotated[str, typer.Argument(help="Name of the person or program.")],
    *,
    role: Annotated[
        str | None, typer.Option(help=f"One of {', '.join(ROLES)}; a new person's default: annotator.")
    ] = None,
    revoke: Annotated[
        bool, typer.Option("--revoke", help="End every token and web session of this person instead.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Give somebody a new token; the person is created if unknown. Shown once."""
    catalog = workspace()
    if revoke:
        _revoke(catalog, name, role, as_json=json)
        return
    with catalog.write() as session:
        now = catalog.now(session)
        found = session.scalars(select(User).where(User.name == name)).one_or_none()
        if found is not None and role not in (None, found.role):
            raise ConfigError(f"{name!r} is {found.role}, not {role}; leave --role out, or choose another name")
        person = found or create_user(session, now=now, name=name, role=role or "annotator", actor="command line")
        token = issue_token(session, now=now, user_id=person.id, days=catalog.settings.token_days, actor="command line")
        shown = {"user": name, "role": person.role, "token": token}
    if json:
        emit_json(shown)
        return
    say(f"token of {name} ({shown['role']}), valid {catalog.settings.token_days} days, shown this once:")
    show(token)


def _revoke(catalog: Catalog, name: str, role: str | None, *, as_json: bool) -> None:
    if role is not None:
        raise ConfigError("--revoke ends tokens and gives none, so --role has nothing to say; leave one of them out")
    with catalog.write() as session:
        person = session.scalars(select(User).where(User.name == name)).one_or_none()
        if person is None:
            raise NotFoundError(f"there is no user {name!r}; {nearest(name, session.scalars(select(User.name)))}")
        revoked = revoke_all(session, now=catalog.now(session), user_id=person.id, actor="command line")
    if as_json:
        emit_json({"user": name, "revoked": revoked})
        return
    say(f"{revoked} tokens and web sessions of {name} ended; a new token: `winnow user {name}`")


def datasets(*, json: AsJson = False) -> None:
    """List datasets and their versions, with the recipe that made each."""
    catalog = workspace()
    with catalog.read() as session:
        rows = session.execute(
            select(
                *(Dataset.name, Version.number, Version.kind, Version.num_records),
                *(Version.summary["recipe"].as_string(), Version.created_at),
            )
            .outerjoin(Version, Version.dataset_id == Dataset.id)
            .order_by(Dataset.name, Version.number)
        ).all()
    header = ("dataset", "version", "kind", "records", "recipe", "published")
    if json:
        emit_json([dict(zip(header, row, strict=True)) for row in rows])
        return
    emit_table("", header, [(*row[:5], row[5].strftime("%Y-%m-%d %H:%M") if row[5] else "") for row in rows])
    if not rows:
        say("no dataset yet: `winnow ingest FILES --dataset NAME --text COLUMN`")
