"""``winnow webhook``: whom to tell what happens."""

from typing import Annotated, Any

import typer
from sqlalchemy import select

from catalog.tables.webhooks import EVENTS, Delivery, Webhook
from service.cli.output import AsJson, emit_json, emit_table, say, show, workspace

app = typer.Typer(help="Tell other programs what happens, by signed HTTP requests.", no_args_is_help=True)
WebhookId = Annotated[str, typer.Argument(help="Webhook id, or its first characters.")]


@app.command("add")
def add_webhook(
    url: Annotated[str, typer.Argument(help="HTTPS address that is sent a POST request.")],
    *,
    on: Annotated[
        list[str] | None,
        typer.Option(help=f"{', '.join(EVENTS[:-1])} or {EVENTS[-1]}; several times for several; default all."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Send events to an address, and print the secret by which it checks their signature."""
    from workers import webhooks

    catalog = workspace()
    with catalog.write() as session:
        made = webhooks.add_webhook(
            session,
            url=url,
            events=on or EVENTS,
            now=catalog.now(session),
            private=catalog.settings.webhook_private,
            created_by="command line",
        )
        told: dict[str, Any] = {"webhook": made.id, "url": made.url, "events": made.events, "secret": made.secret}
        also = webhooks.others_of(session, made)
    if json:
        emit_json(told)
        return
    say(f"webhook {told['webhook'][:8]} tells {url} of {', '.join(told['events'])}; its secret:")
    show(told["secret"])
    if also:
        say(
            f"the same address is told by webhook {', '.join(one[:8] for one in also)} too, so it hears twice of the "
            f"same: `winnow webhook remove {also[0][:8]}` ends that"
        )
    say("how to check a signature: docs/webhooks.md")


@app.command("list")
def list_webhooks(*, json: AsJson = False) -> None:
    """List webhooks; secrets are not shown."""
    catalog = workspace()
    with catalog.read() as session:
        rows = [
            (one.id, one.url, ", ".join(one.events), one.created_at.strftime("%Y-%m-%d %H:%M"))
            for one in session.scalars(select(Webhook).order_by(Webhook.created_at, Webhook.id))
        ]
    header = ("webhook", "url", "events", "made")
    if json:
        emit_json([dict(zip(header, row, strict=True)) for row in rows])
        return
    emit_table("", header, [(row[0][:8], *row[1:]) for row in rows])
    if not rows:
        say("no webhook: `winnow webhook add https://example.org/hook` makes one")


@app.command("deliveries")
def deliveries(
    webhook: WebhookId,
    *,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Rows shown at most.")] = 20,
    json: AsJson = False,
) -> None:
    """List what an address was told, newest first, and what it answered."""
    from workers.webhooks import find_webhook

    catalog = workspace()
    with catalog.read() as session:
        found = find_webhook(session, webhook)
        query = select(Delivery).where(Delivery.webhook_id == found.id).order_by(Delivery.created_at.desc())
        rows = [
            (one.created_at.strftime("%Y-%m-%d %H:%M:%S"), one.event, one.state, one.attempts, one.answer or "")
            for one in session.scalars(query.limit(limit))
        ]
    header = ("at", "event", "state", "attempts", "answer")
    if json:
        emit_json([dict(zip(header, row, strict=True)) for row in rows])
        return
    emit_table("", header, rows)
    if not rows:
        say("it was told nothing yet")


@app.command("remove")
def remove(webhook: WebhookId, *, json: AsJson = False) -> None:
    """Tell an address nothing more, not even what waits to be sent."""
    from workers.webhooks import find_webhook

    catalog = workspace()
    with catalog.write() as session:
        found = find_webhook(session, webhook)
        removed, url = found.id, found.url
        session.delete(found)
    if json:
        emit_json({"removed": removed})
        return
    say(f"webhook {removed[:8]} removed; {url} is told nothing more")


def add(root: typer.Typer) -> None:
    """Register this module's commands."""
    root.add_typer(app, name="webhook")
