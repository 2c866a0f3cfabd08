"""Webhooks: whom to tell what happens. For administrators: the service itself connects to what is named here."""

from datetime import datetime
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select

from catalog.tables.webhooks import EVENTS, Delivery, Webhook
from service.api.access import Admin, Catalogued, PageSize
from service.auth import audit
from workers import webhooks

router = APIRouter(prefix="/webhooks", tags=["webhooks"])

Event = Literal[
    "run.done", "run.failed", "run.cancelled", "schedule.refused",
    "annotation.created", "annotation.updated", "item.completed", "model.refreshed", "budget.reached",
]  # fmt: skip


class WebhookRequest(BaseModel):
    """An address to tell, and of what."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(min_length=1, max_length=2000, description="HTTPS address of a public host")
    events: list[Event] = Field(min_length=1, max_length=len(EVENTS))


class WebhookOut(BaseModel):
    """A webhook."""

    id: str
    url: str
    events: list[str]
    created_by: str | None
    created_at: datetime


class WebhookMade(WebhookOut):
    """A new webhook with the secret of its signatures, which is shown this once."""

    secret: str


class WebhookList(BaseModel):
    """All webhooks, oldest first."""

    items: list[WebhookOut]


class DeliveryOut(BaseModel):
    """What an address was told, and what it answered."""

    event_id: str
    event: str
    state: str
    attempts: int
    answer: str | None
    created_at: datetime
    settled_at: datetime | None


class DeliveryList(BaseModel):
    """What an address was told, newest first."""

    items: list[DeliveryOut]


@router.get("", summary="List webhooks")
def list_webhooks(catalog: Catalogued, _who: Admin) -> WebhookList:
    """All webhooks, oldest first, without their secrets."""
    with catalog.read() as session:
        rows = session.scalars(select(Webhook).order_by(Webhook.created_at, Webhook.id))
        return WebhookList(items=[WebhookOut.model_validate(one, from_attributes=True) for one in rows])


@router.post("", status_code=201, summary="Add a webhook")
def add_webhook(catalog: Catalogued, who: Admin, asked: WebhookRequest) -> WebhookMade:
    """Tell an address from now on."""
    with catalog.write() as session:
        now = catalog.now(session)
        made = webhooks.add_webhook(
            session,
            url=asked.url,
            events=asked.events,
            now=now,
            private=catalog.settings.webhook_private,
            created_by=who.name,
        )
        detail = {"url": made.url, "events": made.events}
        audit(session, now=now, actor=who.user_id, action="webhook.added", target=f"webhook:{made.id}", detail=detail)
        return WebhookMade.model_validate(made, from_attributes=True)


@router.delete("/{webhook_id}", status_code=204, summary="Remove a webhook")
def remove_webhook(catalog: Catalogued, who: Admin, webhook_id: str) -> Response:
    """Tell an address nothing more, not even what waits to be sent."""
    with catalog.write() as session:
        found, now = webhooks.find_webhook(session, webhook_id), catalog.now(session)
        session.delete(found)
        audit(session, now=now, actor=who.user_id, action="webhook.removed", target=f"webhook:{found.id}", detail={})
    return Response(status_code=204)


@router.get("/{webhook_id}/deliveries", summary="Read what an address was told")
def read_deliveries(catalog: Catalogued, _who: Admin, webhook_id: str, limit: PageSize = 50) -> DeliveryList:
    """What an address was told, newest first, and what it answered."""
    with catalog.read() as session:
        found = webhooks.find_webhook(session, webhook_id)
        query = select(Delivery).where(Delivery.webhook_id == found.id).order_by(Delivery.created_at.desc())
        rows = session.scalars(query.limit(limit))
        return DeliveryList(items=[DeliveryOut.model_validate(one, from_attributes=True) for one in rows])
