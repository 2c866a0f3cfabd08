"""What every request passes before any handler: host, size, login; and the headers that every answer carries.

Deny by default: the gate stands before routing, so a route added tomorrow, a mount or a mistyped path is behind the
login too. Only ``PUBLIC`` is not.
"""

import logging
import re
from urllib.parse import quote, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from catalog.database import Catalog
from catalog.errors import AuthError, ForbiddenError
from service.auth import REFUSAL, Claim, Identity, TooManyRequestsError, identify, identities
from service.errors import error_response
from service.together import Together

PUBLIC = frozenset({"/health", "/login", "/ready"})
STATIC = "/static/"
SESSION_COOKIE = "winnow_session"
MAX_BODY_BYTES = 2**20
MAX_IMPORT_BYTES = 16 * 2**20
"""Of a file with answers: it is read and checked by this process, beside everybody's requests."""
IMPORT = re.compile(r"/api/v1/queues/[^/]+/import")
LOOPBACK = frozenset({"127.0.0.1", "::1"})
FOR_PROGRAMS = ("/api/", "/metrics")
"""Paths that answer who lacks a login with an error instead of the login page."""
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

logger = logging.getLogger(__name__)


class Gate:
    """ASGI middleware around the whole application.

    Parameters
    ----------
    app : what lies behind.
    catalog : where tokens are looked up.
    allowed_hosts : host names answered, without port; anything else is a DNS rebinding attempt or a misconfiguration.
    open_to_loopback : paths that programs on this machine may read without a token.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        catalog: Catalog,
        allowed_hosts: frozenset[str],
        open_to_loopback: frozenset[str] = frozenset(),
    ) -> None:
        self._app = app
        self._catalog = catalog
        self._allowed_hosts = allowed_hosts
        self._open_to_loopback = open_to_loopback
        self._identities: Together[Claim, Identity | None] = Together(
            "gate", lambda _, claims, _end_turn: identities(catalog, claims), num_threads=1
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request in, or answer it here."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        request = Request(scope, receive)
        guarded = _Guarded(send, cacheable=request.url.path.startswith(STATIC))
        try:
            self._check_host(request)
            counted = _limited(request, receive)
            refusal = await self._let_in(request)
            if refusal is None:
                await self._app(scope, counted, guarded)
            else:
                await refusal(scope, receive, guarded)
        except Exception as error:
            answer = error_response(request, error)
            if answer.status_code >= 500:
                logger.exception("%s %s failed", request.method, request.url.path)
            if not guarded.started:
                await answer(scope, receive, guarded)

    def _check_host(self, request: Request) -> None:
        host = _host_name(request.headers.get("host", ""))
        if host not in self._allowed_hosts:
            raise HTTPException(400, "this host name is not answered; add it to WINNOW_ALLOWED_HOSTS")

    async def _let_in(self, request: Request) -> Response | None:
        path = request.url.path
        if path in PUBLIC or path.startswith(STATIC):
            if request.method not in SAFE_METHODS:
                _check_origin(request.headers)
            return None
        if path in self._open_to_loopback and client_address(request) in LOOPBACK and request.method in SAFE_METHODS:
            return None
        try:
            identity = await self._identify(request)
        except (AuthError, TooManyRequestsError):
            if path.startswith(FOR_PROGRAMS) or request.method not in SAFE_METHODS:
                raise
            target = path + (f"?{request.url.query}" if request.url.query else "")
            return RedirectResponse(f"/login?next={quote(target, safe='')}", status_code=303)
        if identity.by_cookie and request.method not in SAFE_METHODS:
            _check_origin(request.headers)
        request.scope.setdefault("state", {})["identity"] = identity
        return None

    async def _identify(self, request: Request) -> Identity:
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        by_cookie = not (scheme.lower() == "bearer" and bearer)
        token = request.cookies.get(SESSION_COOKIE, "") if by_cookie else bearer.strip()
        if not token:
            raise AuthError(REFUSAL)
        identity = await self._identities.ask(Claim(token, by_cookie))
        if identity is not None:
            return identity
        # What is wrong with it is found out apart: writing a wrong guess down may have to wait for the database.
        address = client_address(request)
        return await run_in_threadpool(identify, self._catalog, token=token, address=address, by_cookie=by_cookie)


def client_address(request: HTTPConnection) -> str:
    """The address that failed logins are counted by."""
    return request.client.host if request.client else "unknown"


def _host_name(header: str) -> str:
    if header.startswith("[") and "]" in header:
        return header.partition("]")[0].lower() + "]"
    return header.partition(":")[0].lower()


def _check_origin(headers: Headers) -> None:
    """A write that rides on a cookie must come from a page of ours.

    Raises
    ------
    ForbiddenError : the browser says that another site sent it, or nothing says where it came from.
    """
    site = headers.get("sec-fetch-site")
    origin = headers.get("origin")
    if site is not None and site != "same-origin":
        raise ForbiddenError(f"this write came from another site (Sec-Fetch-Site: {site}); use the page itself")
    # Under our no-referrer policy a browser's own form says "Origin: null", so there Sec-Fetch-Site alone decides.
    named = origin is not None and not (origin == "null" and site is not None)
    if named and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
        raise ForbiddenError("this write came from another site (its Origin is not this host); use the page itself")
    if site is None and origin is None:
        raise ForbiddenError("a write by cookie needs an Origin header; programs send a bearer token instead")


def _limited(request: Request, receive: Receive) -> Receive:
    """Count the body as it arrives and stop at the path's limit, whatever Content-Length claims."""
    is_import = IMPORT.fullmatch(request.url.path) is not None
    limit = MAX_IMPORT_BYTES if is_import else MAX_BODY_BYTES
    remedy = "; `winnow label import` takes a file of any size" if is_import else ""
    too_large = HTTPException(413, f"the body is larger than {limit} bytes; send less at a time{remedy}")
    declared = request.headers.get("content-length", "0")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > limit:
        raise too_large
    received = 0

    async def counted() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise too_large
        return message

    return counted


class _Guarded:
    """A ``send`` that adds the security headers, and knows whether the answer has begun."""

    def __init__(self, send: Send, *, cacheable: bool) -> None:
        self._send = send
        self._cacheable = cacheable
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers[name] = value
            headers["Cache-Control"] = "no-cache" if self._cacheable else "no-store"
        await self._send(message)
