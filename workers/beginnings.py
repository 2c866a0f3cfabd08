"""Things by their id or the first characters of it, as commands print it."""

from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog.errors import NotFoundError
from catalog.tables.base import Base

MIN_CHARS = 4
Row = TypeVar("Row", bound=Base)


class AmbiguousIdError(NotFoundError):
    """The beginning of an id that several things have, or that is too short to mean one."""

    code = "ambiguous_id"


def find(session: Session, table: type[Row], beginning: str, *, what: str, see: str) -> Row:
    """The one row whose id is, or begins with, what was given.

    Parameters
    ----------
    what : what a row is, in words. see : the command or path that lists them.

    Raises
    ------
    AmbiguousIdError : several begin so, or it has fewer than ``MIN_CHARS`` characters. NotFoundError : none does.
    """
    exact = session.get(table, beginning)
    if exact is not None:
        return exact
    if len(beginning) < MIN_CHARS:
        least = f"give its first {MIN_CHARS} characters or more"
        raise AmbiguousIdError(f"{beginning!r} is too short for the id of a {what}; {least}, see {see}")
    id_ = table.__table__.c.id
    found = session.scalars(select(table).where(id_.startswith(beginning[:100], autoescape=True)).limit(2)).all()
    if len(found) > 1:
        raise AmbiguousIdError(f"several {what}s begin with {beginning!r}; give more of the id, see {see}")
    if not found:
        raise NotFoundError(f"no {what} begins with {beginning[:100]!r}; see {see}")
    return found[0]
