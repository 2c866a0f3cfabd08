"""A client of the labeling queue in a few lines, for programs that answer or watch; needs no more than httpx.

from service.client import Annotator

with Annotator("http://127.0.0.1:8765", token) as ann:
    for task in ann.tasks(queue_id):
        ann.answer(task, my_model(task["text"]))
"""

import secrets
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import httpx

PAUSE_SECONDS = 1.0
MAX_TRIES = 8


class Annotator:
    """Somebody with a token; a context manager.

    Parameters
    ----------
    url : of the service.
    token : as ``winnow user NAME`` gives it.
    transport : of another kind than the network, for tests.
    """

    def __init__(self, url: str, token: str, *, transport: httpx.BaseTransport | None = None) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=f"{url}/api/v1", headers=headers, timeout=30.0, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def tasks(self, queue_id: str) -> Iterator[dict[str, Any]]:
        """Leased tasks, one after the other, until the queue has none for this annotator any more.

        Waits while others hold the rest or the next are being chosen. Answer, skip or release each before the next.
        """
        while True:
            told = self._ask("POST", f"/queues/{queue_id}/next")
            if told["task"] is not None:
                yield told["task"]
            elif told["reason"] == "done":
                return
            else:
                time.sleep(told["retry_after_seconds"])

    def answer(self, task: dict[str, Any], value: Any, *, seconds_spent: float | None = None) -> dict[str, Any]:
        """Store an answer once, however often it has to be sent; what became of it."""
        body = {
            "key": secrets.token_urlsafe(16),
            "value": value,
            "seconds_spent": seconds_spent,
            "schema_version": task["schema_version"],
        }
        found: dict[str, Any] = self._ask("PUT", f"/leases/{task['lease_id']}/annotation", body)
        return found

    def skip(self, task: dict[str, Any], reason: str) -> None:
        """Leave a task to others."""
        self._ask("POST", f"/leases/{task['lease_id']}/skip", {"reason": reason})

    def undo(self, queue_id: str) -> str | None:
        """Take the last answer or skip back; its task's id, which comes next again."""
        found: str | None = self._ask("POST", f"/queues/{queue_id}/undo")["task_id"]
        return found

    def progress(self, queue_id: str) -> dict[str, Any]:
        """How far the queue is."""
        found: dict[str, Any] = self._ask("GET", f"/queues/{queue_id}/progress")
        return found

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """One call, again where the service was away or busy: every call here may be made twice."""
        for attempt in range(MAX_TRIES):
            last = attempt == MAX_TRIES - 1
            try:
                answer = self._http.request(method, path, json=body)
            except httpx.TransportError:
                if last:
                    raise
            else:
                if answer.status_code < httpx.codes.INTERNAL_SERVER_ERROR or last:
                    if answer.is_error:
                        told = answer.json().get("message", answer.text)
                        raise httpx.HTTPStatusError(told, request=answer.request, response=answer)
                    return answer.json() if answer.content else None
            time.sleep(PAUSE_SECONDS * 2**attempt)
        raise AssertionError("unreachable")
