"""What a queue's answers are worth: agreement, the quality of each annotator, and the consensus with its confidence."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from catalog.errors import ConfigError
from catalog.tables.labeling import LabelQueue, LabelTask
from labeling.agreement.annotators import agreement_with_others, confusion_matrices, drift, share_right, speed
from labeling.agreement.cohen import mean_kappa, pairwise_kappa
from labeling.agreement.figure import Agreement
from labeling.agreement.fleiss import fleiss_kappa
from labeling.agreement.gamma import gamma
from labeling.agreement.krippendorff import krippendorff_alpha
from labeling.agreement.spans import span_f1
from labeling.annotations import Annotations
from labeling.consensus import Consensus, Evidence
from labeling.learner import wilson_interval
from labeling.relabels import num_asked_again
from labeling.results import CurrentLabel, current_answers, current_labels
from labeling.slots import open_queue
from labeling.truth import TRUTH

CLASS_TASKS = ("single_choice", "pairwise", "rating")
"""Tasks whose answers are one of several labels, so that methods of ``labeling.truth`` decide between them."""
MIN_ANSWERS_AN_ANNOTATOR = 20
"""To items that others answered too, on average: below, models of annotators know no more than the majority."""
DEFAULT_METHOD = "pooled_dawid_skene"
WEIGH_A_CLASSIFIER = ("classifier_dawid_skene", "crowdlab")
Classifier = Callable[[Annotations], npt.NDArray[np.float64]]
"""From answers to (num_items, num_labels) probabilities of a classifier that did not see the item."""
ANSWERS: dict[str, Any] = {
    "item": pl.String,
    "annotator": pl.String,
    "label": pl.String,
    "seconds": pl.Float64,
    "at": pl.Datetime("us", "UTC"),
    "length": pl.Int64,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotatorQuality:
    """How good one annotator is.

    Parameters
    ----------
    num_answers : that count; ``num_shared`` of them to items that others answered too.
    agreement_with_others : share of the others' answers to the same items that are the same.
    quality : how likely an answer is right, by the consensus method.
    accuracy, low, high : share of the shared answers that equal the consensus, with its interval at 95 %.
    num_timed, median_seconds, p10_seconds, p90_seconds : how long an answer takes, of those that were timed.
    first, last, change, change_low, change_high, drifts : shares right in the first and the last third, the difference
        with its interval, and whether that leaves 0 out.
    confusion : (consensus, given, answers), what was said where the consensus is what.

    Anything is None where too little is known to tell.
    """

    annotator_id: str
    num_answers: int
    num_shared: int
    agreement_with_others: float | None = None
    quality: float | None = None
    accuracy: float | None = None
    low: float | None = None
    high: float | None = None
    num_timed: int = 0
    median_seconds: float | None = None
    p10_seconds: float | None = None
    p90_seconds: float | None = None
    first: float | None = None
    last: float | None = None
    change: float | None = None
    change_low: float | None = None
    change_high: float | None = None
    drifts: bool | None = None
    confusion: tuple[tuple[str, str, int], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Cohen's kappa of two annotators, or the reason why there is none."""

    annotator_id: str
    other_id: str
    num_items: int
    observed: float
    kappa: float | None
    reason: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class QueueQuality:
    """What a queue's answers are worth.

    Parameters
    ----------
    task : what kind of answer is asked for.
    num_items, num_answers : that count.
    method : the consensus method that annotators are measured against; None where answers are no labels to decide
        between.
    mean_confidence : of the consensus; None likewise.
    agreement : the measures that fit the task, the one to quote first.
    mean_kappa : of the pairs that have one.
    """

    task: str
    num_items: int
    num_answers: int
    method: str | None
    mean_confidence: float | None
    agreement: tuple[Agreement, ...]
    mean_kappa: float | None
    pairs: tuple[Pair, ...]
    annotators: tuple[AnnotatorQuality, ...]


def queue_quality(
    session: Session,
    *,
    queue_id: str,
    rng: np.random.Generator,
    method: str | None = None,
    classifier: Classifier | None = None,
    num_replicates: int = 1000,
) -> QueueQuality:
    """Measure a queue; works on closed ones too.

    Parameters
    ----------
    rng : of the intervals.
    method : of ``labeling.truth``; by default ``pooled_dawid_skene``, or ``majority`` where annotators have too few
        answers.
    classifier : for methods that weigh one: gives its out-of-sample probabilities of the answered items.
    num_replicates : of the bootstrap behind each interval.

    Raises
    ------
    NotFoundError : no such queue or method.
    NoClassifierError : the method weighs a classifier, and there is none.
    ConfigError : a method for answers that are no labels to decide between.
    """
    queue = open_queue(session, queue_id, even_closed=True)
    answers = heard_answers(session, queue)
    task = str(queue.schema["task"])
    if method is not None:
        TRUTH[method]
        if task not in CLASS_TASKS:
            raise ConfigError(f"task {task!r} has no labels to decide between by {method!r}; leave the method out")
    told: dict[str, Any] = {"task": task, "num_items": answers["item"].n_unique(), "num_answers": answers.height}
    if task in CLASS_TASKS and answers.height:
        given = Annotations.from_frame(answers, _labels(queue, answers))
        name = method or _usual_method(session, queue, given)
        found = decide(given, name, classifier)
        pairs = pairwise_kappa(given, "quadratic" if task == "rating" else "none")
        return QueueQuality(
            **told,
            method=name,
            mean_confidence=float(found.confidence[found.label >= 0].mean()),
            agreement=tuple(_measures(given, task, rng, num_replicates)),
            mean_kappa=mean_kappa(pairs),
            pairs=tuple(
                Pair(**row) for row in pairs.rename({"annotator": "annotator_id", "other": "other_id"}).to_dicts()
            ),
            annotators=_annotators(answers, given, found),
        )
    agreement = tuple(_other_measures(queue, answers, task, rng, num_replicates))
    annotators = _annotators(answers, None, None)
    return QueueQuality(
        **told, method=None, mean_confidence=None, agreement=agreement, mean_kappa=None, pairs=(), annotators=annotators
    )


def consensus_labels(
    session: Session, *, queue_id: str, method: str | None = None, classifier: Classifier | None = None
) -> list[CurrentLabel]:
    """The label of every answered record in order of record id, with its confidence as ``agreement``.

    Where annotators have enough answers it is the consensus of ``pooled_dawid_skene`` and how likely that is right;
    else, and where answers are no labels to decide between, the majority and its share.

    Raises
    ------
    NotFoundError : no such queue or method.
    NoClassifierError : the method weighs a classifier, and there is none.
    """
    majority = current_labels(session, queue_id=queue_id)
    queue = open_queue(session, queue_id, even_closed=True)
    if queue.schema["task"] not in CLASS_TASKS or not any(one.num_votes > 1 for one in majority):
        return majority
    answers = heard_answers(session, queue)
    given = Annotations.from_frame(answers, _labels(queue, answers))
    name = method or _usual_method(session, queue, given)
    if name == "majority":
        return majority
    found = decide(given, name, classifier)
    decided = dict(zip(given.items, zip(found.label.tolist(), found.confidence.tolist(), strict=True), strict=True))
    values = {key_of(one.value): one.value for one in majority}
    consensus = []
    for one in majority:
        if one.is_settled:
            consensus.append(one)
            continue
        label, confidence = decided[one.record_id]
        value = values.get(given.labels[label], given.labels[label])
        consensus.append(replace(one, value=value, agreement=confidence))
    return consensus


def _usual_method(session: Session, queue: LabelQueue, annotations: Annotations) -> str:
    """Who decides when nobody says.

    Where one answer was the rule and doubted labels got more, those with several are the hard ones: a model of
    annotators takes them for worse than they are, and the majority was right more often (docs/agreement.md).
    """
    if queue.overlap == 1 and num_asked_again(session, queue.id):
        return "majority"
    return default_method(annotations)


def default_method(annotations: Annotations) -> str:
    """Who decides when nobody says: models need answers to learn annotators from."""
    shared = int((np.diff(annotations.starts)[annotations.item] > 1).sum())
    enough = shared >= MIN_ANSWERS_AN_ANNOTATOR * annotations.num_annotators
    return DEFAULT_METHOD if enough and annotations.num_labels > 1 else "majority"


def decide(annotations: Annotations, method: str, classifier: Classifier | None = None) -> Consensus:
    """The consensus by a method with its default options; the classifier is asked only by those that weigh it."""
    member = TRUTH[method]
    proba = classifier(annotations) if classifier is not None and method in WEIGH_A_CLASSIFIER else None
    return member.member(Evidence(annotations=annotations, proba=proba), member.configured())


def heard_answers(session: Session, queue: LabelQueue) -> pl.DataFrame:
    """The answers of annotators that count, as ``ANSWERS``, by time: late ones only where no accepted one stands.

    ``label`` is the answer itself where that is text, else its JSON with sorted keys; ``length`` is the text's, where
    spans are asked for.
    """
    heard = [one for one in current_answers(session, queue) if one.origin != "adjudicator"]
    heard.sort(key=lambda one: (one.created_at, one.annotation_id))
    lengths: dict[str, int] = {}
    if queue.schema["task"] == "spans":
        texts = select(LabelTask.id, func.length(LabelTask.text)).where(LabelTask.queue_id == queue.id)
        lengths = {task_id: length for task_id, length in session.execute(texts)}  # noqa: C416 - rows are no pairs
    frame = pl.DataFrame(
        [
            (
                one.record_id,
                one.annotator_id,
                key_of(one.value),
                one.seconds_spent,
                one.created_at,
                lengths.get(one.task_id, 0),
                one.late,
            )
            for one in heard
        ],
        schema={**ANSWERS, "late": pl.Boolean},
        orient="row",
    )
    return frame.filter(~pl.col("late") | pl.col("late").all().over("item")).drop("late")


def key_of(value: Any) -> str:
    """An answer as one word: text as it is, anything else as its JSON with sorted keys."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _labels(queue: LabelQueue, answers: pl.DataFrame) -> list[str]:
    """The schema's labels in its order, then whatever else was answered; ratings by their size."""
    given = answers["label"].unique().sort().to_list()
    if queue.schema["task"] == "rating":
        return sorted(given, key=lambda one: (float(one), one))
    names = [one["name"] for one in queue.schema.get("labels") or []]
    return names + [one for one in given if one not in names]


def _measures(given: Annotations, task: str, rng: np.random.Generator, num_replicates: int) -> Iterator[Agreement]:
    if task == "rating":
        yield krippendorff_alpha(given, "ordinal", rng=rng, num_replicates=num_replicates)
        values = [float(one) for one in given.labels]
        yield krippendorff_alpha(given, "interval", values, rng=rng, num_replicates=num_replicates)
    yield krippendorff_alpha(given, rng=rng, num_replicates=num_replicates)
    yield fleiss_kappa(given)


def _other_measures(
    queue: LabelQueue, answers: pl.DataFrame, task: str, rng: np.random.Generator, num_replicates: int
) -> Iterator[Agreement]:
    """Measures of answers that are several labels, spans or texts."""
    if task == "spans":
        spans, lengths = _spans(answers), answers.select("item", "length").unique()
        yield span_f1(spans, answers, rng=rng, num_replicates=num_replicates)
        yield span_f1(spans, answers, "overlap", rng=rng, num_replicates=num_replicates)
        yield gamma(spans, answers, lengths, rng=rng)
    elif task == "multi_label":
        # Which labels are there at all; then each label for itself, given or not.
        whole = krippendorff_alpha(Annotations.from_frame(answers), rng=rng, num_replicates=num_replicates)
        yield replace(whole, measure="krippendorff_alpha_label_sets")
        given = [set(json.loads(value)) for value in answers["label"]]
        for one in queue.schema.get("labels") or []:
            named = answers.with_columns(label=pl.Series(["yes" if one["name"] in some else "no" for some in given]))
            alone = krippendorff_alpha(Annotations.from_frame(named), rng=rng, num_replicates=num_replicates)
            yield replace(alone, measure=f"krippendorff_alpha_label: {one['name']}")
    elif task in CLASS_TASKS:
        yield Agreement(measure="krippendorff_alpha_nominal", value=None, reason="nothing was answered yet")
    else:
        yield Agreement(measure="none", value=None, reason=f"no measure of agreement fits answers of task {task!r}")


def _spans(answers: pl.DataFrame) -> pl.DataFrame:
    rows = [
        (item, annotator, one["start"], one["end"], one["label"])
        for item, annotator, value in answers.select("item", "annotator", "label").iter_rows()
        for one in json.loads(value)
    ]
    columns = {"item": pl.String, "annotator": pl.String, "start": pl.Int64, "end": pl.Int64, "label": pl.String}
    return pl.DataFrame(rows, schema=columns, orient="row")


def _annotators(
    answers: pl.DataFrame, given: Annotations | None, found: Consensus | None
) -> tuple[AnnotatorQuality, ...]:
    shared = pl.len().over("item") > 1
    counted = (
        answers.with_columns(shared=shared)
        .group_by("annotator")
        .agg(num_answers=pl.len().cast(pl.Int64), num_shared=pl.col("shared").sum().cast(pl.Int64))
    )
    timed = {row.pop("annotator"): row for row in speed(answers).to_dicts()}
    against = {} if given is None or found is None else _against_consensus(answers, given, found)
    return tuple(
        AnnotatorQuality(
            annotator_id=annotator,
            num_answers=num_answers,
            num_shared=num_shared,
            **timed[annotator],
            **against.get(annotator, {}),
        )
        for annotator, num_answers, num_shared in counted.sort("annotator").iter_rows()
    )


def _against_consensus(answers: pl.DataFrame, given: Annotations, found: Consensus) -> dict[str, dict[str, Any]]:
    """What is said of each annotator by comparison with the consensus."""
    others, right = agreement_with_others(given), share_right(given, found.label, shared_only=True)
    num_shared = np.bincount(
        given.annotator[np.diff(given.starts)[given.item] > 1], minlength=given.num_annotators
    ).tolist()
    names = pl.Series(given.labels, dtype=pl.String)
    truth = pl.DataFrame({"item": given.items, "truth": names.gather(found.label)})
    judged = answers.filter(pl.len().over("item") > 1).join(truth, on="item", maintain_order="left")
    drifted = {
        row.pop("annotator"): row
        for row in drift(judged.with_columns(right=pl.col("label") == pl.col("truth"))).to_dicts()
    }
    confused: dict[str, list[tuple[str, str, int]]] = {}
    for annotator, consensus, label, num in confusion_matrices(given, found.label).iter_rows():
        confused.setdefault(annotator, []).append((consensus, label, num))
    told: dict[str, dict[str, Any]] = {}
    for place, annotator in enumerate(given.annotators):
        changed = drifted.get(annotator, {})
        told[annotator] = {
            "agreement_with_others": _number(others[place]),
            "quality": _number(found.quality[place]),
            "accuracy": _number(right[place]),
            "first": changed.get("first"),
            "last": changed.get("last"),
            "change": changed.get("change"),
            "change_low": changed.get("low"),
            "change_high": changed.get("high"),
            "drifts": changed.get("drifts"),
            "confusion": tuple(confused.get(annotator, ())),
        }
        if num_shared[place]:
            low, high = wilson_interval(round(right[place] * num_shared[place]), num_shared[place])
            told[annotator] |= {"low": low, "high": high}
    return told


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
