"""The web service as a process: ``python -m service.serve --fd 3``."""

import argparse
import socket
import sys
import threading

import uvicorn

from catalog.errors import ServiceError
from catalog.faults import arm_from_environment
from catalog.settings import load_settings
from service.app import create_app
from workers.stopping import watch_parent


def main() -> None:
    """Serve on a socket that the parent has bound."""
    parser = argparse.ArgumentParser(prog="winnow-service")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--parent", type=int)
    options = parser.parse_args()
    try:
        arm_from_environment()
        settings = load_settings()
        app = create_app(settings)
    except ServiceError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(error.exit_code) from error
    if options.parent is not None:
        threading.Thread(target=watch_parent, args=(options.parent,), daemon=True).start()
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        # Without a proxy of ours in front, a caller could name any address in X-Forwarded-For.
        proxy_headers=settings.behind_proxy,
    )
    # Not uvicorn's own fd option: it takes the socket for a Unix one, so TCP_NODELAY stays off and every answer waits
    # 40 ms for the client's delayed acknowledgement.
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=options.fd)])


if __name__ == "__main__":
    main()
