"""``winnow up``: workers, sweeper and web service on this machine, until Ctrl-C."""

import signal
import time
from typing import Annotated, Any

import typer

from catalog.errors import ConfigError
from service.address import local_url, recorded
from service.cli.output import AsJson, emit_json, say, workspace
from service.processes import Supervisor, bind, wait_until_healthy

LOOPBACK = ("127.0.0.1", "localhost", "::1")
TEND_SECONDS = 0.5


def add(app: typer.Typer) -> None:
    """Register this module's commands."""
    app.command("up")(up)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def up(
    *,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of the web service; default the port setting.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=256, help="Worker processes; default the num_workers setting.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Start workers, sweeper and web service; Ctrl-C stops all of them cleanly."""
    catalog = workspace()
    # In the settings, because the children read them: each worker takes its share of the cores.
    settings = catalog.settings.model_copy(update={"num_workers": workers or catalog.settings.num_workers})
    if settings.host not in LOOPBACK and not settings.behind_proxy:
        raise ConfigError(
            f"host={settings.host!r} is reachable from outside without TLS; put a TLS proxy in front and set "
            "WINNOW_BEHIND_PROXY=true, or use 127.0.0.1"
        )
    listener = bind(settings.host, settings.port if port is None else port)
    shown = local_url(settings.host, listener.getsockname()[1])
    supervisor = Supervisor(settings)
    # Celery and Docker stop programs with SIGTERM: the same clean way out as Ctrl-C.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        supervisor.add_service(listener)
        supervisor.add_workers(settings.num_workers)
        wait_until_healthy(supervisor, shown)
        with recorded(settings, shown):
            if json:
                emit_json({"url": shown, "workers": settings.num_workers, "home": str(settings.home)})
            say(
                f"{shown}  ({settings.num_workers} workers; logs in {settings.home / 'logs'}; Ctrl-C stops)",
                as_json=json,
            )
            while True:
                for event in supervisor.tend():
                    say(event)
                time.sleep(TEND_SECONDS)
    except KeyboardInterrupt:
        say("stopping; running units go back unharmed", as_json=json)
    finally:
        supervisor.stop()
        listener.close()
