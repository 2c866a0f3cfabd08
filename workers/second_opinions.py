"""Which answered records a queue may ask about once more, as query strategies see them, and where they are served."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import polars as pl
from sqlalchemy.orm import Session

from catalog.tables.labeling import LabelQueue
from labeling import queue as queues
from labeling import relabels
from labeling.candidates import Answers
from labeling.learner import out_of_sample
from labeling.mixing import mixed
from labeling.schema import LabelSchema
from labeling.second_opinions import doubted

ASK_AGAIN = ("active_lab", "auto")
"""Strategies that weigh another opinion against a new record."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Opinions:
    """What was answered so far, where a strategy weighs another opinion against a new record.

    Parameters
    ----------
    given : record, annotator and class of every answer that votes, sorted.
    askable : records that may have one more.
    """

    given: Sequence[tuple[str, str, str]] = ()
    askable: Collection[str] = frozenset()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Again:
    """Answered records as candidates: those that may be asked about once more, and those that only say who is right.

    Parameters
    ----------
    rows : (n,) int64 of the records.
    is_open : (n,) bool, whether it may be asked about.
    proba : (n, num_classes) float64 by models that were fitted without them.
    places, annotators, codes : (num_answers,) int64 each: which of the ``rows``, by whom, what.
    """

    rows: npt.NDArray[np.int64]
    is_open: npt.NDArray[np.bool_]
    proba: npt.NDArray[np.float64]
    places: npt.NDArray[np.int64]
    annotators: npt.NDArray[np.int64]
    codes: npt.NDArray[np.int64]

    @classmethod
    def none(cls, num_classes: int) -> "Again":
        """Nothing may be asked again."""
        empty = np.empty(0, dtype=np.int64)
        return cls(
            rows=empty,
            is_open=np.empty(0, dtype=bool),
            proba=np.empty((0, num_classes)),
            places=empty,
            annotators=empty,
            codes=empty,
        )

    @classmethod
    def of(
        cls,
        ids: pl.Series,
        is_asked: npt.NDArray[np.bool_],
        labelled: npt.NDArray[np.int64],
        vectors: npt.NDArray[np.float32],
        labels: Sequence[str | None],
        classes: Sequence[str],
        opinions: Opinions,
        seed: int,
    ) -> "Again":
        """The answered records, of which those are open that may have one more answer and whose label is doubted.

        Parameters
        ----------
        ids : of all records; ``is_asked`` (len(ids),) bool, whether anybody may be asked about it at all.
        labelled : rows of those with a label; ``labels`` are these, None where it is no class.
        vectors : (len(ids), dim) float32.
        seed : of the folds.
        """
        if not opinions.askable:
            return cls.none(len(classes))
        known = labelled[np.array([label is not None for label in labels], dtype=bool)]
        proba = out_of_sample(vectors[known], [label for label in labels if label is not None], classes, seed)
        if proba is None:
            return cls.none(len(classes))
        where = pl.DataFrame({"id": ids.gather(known), "place": np.arange(len(known))})
        told = pl.DataFrame(opinions.given, schema=["id", "annotator", "label"], orient="row")
        told = told.join(where, on="id", how="inner", maintain_order="left")
        places, place_of_each = np.unique(told["place"].to_numpy(), return_inverse=True)
        code = {name: number for number, name in enumerate(classes)}
        answers = Answers(
            rows=place_of_each.astype(np.int64),
            annotators=told["annotator"].rank("dense").to_numpy().astype(np.int64) - 1,
            codes=np.array([code[one] for one in told["label"]], dtype=np.int64),
        )
        is_open = doubted(proba[places], answers)
        is_open &= ids.gather(known[places]).is_in(list(opinions.askable)).to_numpy() & is_asked[known[places]]
        if not is_open.any():
            return cls.none(len(classes))
        return cls(
            rows=known[places],
            is_open=is_open,
            proba=proba[places],
            places=answers.rows,
            annotators=answers.annotators,
            codes=answers.codes,
        )

    def answers(self, offset: int) -> Answers | None:
        """As candidates that stand behind ``offset`` others have them; None if there are none."""
        if not len(self.rows):
            return None
        return Answers(
            rows=self.places + offset,
            annotators=self.annotators,
            codes=self.codes,
            closed=np.flatnonzero(~self.is_open) + offset,
        )


def opinions_of(session: Session, found: LabelQueue, schema: LabelSchema, now: datetime) -> Opinions:
    """What the next choice of a queue's tasks has to know of the answers so far.

    Nothing where the queue's strategy asks about new records only, where answers are no classes, and in rehearsals: one
    program answers there, and always the same.
    """
    if found.strategy not in ASK_AGAIN or found.rehearsal or not schema.classes:
        return Opinions()
    askable = relabels.askable_again(session, now=now, queue_id=found.id)
    if not askable:
        return Opinions()
    given = []
    for one in queues.current_answers(session, found):
        label = schema.class_of(one.value)
        if label is not None and not one.late and one.origin != "adjudicator":
            given.append((one.record_id, one.annotator_id, label))
    return Opinions(given=sorted(given), askable=askable)


def in_order(
    chosen: Sequence[int], num_pool: int, most_again: int, random_share: float, rng: np.random.Generator
) -> list[tuple[int, int | None]]:
    """Candidates in the order of serving: new ones mixed with random ones, answered ones where they were chosen.

    Parameters
    ----------
    chosen : candidates by the strategy, best first; those from ``num_pool`` up are answered ones.
    most_again : so many of these are kept, the first: a generation is followed by the next after so many answers, and
        what more it opened would only be closed again.
    random_share : of the new ones, drawn by chance.

    Returns
    -------
    pairs as of ``labeling.mixing.mixed``.

    Examples
    --------
    >>> in_order([4, 1, 5, 0], 3, 1, 0.0, np.random.default_rng(0))
    [(4, 0), (1, 1), (0, 3)]
    """
    new = [(place, row) for place, row in enumerate(chosen) if row < num_pool]
    drawn = iter(mixed([row for _, row in new], num_pool, len(new), random_share, rng))
    order: list[tuple[int, int | None]] = []
    num_again = 0
    for place, row in enumerate(chosen):
        if row < num_pool:
            picked, among = next(drawn)
            order.append((picked, None if among is None else new[among][0]))
        elif num_again < most_again:
            order.append((row, place))
            num_again += 1
    return order
