"""A client of the labeling queue in a few lines, for programs that answer, watch or lead; needs no more than httpx.

from service.client import Annotator

with Annotator("http://127.0.0.1:8765", token) as ann:
    for task in ann.tasks(queue_id):
        ann.answer(task, my_model(task["text"]))

What the role of the token does not allow is refused by the service, with the role that it takes.
"""

import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

PAUSE_SECONDS = 1.0
MAX_TRIES = 8
FILE_SECONDS = 600.0
"""A file with answers is read, and checked, before the service replies."""


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

    def change_schema(self, queue_id: str, schema: Mapping[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        """Give a queue the next version of its schema; how many answers are kept, migrated and none any more."""
        found: dict[str, Any] = self._ask("PUT", f"/queues/{queue_id}/schema", schema, params={"dry_run": dry_run})
        return found

    def import_file(
        self, queue_id: str, path: Path, format_: str, *, renames: Mapping[str, str] | None = None, **options: Any
    ) -> dict[str, Any]:
        """Take the answers and predictions of a file in, once however often; what was taken and what was not.

        Parameters
        ----------
        format_ : an exchange format, whose options stand beside it.
        renames : labels of the file and what the queue calls them.
        """
        params = _params(format_, options) | {"rename": [f"{old}={new}" for old, new in (renames or {}).items()]}
        body = path.read_bytes()
        found: dict[str, Any] = self._ask(
            "POST", f"/queues/{queue_id}/import", params=params | {"name": path.name}, content=body
        )
        return found

    def export_file(self, queue_id: str, path: Path, format_: str, **options: Any) -> dict[str, Any]:
        """Write a queue's answers to a file, which appears whole or not; how many records and answers it holds.

        Parameters
        ----------
        path : of a file; what is there is replaced. A dataset folder comes as a zip archive.
        format_ : an exchange format, whose options stand beside it.
        """
        aside = path.with_name(f".tmp-{path.name}")
        params, route = _params(format_, options), f"/queues/{queue_id}/export"
        try:
            with self._http.stream("GET", route, params=params, timeout=FILE_SECONDS) as answer:
                if answer.is_error:
                    answer.read()
                    raise _refused(answer)
                with aside.open("wb") as file:
                    for chunk in answer.iter_bytes():
                        file.write(chunk)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
        told = answer.headers
        changed = json.loads(told["Winnow-Changed"])
        return {"records": int(told["Winnow-Records"]), "answers": int(told["Winnow-Answers"]), "changed": changed}

    def remove_gold(self, queue_id: str, record_ids: Sequence[str]) -> dict[str, Any]:
        """Make known records ordinary again; what became of the answers to them."""
        found: dict[str, Any] = self._ask("DELETE", f"/queues/{queue_id}/gold", params={"record": list(record_ids)})
        return found

    def remove_suggestions(self, queue_id: str, source: str) -> int:
        """Take a model's suggestions away; of how many records."""
        found: int = self._ask("DELETE", f"/queues/{queue_id}/suggestions", params={"source": source})["num_removed"]
        return found

    def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        content: bytes | None = None,
    ) -> Any:
        """One call, again where the service was away or busy: all here may be made twice, but for a DELETE."""
        sent: dict[str, Any] = {"json": body} if content is None else {"content": content, "timeout": FILE_SECONDS}
        for attempt in range(MAX_TRIES):
            last = attempt == MAX_TRIES - 1
            try:
                answer = self._http.request(method, path, params=params, **sent)
            except httpx.TransportError:
                if last or method == "DELETE":
                    raise
            else:
                if answer.status_code < httpx.codes.INTERNAL_SERVER_ERROR or last:
                    if answer.is_error:
                        raise _refused(answer)
                    return answer.json() if answer.content else None
            time.sleep(PAUSE_SECONDS * 2**attempt)
        raise AssertionError("unreachable")


def _params(format_: str, options: Mapping[str, Any]) -> dict[str, Any]:
    words = {name: str(one).lower() if isinstance(one, bool) else one for name, one in options.items()}
    return {"format": format_, "option": [f"{name}={one}" for name, one in words.items()]}


def _refused(answer: httpx.Response) -> httpx.HTTPStatusError:
    """What the service said, in its own words."""
    told = answer.json().get("message", answer.text)
    return httpx.HTTPStatusError(told, request=answer.request, response=answer)
