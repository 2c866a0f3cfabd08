"""The web application: ``create_app`` wires the gate, the API and the pages."""

import functools
import logging
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from prometheus_client import CollectorRegistry
from sqlalchemy import text
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute
from starlette.staticfiles import StaticFiles

from catalog.database import Catalog
from catalog.errors import ConfigError, ServiceError
from catalog.settings import Settings
from service import metrics
from service.address import host_names
from service.api import datasets, exchange, known, leases, models, queues, reviews, runs, schedules, webhooks
from service.api.access import known_parameters
from service.counting import Counting
from service.desk import Desk
from service.errors import PROBLEMS, error_response
from service.gate import Gate
from service.pages import datasets as dataset_pages
from service.pages import home, label, login
from service.pages import queues as queue_pages
from service.pages import runs as run_pages
from service.pages import schedules as schedule_pages
from service.refresher import Refresher
from workers.probes import parts_away

API = "/api/v1"
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
log = logging.getLogger(__name__)
BEARER = {
    "type": "http",
    "scheme": "bearer",
    "description": "a token from `winnow init` or an administrator: wnw_…",
}


def create_app(settings: Settings) -> FastAPI:
    """The whole web service over one catalog.

    Nothing is opened until the first request. Everything but ``/health``, ``/ready``, ``/login`` and ``/static/`` needs
    a login.

    Parameters
    ----------
    settings : where the database is, which host names are answered, and whether a TLS proxy stands in front.

    Raises
    ------
    ConfigError : the host is not loopback and no TLS proxy is declared, so tokens would cross the network in clear;
        no host name is answered; or a proxy stands in front of metrics that are open to this machine.
    """
    if settings.host not in LOOPBACK and not settings.behind_proxy:
        raise ConfigError(
            f"host={settings.host!r} is reachable from outside without TLS; put a TLS proxy in front and set "
            "WINNOW_BEHIND_PROXY=true, or use host=127.0.0.1"
        )
    if settings.metrics_from_loopback and settings.behind_proxy:
        raise ConfigError(
            "metrics_from_loopback and behind_proxy are both set: whoever comes through a proxy on this machine would "
            "read /metrics; leave metrics_from_loopback out and give the scraper a curator's token"
        )
    catalog = Catalog(settings)
    registry = CollectorRegistry()
    registry.register(metrics.DatabaseCollector(catalog))
    # FastAPI's own documentation pages load scripts from a CDN, and its schema route would stand outside the API.
    app = FastAPI(title="Winnow", version="1", openapi_url=None, docs_url=None, redoc_url=None, lifespan=_until_closed)
    app.state.catalog = catalog
    app.state.counting = Counting()
    app.state.desk = Desk(catalog)
    app.state.refresher = Refresher(catalog)
    app.state.importing = threading.Lock()
    app.state.settings = settings
    app.add_api_route("/health", health, include_in_schema=False)
    app.add_api_route("/ready", Readiness(catalog), include_in_schema=False)
    app.add_api_route(metrics.PATH, metrics.endpoint(registry), include_in_schema=False)
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"), name="static")
    app.router.routes.extend(_routes())
    for kind in (ServiceError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, error_response)
    app.add_middleware(
        Gate,
        catalog=catalog,
        allowed_hosts=frozenset(host_names(settings)),
        open_to_loopback=frozenset({metrics.PATH} if settings.metrics_from_loopback else ()),
    )
    app.add_middleware(metrics.Measured, registry=registry)
    return app


def close_app(app: FastAPI) -> None:
    """Once the application's threads have ended, give its connections back; further requests open new ones."""
    app.state.refresher.close()
    app.state.catalog.close()


@asynccontextmanager
async def _until_closed(app: FastAPI) -> AsyncIterator[None]:
    yield
    close_app(app)


@functools.cache
def _routes() -> list[BaseRoute]:
    """The API's and the pages': they find everything by the request, so all applications of a process share them."""
    shared = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    shared.include_router(_api())
    for page in (login, home, dataset_pages, run_pages, schedule_pages, queue_pages, label):
        shared.include_router(page.router)
    return shared.router.routes


def _api() -> APIRouter:
    api = APIRouter(prefix=API, dependencies=[Depends(known_parameters)], responses=PROBLEMS)
    # Routes are tried in this order: what annotators ask for comes first.
    for hot in (leases, queues):
        api.include_router(hot.direct)
    for part in (datasets, runs, models, schedules, webhooks, queues, exchange, leases, reviews, known):
        api.include_router(part.router)

    @api.get("/openapi.json", include_in_schema=False)
    def schema(request: Request) -> dict[str, Any]:
        return _with_security(request.app.openapi())

    return api


def _with_security(schema: dict[str, Any]) -> dict[str, Any]:
    """That every operation takes a token, said here: the gate has looked at it before any route is found."""
    schema["components"]["securitySchemes"] = {"bearer": BEARER}
    for path in schema["paths"].values():
        for operation in path.values():
            operation["security"] = [{"bearer": []}]
    return schema


def health(request: Request) -> Response:
    """200 when the database answers, else 503; says nothing more, since anyone may ask."""
    catalog: Catalog = request.app.state.catalog
    try:
        with catalog.read() as session:
            session.execute(text("SELECT 1"))
    except ServiceError:
        return JSONResponse({"status": "unavailable"}, status_code=503)
    return JSONResponse({"status": "ok"})


class Readiness:
    """The handler of ``/ready``: 200 when database, store and broker can be worked with, else 503 and which cannot.

    Says no more than their names, since anyone may ask; and asks them at most once in ``SECONDS``, whoever asks.
    """

    SECONDS = 2.0

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._lock = threading.Lock()
        self._found: tuple[float, dict[str, str]] = (-self.SECONDS, {})

    def __call__(self) -> Response:
        """Answer."""
        with self._lock:
            asked, away = self._found
            if time.monotonic() - asked >= self.SECONDS:
                away = parts_away(self._catalog)
                self._found = (time.monotonic(), away)
                for part, reason in away.items():
                    log.warning("not ready: %s: %s", part, reason)
        if away:
            return JSONResponse({"status": "unavailable", "away": sorted(away)}, status_code=503)
        return JSONResponse({"status": "ready"})
