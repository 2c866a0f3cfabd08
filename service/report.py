"""The report: one self-contained HTML page about a dataset, drawn on the server, with no script and nothing fetched."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from catalog.errors import NotFoundError
from catalog.store import Store
from catalog.tables.curation import DuplicatePair
from catalog.tables.datasets import Dataset, Version
from catalog.tables.engine import Run
from catalog.tables.training import Evaluation
from curation.dedup.config import NearConfig
from curation.dedup.curve import curve
from labeling.simulation import LearningCurve
from service.cleaning_sections import cleaning_sections
from service.curves import CONTROL, newest_rehearsal
from service.differences import MISSING, SHARED, Runs, differences, excerpt
from service.losses import arm_curves, loss_charts
from service.pages.charts import Chart, Series, line_chart
from service.pages.datasets import Funnel, last_funnel
from service.pages.rendering import environment
from service.topics import topic_map
from workers import learned, manifests, passages, suspects
from workers.bias import Fairness, fairness
from workers.clusters import ALL_KINDS, biggest_clusters, in_force, newest_run, texts_of
from workers.index import behind

NUM_CLUSTERS = 12
NUM_MEMBERS = 5
NUM_PASSAGES = 12
NUM_LABEL_ERRORS = 30
SHOWN_CHARS = 400
COMPARED_CHARS, COMPARED_PIECES = 20_000, 600


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """Records that one kept record stands for."""

    keeper_id: str
    keeper_text: str
    num_members: int
    members: list[dict[str, Any]]


def render_report(session: Session, store: Store, dataset: Dataset) -> str:
    """The page as text.

    Raises
    ------
    NotFoundError : nothing was cleaned or deduplicated yet, with the command that does.
    """
    curated = manifests.latest_version(session, dataset.id, "curated")
    version = (
        curated
        or manifests.latest_version(session, dataset.id, "deduplicated")
        or manifests.require_version(session, dataset, "curated")
    )
    run = behind(session, session.get_one(Run, version.run_id))
    looked = _looked_for_duplicates(session, dataset)
    semantic = (looked.result or {}).get("semantic") if looked is not None else None
    training = session.scalars(
        select(Run)
        .where(Run.dataset_id == dataset.id, Run.kind == "train", Run.state == "done")
        .order_by(Run.created_at.desc(), Run.id)
        .limit(1)
    ).one_or_none()
    rehearsal = newest_rehearsal(session, dataset.id)
    finder = run if passages.looked(run) else passages.newest_run(session, dataset)
    style = (files("service") / "static" / "style.css").read_text(encoding="utf-8")
    return (
        environment()
        .get_template("report.html")
        .render(
            **cleaning_sections(session, store, run),
            dataset=dataset,
            version=version,
            run=run,
            summary=version.summary,
            style=style,
            funnel=last_funnel(session, dataset.id) if curated is not None else _funnel(run, version),
            looked=looked,
            found=_counted(looked),
            clusters=clusters(session, store, looked) if looked is not None else [],
            near=near_config(looked),
            banding=banding_chart(looked),
            finder=finder,
            passages=passages.most_repeated(session, store, finder, NUM_PASSAGES) if finder else [],
            personal=(run.result or {}).get("pii"),
            semantic=semantic,
            semantic_clusters=semantic_clusters(session, store, looked) if looked is not None else [],
            sweep=sweep_chart(semantic),
            fair=_fairness(session, store, run),
            learning=learning_chart(rehearsal),
            rehearsal=rehearsal,
            label_errors=label_errors(session, store, dataset),
            learned=learned.newest_run(session, version.id),
            training=training,
            losses=loss_charts(arm_curves(session, training)) if training is not None else [],
            map=topic_map(session, store, dataset, version),
            variants=variants(session, training),
        )
    )


def label_errors(session: Session, store: Store, dataset: Dataset) -> dict[str, Any] | None:
    """What the newest search for wrong labels found, with the likeliest errors, or None where nobody has looked."""
    run = suspects.newest_run(session, dataset.id)
    if run is None:
        return None
    rows = suspects.listed(session, store, run, limit=NUM_LABEL_ERRORS).to_dicts()
    return {"run": run, "found": run.result, "rows": rows}


def _looked_for_duplicates(session: Session, dataset: Dataset) -> Run | None:
    """The newest run whose clusters there are to show, as ``winnow dedup clusters`` shows them."""
    try:
        return newest_run(session, dataset)
    except NotFoundError:
        return None


def _fairness(session: Session, store: Store, run: Run) -> Fairness | None:
    """Whom the run removed; None of a run that only deduplicated."""
    try:
        return fairness(session, store, run)
    except NotFoundError:
        return None


def _counted(looked: Run | None) -> dict[str, int]:
    """How many left as duplicates, and in favour of how many."""
    result = (looked.result or {}) if looked is not None else {}
    kinds = sum(result.get(f"{kind}_duplicates", 0) for kind in ALL_KINDS)
    return {"duplicates": result.get("duplicates", kinds), "clusters": result.get("clusters", 0)}


def _funnel(run: Run, version: Version) -> Funnel:
    """The funnel of a version that was deduplicated alone."""
    dropped = [(f"{kind}_duplicate", version.summary.get(f"{kind}_duplicates", 0)) for kind in ALL_KINDS]
    return Funnel(
        run=run,
        num_records=version.summary["records"],
        num_kept=version.summary["kept"],
        dropped=[one for one in dropped if one[1]],
    )


def clusters(
    session: Session, store: Store, run: Run, *, kinds: Sequence[str] = ("exact", "near"), accepted: bool = True
) -> list[Cluster]:
    """The biggest clusters of some kinds of duplicates, with the kept text and some of those that left.

    Parameters
    ----------
    accepted : False: those that were only reported.
    """
    biggest = biggest_clusters(session, run, NUM_CLUSTERS, kinds=kinds, accepted=accepted)
    similarity = func.coalesce(DuplicatePair.jaccard, DuplicatePair.cosine)
    counted = (
        in_force(run),
        DuplicatePair.accepted.is_(accepted),
        DuplicatePair.kind.in_(kinds),
    )
    pairs = {
        keeper: session.scalars(
            select(DuplicatePair)
            .where(*counted, DuplicatePair.keeper_id == keeper)
            .order_by(similarity, DuplicatePair.record_id)
            .limit(NUM_MEMBERS)
        ).all()
        for keeper, _ in biggest
    }
    wanted = {keeper for keeper, _ in biggest} | {one.record_id for found in pairs.values() for one in found}
    text = {record: found["text"] for record, found in texts_of(session, store, run, wanted).items()}
    return [
        Cluster(
            keeper_id=keeper,
            keeper_text=text[keeper],
            num_members=count,
            members=[
                {
                    "id": one.record_id,
                    "runs": shown_differences(text[keeper], text[one.record_id]),
                    "kind": one.kind,
                    "jaccard": one.jaccard,
                    "cosine": one.cosine,
                }
                for one in pairs[keeper]
            ],
        )
        for keeper, count in biggest
    ]


def semantic_clusters(session: Session, store: Store, run: Run | None) -> list[Cluster]:
    """The biggest clusters of semantic duplicates, whether they left or were only reported."""
    step = run.config["recipe"].get("semantic") if run is not None else None
    if run is None or step is None:
        return []
    return clusters(session, store, run, kinds=("semantic",), accepted=step["action"] == "remove")


def sweep_chart(found: dict[str, Any] | None) -> Chart | None:
    """Share of the compared records that would leave against epsilon, and that of random pairs as near."""
    if not found or not found["records"]:
        return None
    would = tuple((one["epsilon"], one["would_leave"] / found["records"]) for one in found["sweep"])
    chosen = next(share for epsilon, share in would if epsilon == found["epsilon"])
    return line_chart(
        [
            Series(name="share of records that would leave", points=would),
            Series(
                name=f"epsilon {found['epsilon']:g}: {chosen:.2%}",
                points=((found["epsilon"], 0.0), (found["epsilon"], chosen)),
                is_reference=True,
            ),
        ],
        unit="epsilon",
    )


def shown_differences(kept: str, other: str) -> Runs:
    """What of a removed text is shown beside the kept one: where they differ, with something around it."""
    runs = differences(kept[:COMPARED_CHARS], other[:COMPARED_CHARS], num_pieces=COMPARED_PIECES)
    if sum(len(text) for text, kind in runs if kind != MISSING) < len(other):
        # Behind the last that both have, it is the cut that differs.
        last = max((number for number, (_, kind) in enumerate(runs) if kind == SHARED), default=len(runs) - 1)
        *runs, (text, kind) = runs[: last + 1]
        runs.append((f"{text}…", kind))
    return excerpt(runs, SHOWN_CHARS)


def near_config(run: Run | None) -> NearConfig | None:
    """How near-duplicates were looked for, or None where they were not."""
    given = run.config["recipe"]["near"] if run is not None else None
    return None if given is None else NearConfig(**given)


def banding_chart(run: Run | None) -> Chart | None:
    """The S-curve of the run's banding with its threshold, or None where no near-duplicates were looked for."""
    near = near_config(run)
    if near is None:
        return None
    chosen = (near.threshold, near.recall(near.threshold))
    return line_chart(
        [
            Series(name=f"{near.bands} bands of {near.rows} rows", points=tuple(curve(near.bands, near.rows))),
            Series(
                name=f"threshold {near.threshold:g}: {chosen[1]:.1%} found",
                points=((near.threshold, 0.0), chosen),
                is_reference=True,
            ),
        ],
        unit="similarity",
    )


def learning_chart(rehearsal: dict[str, LearningCurve]) -> Chart | None:
    """Held-out accuracy against labels spent, one line a strategy with its interval."""
    return line_chart(
        [
            Series(
                name=strategy,
                points=tuple((float(point.num_labels), point.accuracy) for point in curve.points),
                low=tuple(point.low for point in curve.points),
                high=tuple(point.high for point in curve.points),
                is_reference=strategy == CONTROL,
            )
            for strategy, curve in rehearsal.items()
        ]
    )


def variants(session: Session, training: Run | None) -> list[Evaluation]:
    """The variant table of the newest training."""
    if training is None:
        return []
    query = select(Evaluation).where(Evaluation.run_id == training.id).order_by(Evaluation.arm, Evaluation.variant)
    return list(session.scalars(query))
