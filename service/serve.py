"""The web service as a process: ``python -m service.serve``, on the host and port of the settings.

``winnow up`` gives it a socket that is bound already, by ``--fd``.
"""

import argparse
import gc
import signal
import socket
import sys
import threading

import uvicorn

from catalog import logs, tracing
from catalog.errors import ServiceError
from catalog.faults import arm_from_environment
from catalog.settings import load_settings
from service.app import create_app
from service.processes import bind
from workers.stopping import watch_parent

SWITCH_SECONDS = 0.0005
KEEP_ALIVE_SECONDS = 75


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(prog="winnow-service")
    parser.add_argument("--fd", type=int, help="a listening socket; without it the host and port settings")
    parser.add_argument("--parent", type=int, help="stop when this process is gone")
    options = parser.parse_args()
    try:
        arm_from_environment()
        settings = load_settings()
        tracing.configure(settings, "winnow-service")
        app = create_app(settings)
        listener = bind(settings.host, settings.port) if options.fd is None else socket.socket(fileno=options.fd)
    except ServiceError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(error.exit_code) from error
    logs.configure(settings, worker="service")
    if options.parent is not None:
        threading.Thread(target=watch_parent, args=(options.parent,), daemon=True).start()
    config = uvicorn.Config(
        app,
        # Its lines go where all others go.
        log_config=None,
        access_log=False,
        server_header=False,
        # Without a proxy of ours in front, a caller could name any address in X-Forwarded-For.
        proxy_headers=settings.behind_proxy,
        # Longer than somebody looks at a text: each answer would otherwise open a connection anew.
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )
    # Not uvicorn's own fd option: it takes the socket for a Unix one, so TCP_NODELAY stays off and every answer waits
    # 40 ms for the client's delayed acknowledgement.
    # uvicorn raises a signal again once it has stopped in order; by default that would end this process right there.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # Requests are many short turns in threads: a thread that has just its statement's answer would wait for 5 ms by
    # default until another one lets go of the interpreter, and may hold the database's write lock meanwhile.
    sys.setswitchinterval(SWITCH_SECONDS)
    # What is there now stays: looking through all of it for garbage, again and again, would hold every request up.
    gc.collect()
    gc.freeze()
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        tracing.shut_down()


if __name__ == "__main__":
    main()
