"""Opening, finding and closing a labeling queue."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog.errors import ConfigError, NotFoundError, TakenError, nearest
from catalog.tables.labeling import LabelQueue
from labeling.fitness import check_fit
from labeling.model_choice import LINEAR, check_model
from labeling.schema import LabelSchema
from labeling.slots import checked_text, open_queue, record_event

MAX_OVERLAP = 100


def create_queue(
    session: Session,
    *,
    now: datetime,
    name: str,
    dataset_id: str,
    version_id: str,
    schema: LabelSchema,
    strategy: str,
    encoder: str,
    overlap: int,
    lease_seconds: float,
    seed: int,
    held_out_share: float = 0.0,
    refresh_every: int = 20,
    rehearsal: bool = False,
    random_share: float = 0.0,
    gold_every: int = 0,
    hidden_share: float = 0.0,
    budget: int | None = None,
    model: str = LINEAR,
) -> LabelQueue:
    """Open a queue. It waits for its first generation.

    Parameters
    ----------
    name : unique in the dataset.
    strategy : a name in ``STRATEGIES`` that holds for the schema's task.
    overlap : how many different annotators answer each task, 1 to 100.
    lease_seconds : how long a task is held without a sign of life.
    held_out_share : share of the records nobody is asked about, in [0, 0.9].
    refresh_every : finished tasks between two fits of the model.
    rehearsal : a program answers, from labels held back; the answers train nothing.
    random_share : share of each generation that chance draws, in [0, 1].
    gold_every : one task in so many is one whose answer is known (see ``labeling.gold``), 0 for none.
    hidden_share : share of tasks with a suggestion that are served without it, in [0, 1].
    budget : answers that may be spent; advice only.
    model : whose probabilities the strategy goes by (see ``labeling.model_choice``).

    Raises
    ------
    TakenError : the dataset has a queue of that name.
    NotFoundError : no such strategy.
    ConfigError : a number is out of range, or the strategy does not hold for the task.
    """
    check_fit(strategy, schema)
    check_model(model, schema)
    checked_text("queue name", name, at_least=1, at_most=200)
    _check_numbers(
        overlap=overlap,
        lease_seconds=lease_seconds,
        held_out_share=held_out_share,
        refresh_every=refresh_every,
        shares={"random_share": random_share, "hidden_share": hidden_share},
        gold_every=gold_every,
        budget=budget,
    )
    if session.scalar(select(LabelQueue.id).where(LabelQueue.dataset_id == dataset_id, LabelQueue.name == name)):
        raise TakenError(f"the dataset already has a label queue named {name!r}; choose another name")
    queue = LabelQueue(
        name=name,
        dataset_id=dataset_id,
        version_id=version_id,
        schema=schema.to_json(),
        strategy=strategy,
        encoder=encoder,
        overlap=overlap,
        lease_seconds=lease_seconds,
        seed=seed,
        held_out_share=held_out_share,
        refresh_every=refresh_every,
        rehearsal=rehearsal,
        random_share=random_share,
        gold_every=gold_every,
        hidden_share=hidden_share,
        budget=budget,
        model=model,
        created_at=now,
    )
    session.add(queue)
    session.flush()
    return queue


def _check_numbers(
    *,
    overlap: int,
    lease_seconds: float,
    held_out_share: float,
    refresh_every: int,
    shares: Mapping[str, float],
    gold_every: int,
    budget: int | None,
) -> None:
    if not 1 <= overlap <= MAX_OVERLAP:
        raise ConfigError(f"overlap={overlap} must lie in [1, {MAX_OVERLAP}]")
    if not 0 < lease_seconds <= 7 * 86_400:
        raise ConfigError(f"lease_seconds={lease_seconds} must be above 0 and at most a week (604800)")
    if not 0 <= held_out_share <= 0.9:
        raise ConfigError(f"held_out_share={held_out_share} must lie in [0, 0.9]")
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise ConfigError(f"{name}={share} must lie in [0, 1]")
    if gold_every < 0 or gold_every == 1:
        raise ConfigError(f"gold_every={gold_every} must be 0 (none) or at least 2: others must be asked about too")
    if budget is not None and budget < 1:
        raise ConfigError(f"budget={budget} must be at least 1; leave it out for none")
    if refresh_every < 1:
        raise ConfigError(f"refresh_every={refresh_every} must be at least 1")


def close_queue(session: Session, *, now: datetime, queue_id: str) -> None:
    """End a queue: nothing more is served or taken, everything is kept. Closing twice changes nothing.

    Raises
    ------
    NotFoundError : no such queue.
    """
    queue = open_queue(session, queue_id, even_closed=True)
    if queue.state == "open":
        queue.state, queue.closed_at = "closed", now
        record_event(session, now=now, queue_id=queue_id, kind="closed", detail={})
        session.flush()


def reopen_queue(session: Session, *, now: datetime, queue_id: str) -> None:
    """Take a closed queue up again where it ended. Of an open one nothing changes.

    Raises
    ------
    NotFoundError : no such queue.
    """
    queue = open_queue(session, queue_id, even_closed=True)
    if queue.state == "closed":
        queue.state, queue.closed_at = "open", None
        record_event(session, now=now, queue_id=queue_id, kind="reopened", detail={})
        session.flush()


def find_queue(
    session: Session, *, dataset_id: str, name: str | None = None, named_by: str = "the queue's name"
) -> LabelQueue:
    """The dataset's queue of that name; without a name, its only open one, or else its only one.

    Parameters
    ----------
    named_by : the option or argument that the name is given by, for messages.

    Raises
    ------
    NotFoundError : there is none; the message has the nearest name.
    ConfigError : no name was given and several fit; the message lists them.
    """
    queues = session.scalars(
        select(LabelQueue).where(LabelQueue.dataset_id == dataset_id).order_by(LabelQueue.created_at, LabelQueue.name)
    ).all()
    if name is not None:
        for queue in queues:
            if queue.name == name:
                return queue
        raise NotFoundError(f"the dataset has no label queue named {name!r}; {nearest(name, (q.name for q in queues))}")
    fitting = [queue for queue in queues if queue.state == "open"] or list(queues)
    if not fitting:
        raise NotFoundError("the dataset has no label queue; create one with `winnow label create`")
    if len(fitting) > 1:
        listed = ", ".join(queue.name for queue in fitting)
        raise ConfigError(f"the dataset has several label queues; say by {named_by} which: {listed}")
    return fitting[0]
