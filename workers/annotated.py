"""What people answered, as the labels that models learn: one class a record."""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog.errors import DataError
from catalog.tables.labeling import LabelQueue
from labeling import queue as queues
from labeling.quality import consensus_labels
from labeling.schema import LabelSchema


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassLabel:
    """A record's class by people's answers, and how likely it is, or the share of them that gave it, in (0, 1]."""

    value: str
    agreement: float


def class_labels(session: Session, dataset_id: str, *, strategy: str | None = None) -> dict[str, ClassLabel]:
    """Classes by record; a later queue's answer replaces an earlier one's. Rehearsals do not count.

    Only answers that are one class of several are labels: single choices, and ratings on a scale of few points.

    Parameters
    ----------
    strategy : only of queues with this strategy.
    """
    found: dict[str, ClassLabel] = {}
    for queue in _queues(session, dataset_id, strategy):
        schema = LabelSchema.from_json(queue.schema)
        if not schema.classes:
            continue
        for one in consensus_labels(session, queue_id=queue.id):
            value = schema.class_of(one.value)
            if value is not None:
                found[one.record_id] = ClassLabel(value=value, agreement=one.agreement)
    return found


def check_learnable(session: Session, dataset_name: str, dataset_id: str) -> None:
    """Say what is wrong where people answered, but nothing that a classifier learns.

    Raises
    ------
    DataError : there are answers that are no classes; the message names their queues and the way out.
    """
    other = []
    for queue in _queues(session, dataset_id, None):
        schema = LabelSchema.from_json(queue.schema)
        if not schema.classes and next(queues.current_answers(session, queue), None) is not None:
            other.append(f"{queue.name!r} ({schema.task})")
    if other:
        raise DataError(
            f"what people answered about {dataset_name!r} are no classes: {', '.join(other)}. A classifier learns "
            "single_choice answers and ratings of few points, an arm of objective tagging spans, one of pairwise "
            f"preferences; `winnow label export {dataset_name}` has the others"
        )


def _queues(session: Session, dataset_id: str, strategy: str | None) -> list[LabelQueue]:
    query = select(LabelQueue).where(LabelQueue.dataset_id == dataset_id, LabelQueue.rehearsal.is_(False))
    if strategy is not None:
        query = query.where(LabelQueue.strategy == strategy)
    return list(session.scalars(query.order_by(LabelQueue.created_at, LabelQueue.id)))
