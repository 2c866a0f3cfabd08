"""Where annotators come for a task and hand answers in: those who come together are served in one transaction."""

from collections.abc import Collection, Hashable, Sequence
from typing import NamedTuple

from catalog.database import Catalog
from catalog.errors import ServiceError
from catalog.tables.labeling import LabelAssignment, LabelQueue
from labeling import queue
from service.together import Together
from workers import label_events, webhooks

Asked = queue.Asking | queue.Given


class TaskGiven(NamedTuple):
    """What somebody who asked for a task gets."""

    served: queue.Served | queue.NoTask
    is_pairwise: bool


class AnswerTaken(NamedTuple):
    """What somebody who answered is told."""

    submitted: queue.Submitted
    queue_id: str


class Desk:
    """One of each web service.

    Parameters
    ----------
    catalog : where the queues are.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        # SQLite has one writer; on PostgreSQL a second transaction runs while the first one's commit is flushed.
        self._acts: Together[Asked, TaskGiven | AnswerTaken] = Together(
            "desk", self._do, num_threads=1 if catalog.is_sqlite else 2
        )

    async def next_task(self, queue_id: str, annotator_id: str, beside: Collection[str]) -> TaskGiven:
        """``labeling.queue.next_task``, committed.

        Raises
        ------
        NotFoundError, GoneError, DataError : as there.
        """
        asking = queue.Asking(annotator_id=annotator_id, beside=beside)
        given = await self._acts.ask(asking, kind=queue_id, who=annotator_id)
        assert isinstance(given, TaskGiven)
        return given

    async def answer(self, given: queue.Given) -> AnswerTaken:
        """``labeling.queue.submit``, committed, and the events of it written down.

        Raises
        ------
        NotFoundError, ConflictError, DataError, GoneError : as there.
        """
        taken = await self._acts.ask(given, who=given.annotator_id)
        assert isinstance(taken, AnswerTaken)
        return taken

    def _do(self, kind: Hashable, acts: Sequence[Asked]) -> Sequence[TaskGiven | AnswerTaken | Exception]:
        if kind is None:
            return self._take([one for one in acts if isinstance(one, queue.Given)])
        return self._give(str(kind), [one for one in acts if isinstance(one, queue.Asking)])

    def _give(self, queue_id: str, asking: Sequence[queue.Asking]) -> Sequence[TaskGiven | ServiceError]:
        with self._catalog.write() as session:
            now = self._catalog.now(session)
            found = queue.next_tasks(session, now=now, queue_id=queue_id, asking=asking)
            is_pairwise = session.get_one(LabelQueue, queue_id).schema["task"] == "pairwise"
        return [one if isinstance(one, ServiceError) else TaskGiven(one, is_pairwise) for one in found]

    def _take(self, answers: Sequence[queue.Given]) -> Sequence[AnswerTaken | ServiceError]:
        taken: list[AnswerTaken | ServiceError] = []
        with self._catalog.write() as session:
            now = self._catalog.now(session)
            outcomes = queue.submit_all(session, now=now, answers=answers)
            wanted = webhooks.wanted(session)
            for given, outcome in zip(answers, outcomes, strict=True):
                if isinstance(outcome, ServiceError):
                    taken.append(outcome)
                    continue
                label_events.answered(session, now=now, lease_id=given.lease_id, submitted=outcome, wanted=wanted)
                taken.append(AnswerTaken(outcome, session.get_one(LabelAssignment, given.lease_id).queue_id))
        return taken
