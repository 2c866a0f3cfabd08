"""A proxy in front of a PostgreSQL server that cuts connections where a test says so: before or after a COMMIT."""

import contextlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path

COMMIT = b"COMMIT\x00"
READY = b"Z\x00\x00\x00\x05I"
"""What a server ends its answer to a COMMIT with: ready for a query, in no transaction."""


class Proxy:
    """Listens on a port of this machine and passes everything on to a server's Unix socket.

    Parameters
    ----------
    target : path of the socket.
    decide : told each time that a client sends something; answers ``"pass"``, ``"cut"`` (it does not arrive) or
        ``"deafen"`` (a COMMIT arrives and is done, and its answer does not come back; anything else passes).
    """

    def __init__(self, target: Path, decide: Callable[[], str]) -> None:
        self._target = target
        self._decide = decide
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self.port = int(self._listener.getsockname()[1])
        self.num_cut = 0
        self.num_deafened = 0
        self._spawn(self._accept)

    def _spawn(self, run: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(str(self._target))
            self._open += [client, server]
            committing = threading.Event()
            self._spawn(self._to_server, client, server, committing)
            self._spawn(self._to_client, client, server, committing)

    def _to_server(self, client: socket.socket, server: socket.socket, committing: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65_536):
                asked = self._decide()
                if asked == "cut":
                    self.num_cut += 1
                    break
                if asked == "deafen" and COMMIT in data:
                    self.num_deafened += 1
                    committing.set()
                server.sendall(data)
        if not committing.is_set():
            self._shut(client, server)

    def _to_client(self, client: socket.socket, server: socket.socket, committing: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65_536):
                if committing.is_set():
                    if READY in data:
                        break
                    continue
                client.sendall(data)
        self._shut(client, server)

    def _shut(self, *sockets: socket.socket) -> None:
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Cut everything and stop."""
        self._shut(self._listener, *self._open)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)
        for one in self._open:
            one.close()
