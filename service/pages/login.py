"""Log in with a token, log out."""

from typing import Annotated
from urllib.parse import parse_qs

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from catalog.errors import AuthError
from service.api.access import Anyone, Catalogued
from service.auth import SESSION_LIFETIME, TooManyRequestsError, end_session, identify, start_session
from service.gate import SESSION_COOKIE, client_address
from service.pages.rendering import render

router = APIRouter(include_in_schema=False)


async def form_fields(request: Request) -> dict[str, str]:
    """The fields of a plain HTML form; the gate has bounded its size."""
    body = (await request.body()).decode("utf-8", "replace")
    return {name: values[0] for name, values in parse_qs(body, max_num_fields=20).items()}


def local_path(target: str) -> str:
    """A path on this site, or ``/``: never an address elsewhere, so that a link cannot send a fresh login away.

    Examples
    --------
    >>> local_path("/label/7?x=1"), local_path("//evil.example"), local_path("https://evil.example")
    ('/label/7?x=1', '/', '/')
    """
    local = target.startswith("/") and target[1:2] not in ("/", "\\") and target.isprintable() and "\\" not in target
    return target if local else "/"


@router.get("/login")
def show_login(request: Request, next: str = "/") -> Response:  # noqa: A002 - the word every login page uses
    """The login form."""
    return render(request, "login.html", target=local_path(next), problem=None)


@router.post("/login")
def log_in(request: Request, catalog: Catalogued, fields: Annotated[dict[str, str], Depends(form_fields)]) -> Response:
    """Exchange a token for a session cookie; the token itself never goes into the browser's storage."""
    target = local_path(fields.get("next", "/"))
    token = fields.get("token", "").strip()
    try:
        who = identify(catalog, token=token, address=client_address(request), by_cookie=False)
    except AuthError:
        problem = "That token is not valid. Ask an administrator for a new one."
        return render(request, "login.html", status_code=401, target=target, problem=problem)
    except TooManyRequestsError as error:
        headers = {"Retry-After": "60"}
        problem = f"Not checked: {error}."
        return render(request, "login.html", status_code=429, headers=headers, target=target, problem=problem)
    with catalog.write() as session:
        cookie = start_session(session, now=catalog.now(session), user_id=who.user_id, token_id=who.token_id)
    answer = RedirectResponse(target, status_code=303)
    answer.set_cookie(
        SESSION_COOKIE,
        cookie,
        max_age=int(SESSION_LIFETIME.total_seconds()),
        httponly=True,
        samesite="strict",
        secure=catalog.settings.behind_proxy or request.url.scheme == "https",
    )
    return answer


@router.post("/logout")
def log_out(catalog: Catalogued, who: Anyone) -> Response:
    """End this web session, in the database as well as in the browser."""
    if who.by_cookie:
        with catalog.write() as session:
            end_session(session, now=catalog.now(session), token_id=who.token_id, actor=who.user_id)
    answer = RedirectResponse("/login", status_code=303)
    answer.delete_cookie(SESSION_COOKIE, httponly=True, samesite="strict")
    return answer
