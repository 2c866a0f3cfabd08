"""What a queue is told beforehand: records whose answer is known, and what models suggest; both can be taken away."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from labeling import gold_scores, queue
from labeling.suggestions import remove_suggestions, suggestion_sources
from service.api.access import Catalogued, Curator, PageSize, Reviewer
from service.api.reviews import names_of
from service.auth import audit

router = APIRouter(prefix="/queues/{queue_id}", tags=["known tasks and suggestions"])
QueueId = Annotated[str, Path(max_length=36)]
RecordId = Annotated[str, Field(min_length=1, max_length=200)]


class GoldRequest(BaseModel):
    """Records and their known answers."""

    model_config = ConfigDict(extra="forbid")

    values: dict[str, Any] = Field(min_length=1, max_length=10_000, description="answers by record id")
    notes: dict[str, str] = Field({}, description="by record id, shown to whoever answers otherwise")


class GoldMade(BaseModel):
    """How many records are known now by this request."""

    num_known: int


class GoldScoreOut(BaseModel):
    """How an annotator did on known tasks."""

    annotator: str
    num_answered: int
    num_right: int


class KnownOut(BaseModel):
    """A record whose answer is known, and how often people answered so."""

    record_id: str
    value: Any
    note: str
    num_answered: int
    num_right: int


class KnownPage(BaseModel):
    """Some known records by id; ``next`` is the ``after`` of the following page, null on the last."""

    items: list[KnownOut]
    next: str | None


class GoldRemoved(BaseModel):
    """What became of records that are known no more."""

    num_records: int
    num_asked: int = Field(description="of them, asked about like all others now; the rest left until they are chosen")
    num_votes: int = Field(description="answers to them that count now as answers to any other task")
    num_late: int = Field(description="answers to them beyond the overlap, kept as late ones")


class SuggestionSource(BaseModel):
    """A model whose suggestions a queue has."""

    source: str
    num_records: int


class SuggestionsRemoved(BaseModel):
    """Of how many records suggestions were taken away."""

    num_removed: int


@router.post("/gold", status_code=201, summary="Make records known")
def add_gold(catalog: Catalogued, who: Curator, queue_id: QueueId, request: GoldRequest) -> GoldMade:
    """Annotators are asked about them among the others, one task in ``gold_every``, and measured by their answers."""
    from workers.labeling import make_known

    return GoldMade(num_known=make_known(catalog, queue_id, request.values, notes=request.notes, by=who.user_id))


@router.get("/gold", summary="Read how annotators did on known tasks")
def read_gold(catalog: Catalogued, _who: Reviewer, queue_id: QueueId) -> list[GoldScoreOut]:
    """By annotator; answers that were taken back do not count."""
    with catalog.read() as session:
        queue.open_queue(session, queue_id, even_closed=True)
        scores = gold_scores.gold_scores(session, queue_id=queue_id)
        names = names_of(session, {one.annotator_id for one in scores})
    return [
        GoldScoreOut(annotator=names[one.annotator_id], num_answered=one.num_answered, num_right=one.num_right)
        for one in scores
    ]


@router.get("/gold/records", summary="List known records")
def list_known(
    catalog: Catalogued,
    _who: Reviewer,
    queue_id: QueueId,
    after: Annotated[str, Query(max_length=200)] = "",
    limit: PageSize = 50,
) -> KnownPage:
    """With what people answered: a known answer that hardly anybody gives may be wrong itself."""
    with catalog.read() as session:
        found = gold_scores.known_records(session, queue_id=queue_id, after=after, limit=limit + 1)
    items = [KnownOut.model_validate(asdict(one)) for one in found[:limit]]
    return KnownPage(items=items, next=items[-1].record_id if len(found) > limit else None)


@router.delete("/gold", summary="Make records ordinary again")
def remove_gold(
    catalog: Catalogued,
    who: Curator,
    queue_id: QueueId,
    record: Annotated[list[RecordId], Query(min_length=1, max_length=1_000, description="id; as often as wanted")],
) -> GoldRemoved:
    """All of them or, where one is not known, none. What people answered to them is kept, and counts from now on."""
    from workers.labeling import make_ordinary

    done = make_ordinary(catalog, queue_id, record, by=who.user_id)
    with catalog.write() as session:
        now, target = catalog.now(session), f"queue:{queue_id}"
        audit(
            session, now=now, actor=who.user_id, action="queue.gold_removed", target=target, detail={"records": record}
        )
    return GoldRemoved.model_validate(asdict(done))


@router.get("/suggestions", summary="List whose suggestions a queue has")
def list_suggestions(catalog: Catalogued, _who: Reviewer, queue_id: QueueId) -> list[SuggestionSource]:
    """Models with the number of records that each says something of."""
    with catalog.read() as session:
        found = suggestion_sources(session, queue_id=queue_id)
    return [SuggestionSource(source=source, num_records=count) for source, count in found.items()]


@router.delete("/suggestions", summary="Take a model's suggestions away")
def delete_suggestions(
    catalog: Catalogued,
    who: Curator,
    queue_id: QueueId,
    source: Annotated[str, Query(min_length=1, max_length=200, description="the model, as it is listed")],
) -> SuggestionsRemoved:
    """Nobody is shown them from now on; whoever has the task on the screen keeps what it showed."""
    with catalog.write() as session:
        now = catalog.now(session)
        count = remove_suggestions(session, now=now, queue_id=queue_id, source=source, by=who.user_id)
        told = {"source": source, "num_removed": count}
        target = f"queue:{queue_id}"
        audit(session, now=now, actor=who.user_id, action="queue.suggestions_removed", target=target, detail=told)
    return SuggestionsRemoved(num_removed=count)
