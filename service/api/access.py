"""What handlers ask of a request: the catalog, who is asking, and whether their role may."""

from collections.abc import Awaitable, Callable, Iterator
from typing import Annotated

from fastapi import Depends, Query
from fastapi.dependencies.models import Dependant
from starlette.requests import Request

from catalog.database import Catalog
from catalog.errors import ConfigError, ForbiddenError, nearest
from catalog.tables.access import ROLES
from service.auth import Identity
from service.counting import Counting

MAX_PAGE = 200


# Asynchronous, though they wait for nothing: the framework sends every other function through a thread.


async def get_catalog(request: Request) -> Catalog:
    """The catalog that the application was made with."""
    catalog: Catalog = request.app.state.catalog
    return catalog


async def get_identity(request: Request) -> Identity:
    """The identity that the gate established; a route reached without one is our own bug."""
    identity: Identity = request.state.identity
    return identity


async def get_counting(request: Request) -> Counting:
    """The one of the application."""
    counting: Counting = request.app.state.counting
    return counting


async def known_parameters(request: Request) -> None:
    """Refuse query parameters that the route does not have: a filter that is mistyped would show everything.

    Raises
    ------
    ConfigError : with the nearest that it has.
    """
    known = set(_names(request.scope["route"].dependant)) if request.query_params else set()
    for name in request.query_params:
        if name not in known:
            raise ConfigError(f"unknown query parameter {name[:40]!r}; {nearest(name[:40], known)}")


def _names(dependant: Dependant) -> Iterator[str]:
    yield from (one.alias for one in dependant.query_params)
    for needed in dependant.dependencies:
        yield from _names(needed)


def needs(*roles: str) -> Callable[[Request], Awaitable[Identity]]:
    """A dependency that lets only these roles in.

    Raises
    ------
    ForbiddenError : the token is valid but its role is another.
    """

    async def check(request: Request) -> Identity:
        identity = await get_identity(request)
        if identity.role not in roles:
            raise ForbiddenError(f"role {identity.role!r} may not do this; it takes {' or '.join(roles)}")
        return identity

    return check


Catalogued = Annotated[Catalog, Depends(get_catalog)]
Counted = Annotated[Counting, Depends(get_counting)]
Anyone = Annotated[Identity, Depends(get_identity)]
Reviewer = Annotated[Identity, Depends(needs(*ROLES[: ROLES.index("reviewer") + 1]))]
Curator = Annotated[Identity, Depends(needs(*ROLES[: ROLES.index("curator") + 1]))]
Admin = Annotated[Identity, Depends(needs(*ROLES[: ROLES.index("admin") + 1]))]
PageSize = Annotated[int, Query(alias="limit", ge=1, le=MAX_PAGE, description="items a page holds at most")]


def number_cursor(after: str | None) -> int:
    """Parse a cursor that is a number; no cursor is 0.

    Raises
    ------
    ConfigError : it is not one that a page gave out.
    """
    if after is None:
        return 0
    if not (after.isascii() and after.isdigit() and len(after) <= 18):
        raise ConfigError(f"after={after[:40]!r} is no cursor; send back `next` of the page before")
    return int(after)
