"""What happens in labeling queues, written down for webhooks in the transaction that makes it true."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from catalog.tables.labeling import Annotation, LabelAssignment, LabelQueue, LabelTask
from labeling.queue import Submitted
from labeling.slots import task_id_of
from workers import webhooks

CHUNK_ROWS = 500


def answered(session: Session, *, now: datetime, lease_id: str, submitted: Submitted, wanted: Collection[str]) -> None:
    """An answer was stored: ``annotation.created``, and perhaps ``item.completed`` and ``budget.reached``.

    Parameters
    ----------
    wanted : events that somebody wants to be told of.
    """
    if submitted.repeated or not {"annotation.created", "item.completed", "budget.reached"} & set(wanted):
        return
    annotation = session.get_one(Annotation, submitted.annotation_id)
    task = session.get_one(LabelTask, annotation.task_id, populate_existing=True)
    about = {"queue_id": annotation.queue_id, "task_id": task.id, "record_id": task.record_id}
    told = about | {
        "annotation_id": annotation.id,
        "annotator_id": annotation.annotator_id,
        "value": annotation.value,
        "late": annotation.late,
        "known": session.get_one(LabelAssignment, lease_id).kind == "gold",
    }
    webhooks.emit(session, event="annotation.created", about=annotation.id, payload=told, now=now)
    if task.done and not annotation.late:
        webhooks.emit(session, event="item.completed", about=f"{task.id}:{annotation.id}", payload=about, now=now)
    queue = session.get_one(LabelQueue, annotation.queue_id)
    if queue.budget is None or "budget.reached" not in wanted:
        return
    ours = (Annotation.queue_id == queue.id, Annotation.retracted.is_(None), Annotation.origin == "annotator")
    spent = session.scalar(select(func.count()).where(*ours))
    if spent == queue.budget:
        payload = {"queue_id": queue.id, "queue": queue.name, "budget": queue.budget}
        webhooks.emit(session, event="budget.reached", about=f"{queue.id}:{queue.budget}", payload=payload, now=now)


def taken_back(session: Session, *, now: datetime, queue_id: str, annotator_id: str, task_id: str) -> None:
    """An annotator took the last answer to a task back: ``annotation.updated``."""
    if "annotation.updated" not in webhooks.wanted(session):
        return
    annotation = session.scalars(
        select(Annotation)
        .where(Annotation.task_id == task_id, Annotation.annotator_id == annotator_id, Annotation.retracted == "undone")
        .order_by(Annotation.retracted_at.desc(), Annotation.id)
        .limit(1)
    ).first()
    if annotation is None or annotation.retracted_at != now:
        # A skip was taken back.
        return
    payload = {
        "queue_id": queue_id,
        "task_id": task_id,
        "annotation_id": annotation.id,
        "annotator_id": annotator_id,
        "retracted": "undone",
    }
    webhooks.emit(session, event="annotation.updated", about=f"{annotation.id}:undone", payload=payload, now=now)


def known_no_more(session: Session, *, now: datetime, queue_id: str, record_ids: Collection[str]) -> None:
    """Known answers were taken away: ``item.completed`` of those tasks that what was answered to them finishes."""
    if "item.completed" not in webhooks.wanted(session):
        return
    ids = sorted(task_id_of(queue_id, one) for one in record_ids)
    for start in range(0, len(ids), CHUNK_ROWS):
        some = LabelTask.id.in_(ids[start : start + CHUNK_ROWS])
        finished = select(LabelTask).where(some, LabelTask.done.is_(True), LabelTask.gold.is_(False))
        for task in session.scalars(finished, execution_options={"populate_existing": True}):
            about = {"queue_id": queue_id, "task_id": task.id, "record_id": task.record_id}
            webhooks.emit(session, event="item.completed", about=f"{task.id}:{now.isoformat()}", payload=about, now=now)


def refreshed(session: Session, *, now: datetime, queue_id: str, generation: int, num_labels: int) -> None:
    """A model was refitted and chose what is asked next: ``model.refreshed``."""
    payload = {"queue_id": queue_id, "generation": generation, "num_labels": num_labels}
    webhooks.emit(session, event="model.refreshed", about=f"{queue_id}:{generation}", payload=payload, now=now)
