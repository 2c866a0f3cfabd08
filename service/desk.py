"""Where annotators come for a task and hand answers in: those who come together are served in one transaction."""

from collections.abc import Callable, Collection, Hashable, Sequence
from datetime import datetime

from sqlalchemy.orm import Session

from catalog.database import Catalog
from catalog.errors import ServiceError
from labeling import queue
from service.together import Together
from workers import label_events, webhooks

Asked = queue.Asking | queue.Given


Told = queue.Served | queue.NoTask | queue.Submitted


class Desk:
    """One of each web service.

    Parameters
    ----------
    catalog : where the queues are.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        # One at a time: two threads share one interpreter, and would halve the batches. But on PostgreSQL the next one
        # begins while the last one's commit is flushed to the disk.
        self._acts: Together[Asked, Told] = Together("desk", self._do, num_threads=1 if catalog.is_sqlite else 2)

    async def next_task(self, queue_id: str, annotator_id: str, beside: Collection[str]) -> queue.Served | queue.NoTask:
        """``labeling.queue.next_task``, committed.

        Raises
        ------
        NotFoundError, GoneError, DataError : as there.
        """
        asking = queue.Asking(annotator_id=annotator_id, beside=beside)
        given = await self._acts.ask(asking, kind=queue_id, who=annotator_id)
        assert not isinstance(given, queue.Submitted)
        return given

    async def answer(self, given: queue.Given) -> queue.Submitted:
        """``labeling.queue.submit``, committed, and the events of it written down.

        Raises
        ------
        NotFoundError, ConflictError, DataError, GoneError : as there.
        """
        taken = await self._acts.ask(given, who=given.annotator_id)
        assert isinstance(taken, queue.Submitted)
        return taken

    def _do(self, kind: Hashable, acts: Sequence[Asked], end_turn: Callable[[], None]) -> Sequence[Told | Exception]:
        with self._catalog.write() as session:
            if kind is None:
                told: Sequence[Told | Exception] = _take(
                    session, self._catalog.now(session), [one for one in acts if isinstance(one, queue.Given)]
                )
            else:
                asking = [one for one in acts if isinstance(one, queue.Asking)]
                told = queue.next_tasks(session, now=self._catalog.now(session), queue_id=str(kind), asking=asking)
            end_turn()
        return told


def _take(session: Session, now: datetime, answers: Sequence[queue.Given]) -> Sequence[queue.Submitted | ServiceError]:
    outcomes = queue.submit_all(session, now=now, answers=answers)
    wanted = webhooks.wanted(session)
    for given, outcome in zip(answers, outcomes, strict=True):
        if isinstance(outcome, queue.Submitted):
            label_events.answered(session, now=now, lease_id=given.lease_id, submitted=outcome, wanted=wanted)
    return outcomes
