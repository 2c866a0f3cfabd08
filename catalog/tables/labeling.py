"""Labeling queues: tasks, leases, annotations and the events that explain them.

The database itself keeps a task from being given out too often: a live lease or an accepted answer occupies a numbered
slot, ``(task, slot)`` is unique, and a slot lies below the task's overlap (the composite foreign key keeps that copy of
the overlap true). NULL slots never collide, on SQLite as on PostgreSQL.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    String,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from catalog.tables.base import Base, Id, Json, Moment, new_id
from catalog.tables.curation import RecordId

QUEUE_STATES = ("open", "closed")
ASSIGNMENT_STATES = ("leased", "accepted", "released", "skipped", "expired", "late")
RETRACTIONS = ("undone", "superseded")
KINDS = ("chosen", "random", "gold", "assigned", "again")
"""Why somebody is asked: the strategy chose it, chance did, the answer is known and measures the annotator, a reviewer
gave it to this person, or the strategy wants one more answer to what was answered."""
ORIGINS = ("annotator", "adjudicator", "import")

AnnotatorId = String(200)
"""A user's id. No foreign key: answers outlive accounts, and imported ones come from people who never had one."""


class LabelQueue(Base):
    """What people are asked about one dataset version, and how the next item is chosen."""

    __tablename__ = "label_queues"
    __table_args__ = (
        UniqueConstraint("dataset_id", "name"),
        CheckConstraint(f"state IN {QUEUE_STATES}", name="state"),
        CheckConstraint("overlap >= 1", name="overlap"),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(200))
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"))
    version_id: Mapped[str] = mapped_column(ForeignKey("versions.id"))
    schema: Mapped[dict[str, Any]] = mapped_column(Json)
    """The label schema as JSON as it now stands; those it had before lie in it under ``earlier``, oldest first."""
    strategy: Mapped[str] = mapped_column(String(100))
    encoder: Mapped[str] = mapped_column(String(200))
    model: Mapped[str] = mapped_column(String(100), default="linear", server_default="linear")
    """Whose probabilities the strategy goes by: the head that every choice refits, or what was trained elsewhere."""
    overlap: Mapped[int]
    """How many different annotators answer each task."""
    lease_seconds: Mapped[float] = mapped_column(Float)
    seed: Mapped[int] = mapped_column(BigInteger)
    held_out_share: Mapped[float] = mapped_column(Float)
    """Share of the records nobody is asked about, kept to measure on; 0 where there are no gold labels."""
    refresh_every: Mapped[int]
    """Finished tasks after which the model is refitted and a new generation chosen."""
    random_share: Mapped[float] = mapped_column(Float, default=0.0, server_default="0")
    """Share of each generation that chance draws from what nobody was asked about: the only unbiased sample."""
    gold_every: Mapped[int] = mapped_column(default=0, server_default="0")
    """Every so many tasks is one whose answer is known, until an annotator has seen them all; 0 for none."""
    hidden_share: Mapped[float] = mapped_column(Float, default=0.0, server_default="0")
    """Share of the tasks with a suggestion that are served without it, to measure how much suggestions lead people."""
    budget: Mapped[int | None] = mapped_column(BigInteger)
    """Answers that may be spent, for advice and a webhook; nothing stops at it."""
    rehearsal: Mapped[bool] = mapped_column(Boolean, default=False)
    """True when a program answers from labels held back: such answers are nobody's judgement and train nothing."""
    generation: Mapped[int] = mapped_column(default=0)
    """The generation being served; 0 before the first one."""
    waiting_for_model: Mapped[bool] = mapped_column(Boolean, default=True)
    """True while a new generation is being computed: an empty queue is then not a finished one."""
    num_tasks: Mapped[int] = mapped_column(BigInteger, default=0)
    state: Mapped[str] = mapped_column(String(20), default="open")
    created_at: Mapped[datetime] = mapped_column(Moment)
    closed_at: Mapped[datetime | None] = mapped_column(Moment)


class LabelTask(Base):
    """One record that a queue has offered. Made when the record first enters a generation."""

    __tablename__ = "label_tasks"
    __table_args__ = (
        UniqueConstraint("queue_id", "record_id"),
        UniqueConstraint("id", "overlap"),
        CheckConstraint("overlap >= 1", name="overlap"),
        Index(
            "ix_label_tasks_queue_id_done",
            "queue_id",
            sqlite_where=text("done IS 1"),
            postgresql_where=text("done IS true"),
        ),
        Index(
            "ix_label_tasks_queue_id_gold",
            "queue_id",
            sqlite_where=text("gold IS 1"),
            postgresql_where=text("gold IS true"),
        ),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    """A function of queue and record, so that publishing again finds the same task."""
    queue_id: Mapped[str] = mapped_column(ForeignKey("label_queues.id"))
    record_id: Mapped[str] = mapped_column(RecordId)
    text: Mapped[str] = mapped_column(Text)
    """A copy for serving; the record itself stays in its shard."""
    overlap: Mapped[int]
    """The queue's, or more where it was asked about again (``labeling.relabels``), or all that could ever be needed
    where its answer is known."""
    done: Mapped[bool] = mapped_column(Boolean, default=False)
    """True when every slot holds an accepted answer."""
    gold: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    """True when its answer is known: it measures annotators, is in no generation, and never done. Also when it was
    known and has been neither offered nor answered: it is then nobody's task until a generation chooses it."""


class LabelEntry(Base):
    """A task's place in one generation of a queue's order. Old generations stay: they say what was next, and why."""

    __tablename__ = "label_entries"
    __table_args__ = (
        Index(
            "ix_label_entries_open",
            "queue_id",
            "generation",
            "rank",
            sqlite_where=text("done IS 0"),
            postgresql_where=text("done IS false"),
        ),
    )

    queue_id: Mapped[str] = mapped_column(ForeignKey("label_queues.id"), primary_key=True)
    generation: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[str] = mapped_column(ForeignKey("label_tasks.id"), primary_key=True)
    rank: Mapped[int]
    utility: Mapped[float] = mapped_column(Float)
    why: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(String(10), default="chosen", server_default="chosen")
    predicted: Mapped[Any | None] = mapped_column(Json)
    """``[label, probability]`` by the model that chose, before anybody answered: what its accuracy is measured by."""
    done: Mapped[bool] = mapped_column(Boolean, default=False)
    """Keeps finished tasks out of the serving index. Only speed depends on it: the slots decide."""


class LabelAssignment(Base):
    """What one annotator has to do with one task. Its id is the lease id; there is one row a pair, for ever."""

    __tablename__ = "label_assignments"
    __table_args__ = (
        UniqueConstraint("task_id", "slot"),
        UniqueConstraint("task_id", "annotator_id"),
        ForeignKeyConstraint(["task_id", "overlap"], ["label_tasks.id", "label_tasks.overlap"], onupdate="CASCADE"),
        CheckConstraint(f"state IN {ASSIGNMENT_STATES}", name="state"),
        CheckConstraint("slot >= 0 AND slot < overlap", name="slot_below_overlap"),
        CheckConstraint("(state IN ('leased', 'accepted')) = (slot IS NOT NULL)", name="slot_while_live"),
        Index("ix_label_assignments_annotator", "queue_id", "annotator_id", "state", "event_id"),
        Index("ix_label_assignments_expiry", "queue_id", "state", "expires_at"),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    queue_id: Mapped[str] = mapped_column(ForeignKey("label_queues.id"))
    task_id: Mapped[str] = mapped_column(Id)
    annotator_id: Mapped[str] = mapped_column(AnnotatorId)
    overlap: Mapped[int]
    slot: Mapped[int | None]
    """The slot occupied; null once released, skipped, late, or taken over after expiry."""
    state: Mapped[str] = mapped_column(String(20))
    """A lease past its expiry stays ``leased`` until somebody takes its slot: no cleaner has to run."""
    generation: Mapped[int]
    rank: Mapped[int]
    utility: Mapped[float] = mapped_column(Float)
    why: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(String(10), default="chosen", server_default="chosen")
    schema_version: Mapped[int | None]
    """Of the schema by which it was last served; null where there was only one yet."""
    suggestion: Mapped[Any | None] = mapped_column(Json)
    """What was suggested: value, score, source, and whether the annotator saw it; null where nothing was."""
    expires_at: Mapped[datetime] = mapped_column(Moment)
    event_id: Mapped[int] = mapped_column(BigInteger)
    """The event that put the row in its present state: its order is the order of the annotator's acts."""


class Annotation(Base):
    """An answer. Never changed but for a mark when it no longer counts, or when the task's answer is known no more and
    it is beyond the overlap that the task then has."""

    __tablename__ = "annotations"
    __table_args__ = (
        UniqueConstraint("annotator_id", "key"),
        CheckConstraint(f"retracted IN {RETRACTIONS}", name="retracted"),
        Index("ix_annotations_queue_id_annotator_id", "queue_id", "annotator_id"),
        Index(
            "uq_annotations_current",
            "task_id",
            "annotator_id",
            unique=True,
            sqlite_where=text("retracted IS NULL"),
            postgresql_where=text("retracted IS NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    queue_id: Mapped[str] = mapped_column(ForeignKey("label_queues.id"))
    task_id: Mapped[str] = mapped_column(ForeignKey("label_tasks.id"))
    annotator_id: Mapped[str] = mapped_column(AnnotatorId)
    lease_id: Mapped[str] = mapped_column(ForeignKey("label_assignments.id"))
    value: Mapped[Any] = mapped_column(Json)
    schema_version: Mapped[int | None]
    """Of the schema that the value was checked against, null for the queue's first: later versions map it."""
    origin: Mapped[str] = mapped_column(String(12), default="annotator", server_default="annotator")
    """``annotator``, ``adjudicator`` (outvotes all others), or ``import``."""
    key: Mapped[str] = mapped_column(String(200))
    """Made by the client: the same answer sent twice is one answer."""
    late: Mapped[bool] = mapped_column(Boolean)
    """True when every slot had been given to others: kept beyond the overlap, heard only where nobody else answered."""
    retracted: Mapped[str | None] = mapped_column(String(20))
    """``undone`` by the annotator, or ``superseded`` by a later answer of the same annotator; null while it counts."""
    retracted_at: Mapped[datetime | None] = mapped_column(Moment)
    seconds_spent: Mapped[float | None] = mapped_column(Float)
    created_at: Mapped[datetime] = mapped_column(Moment)


class LabelEvent(Base):
    """One thing that happened in a queue, append-only: why did X get Y at time T."""

    __tablename__ = "label_events"
    __table_args__ = (Index("ix_label_events_queue_id_id", "queue_id", "id"),)

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer(), "sqlite"), primary_key=True)
    at: Mapped[datetime] = mapped_column(Moment)
    queue_id: Mapped[str] = mapped_column(ForeignKey("label_queues.id"))
    task_id: Mapped[str | None] = mapped_column(ForeignKey("label_tasks.id"), index=True)
    annotator_id: Mapped[str | None] = mapped_column(AnnotatorId)
    kind: Mapped[str] = mapped_column(String(20))
    """``published``, ``served``, ``expired``, ``submitted``, ``late``, ``skipped``, ``released``, ``undone``,
    ``closed``, ``reopened``, ``reassigned``, ``adjudicated``, ``gold`` (an answer is known), ``gold_removed``,
    ``moved`` (to another slot, or out of one, because the answer is known no more), ``suggested``, ``unsuggested``
    (suggestions of a source came, went), ``settings``,
    ``schema`` (it changed), ``invalidated`` (the answer is none any more), ``imported`` (as history; one that counts is
    ``submitted`` or ``late``), ``asked_again`` (a finished task is to have one more answer), ``withdrawn`` (it is not,
    after all)."""
    detail: Mapped[dict[str, Any]] = mapped_column(Json)


class LabelRound(Base):
    """One point of a learning curve: a model fitted on so many labels, measured on the held-out slice."""

    __tablename__ = "label_rounds"

    queue_id: Mapped[str] = mapped_column(ForeignKey("label_queues.id"), primary_key=True)
    arm: Mapped[str] = mapped_column(String(100), primary_key=True)
    """The query strategy that chose the labels: the queue's own, or ``random`` with the same budget."""
    round: Mapped[int] = mapped_column(primary_key=True)
    num_labels: Mapped[int]
    num_examples: Mapped[int]
    """Held-out records behind the accuracy."""
    accuracy: Mapped[float] = mapped_column(Float)
    accuracy_low: Mapped[float] = mapped_column(Float)
    accuracy_high: Mapped[float] = mapped_column(Float)
    """Wilson interval at 95 %."""
    macro_f1: Mapped[float] = mapped_column(Float)
    seconds: Mapped[float] = mapped_column(Float)
    """Fitting, scoring and choosing."""
    created_at: Mapped[datetime] = mapped_column(Moment)


class LabelGeneration(Base):
    """What one choice of tasks was made with, and what its model was worth: stopping advice and audit read it."""

    __tablename__ = "label_generations"

    queue_id: Mapped[str] = mapped_column(ForeignKey("label_queues.id"), primary_key=True)
    generation: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(Moment)
    strategy: Mapped[str] = mapped_column(String(100))
    """The strategy that chose: what ``auto`` came to, for one."""
    num_labels: Mapped[int]
    """Records with a label that the model was fitted on."""
    figures: Mapped[dict[str, Any]] = mapped_column(Json)


class LabelGold(Base):
    """A record whose answer is known: annotators are asked about it among the others, and measured by it."""

    __tablename__ = "label_gold"

    queue_id: Mapped[str] = mapped_column(ForeignKey("label_queues.id"), primary_key=True)
    record_id: Mapped[str] = mapped_column(RecordId, primary_key=True)
    value: Mapped[Any] = mapped_column(Json)
    note: Mapped[str] = mapped_column(Text, default="", server_default="")
    """Shown to an annotator who answered otherwise, if it is not empty."""
    created_by: Mapped[str | None] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(Moment)


class LabelSuggestion(Base):
    """What a model says about a record before people do. The newest of a source counts."""

    __tablename__ = "label_suggestions"

    queue_id: Mapped[str] = mapped_column(ForeignKey("label_queues.id"), primary_key=True)
    record_id: Mapped[str] = mapped_column(RecordId, primary_key=True)
    source: Mapped[str] = mapped_column(String(200), primary_key=True)
    """The model, and its version."""
    value: Mapped[Any] = mapped_column(Json)
    score: Mapped[float | None] = mapped_column(Float)
    created_at: Mapped[datetime] = mapped_column(Moment)
