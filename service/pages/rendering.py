"""Templates to pages. Everything is escaped; a name that a template lacks is an error, not a blank."""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse

from service.sizes import size_text


@cache
def environment() -> Environment:
    """The templates, with our filters."""
    environment = Environment(
        loader=PackageLoader("service", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = spaced
    environment.filters["marked"] = marked
    environment.filters["moment"] = moment
    environment.filters["share"] = share
    environment.filters["size"] = size_text
    return environment


def render(
    request: Request,
    template: str,
    *,
    status_code: int = 200,
    headers: Mapping[str, str] | None = None,
    **context: Any,
) -> HTMLResponse:
    """One page. ``me`` is the identity that the gate put on the request, or None before login."""
    me = getattr(request.state, "identity", None)
    html = environment().get_template(template).render(me=me, path=request.url.path, **context)
    return HTMLResponse(html, status_code=status_code, headers=dict(headers or {}))


def marked(text: str) -> Markup:
    """Text in which commands stand between backticks, those as code.

    >>> marked("failed: `winnow resume <x>`")
    Markup('failed: <code>winnow resume &lt;x&gt;</code>')
    """
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if index % 2 else escape(part) for index, part in enumerate(parts)
    )


def spaced(value: int) -> str:
    """A count with thin groups of three digits.

    >>> spaced(1234567)
    '1 234 567'
    """
    return f"{value:,}".replace(",", " ")


def moment(value: datetime | None) -> str:
    """A time as people read it, in UTC.

    >>> moment(datetime(2026, 1, 2, 3, 4, tzinfo=UTC))
    '2026-01-02 03:04 UTC'
    >>> moment(None)
    '–'
    """
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC") if value else "–"


def share(part: float, whole: float) -> str:
    """A percentage with one digit; nothing out of nothing is a dash.

    >>> share(1, 8), share(0, 0)
    ('12.5 %', '–')
    """
    return f"{100 * part / whole:.1f} %" if whole else "–"
