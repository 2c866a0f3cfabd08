"""Leases: keep one, give it back, skip its task, or answer it."""

from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from catalog.faults import fault
from labeling import queue
from service.api.access import Anyone, Catalogued
from service.api.direct import Direct, as_json

router = APIRouter(prefix="/leases", tags=["leases"])
direct = APIRouter(prefix="/leases", tags=["leases"], route_class=Direct)


class LeaseOut(BaseModel):
    """Until when the lease is held without another sign of life."""

    expires_at: datetime


class SkipRequest(BaseModel):
    """Why the caller cannot answer."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(min_length=1, max_length=200)


class AnswerRequest(BaseModel):
    """An answer."""

    model_config = ConfigDict(extra="forbid")

    key: str = Field(
        pattern=r"^[A-Za-z0-9_-]{8,100}$",
        description="made by the client, once an answer: sending the same key again changes nothing",
    )
    value: Any = Field(description="what the queue's task type asks for, at most 256 KiB: docs/labeling.md")
    seconds_spent: float | None = Field(None, ge=0, le=86_400, allow_inf_nan=False)
    schema_version: int | None = Field(
        None,
        ge=1,
        lt=2**31,
        description="of the schema that the annotator saw; by default as the task was served",
    )


class JudgedOut(BaseModel):
    """The answer beside the one that was known."""

    model_config = ConfigDict(from_attributes=True)

    is_right: bool
    expected: Any
    note: str


class AnswerOut(BaseModel):
    """What became of the answer."""

    model_config = ConfigDict(from_attributes=True)

    annotation_id: str
    late: bool = Field(description="others had filled the overlap by then: kept, beyond the overlap")
    repeated: bool = Field(description="this key had arrived before; nothing changed")
    judged: JudgedOut | None = Field(None, description="beside the known answer, where the task's answer was known")


@router.post("/{lease_id}/heartbeat", summary="Keep a lease")
def heartbeat(catalog: Catalogued, who: Anyone, lease_id: str) -> LeaseOut:
    """Renew the lease. 410 when it has ended and another annotator may hold the task."""
    with catalog.write() as session:
        now = catalog.now(session)
        expires_at = queue.heartbeat(session, now=now, lease_id=lease_id, annotator_id=who.user_id)
    return LeaseOut(expires_at=expires_at)


@router.post("/{lease_id}/release", status_code=204, summary="Give a lease back")
def release(catalog: Catalogued, who: Anyone, lease_id: str) -> Response:
    """Give the task back unanswered; anyone, the caller included, may get it again."""
    with catalog.write() as session:
        queue.release(session, now=catalog.now(session), lease_id=lease_id, annotator_id=who.user_id)
    return Response(status_code=204)


@router.post("/{lease_id}/skip", status_code=204, summary="Skip a task")
def skip(catalog: Catalogued, who: Anyone, lease_id: str, request: SkipRequest) -> Response:
    """Give the task to others; the caller does not get it again."""
    with catalog.write() as session:
        now = catalog.now(session)
        queue.skip(session, now=now, lease_id=lease_id, annotator_id=who.user_id, reason=request.reason)
    return Response(status_code=204)


@direct.put("/{lease_id}/annotation", summary="Answer a task", response_model=AnswerOut)
async def answer(lease_id: str, answered: AnswerRequest, request: Request) -> Response:
    """Store an answer: durably before the reply, once however often it is sent. A late one is kept, and says so."""
    given = queue.Given(
        lease_id=lease_id,
        annotator_id=request.state.identity.user_id,
        value=answered.value,
        key=answered.key,
        seconds_spent=answered.seconds_spent,
        schema_version=answered.schema_version,
    )
    submitted = await request.app.state.desk.answer(given)
    fault("annotation.after_commit")
    if not submitted.repeated:
        request.app.state.refresher.look_after(submitted.queue_id)
    return as_json(AnswerOut.model_validate(submitted))
