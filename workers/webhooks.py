"""Telling other programs what happened: signed, at least once, never by a detour into a private network.

An event becomes rows in the transaction that makes it true, one for each address that wants it; any worker sends them,
again and again with growing pauses, for a day. The signature is that of the Standard Webhooks specification
(https://www.standardwebhooks.com): HMAC-SHA256 over ``id.timestamp.body``. The receiver tells repetitions by the id.
"""

import base64
import hashlib
import hmac
import ipaddress
import json
import logging
import secrets
import socket
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import select, update
from sqlalchemy.engine import CursorResult
from sqlalchemy.orm import Session

from catalog.database import Catalog
from catalog.errors import ConfigError, nearest
from catalog.faults import fault
from catalog.tables.base import new_id
from catalog.tables.engine import Run
from catalog.tables.webhooks import EVENTS, Delivery, Webhook
from workers import beginnings

SECRET_PREFIX = "whsec_"  # noqa: S105 - how every secret begins
TIMEOUT_SECONDS = 10.0
FIRST_PAUSE_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 3600.0
GIVE_UP_AFTER = timedelta(days=1)
LEASE_SECONDS = 60.0
BATCH = 20
MAX_ANSWER_BYTES = 1_000
LIFTED = "set WINNOW_WEBHOOK_PRIVATE=true, both where webhooks are added and for `winnow up`"
log = logging.getLogger(__name__)


class RefusedAddressError(ConfigError):
    """An address that events must not be sent to."""

    code = "refused_address"


def add_webhook(
    session: Session,
    *,
    url: str,
    events: Sequence[str],
    now: datetime,
    private: bool = False,
    created_by: str | None = None,
) -> Webhook:
    """Send events to an address from now on. Its ``secret`` is made here; the receiver needs it to check signatures.

    Parameters
    ----------
    events : some of ``EVENTS``.
    private : whether private networks and this machine may be told, and without TLS: the setting ``webhook_private``.

    Raises
    ------
    ConfigError : an unknown event, or an address that is no HTTPS URL of a public host.
    """
    for event in events:
        if event not in EVENTS:
            raise ConfigError(f"there is no event {event!r}; {nearest(event, EVENTS)}")
    if not events:
        raise ConfigError(f"say which events: {', '.join(EVENTS)}")
    check_url(url, private=private)
    webhook = Webhook(
        id=new_id(),
        url=url,
        events=sorted(set(events)),
        secret=SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode(),
        created_by=created_by,
        created_at=now,
    )
    session.add(webhook)
    session.flush()
    return webhook


def others_of(session: Session, webhook: Webhook) -> list[str]:
    """Ids of the other webhooks that tell the same address of some of the same, oldest first."""
    same = select(Webhook).where(Webhook.url == webhook.url, Webhook.id != webhook.id, Webhook.enabled.is_(True))
    found = session.scalars(same.order_by(Webhook.created_at, Webhook.id))
    return [one.id for one in found if set(one.events) & set(webhook.events)]


def check_url(url: str, *, private: bool) -> None:
    """Refuse an address by its looks; whom a name resolves to is looked at with every delivery.

    Raises
    ------
    RefusedAddressError : with the reason.
    """
    parts = urlsplit(url)
    schemes = ("https", "http") if private else ("https",)
    if parts.scheme not in schemes or not parts.hostname or not url.isascii() or not url.isprintable():
        lifted = "; for one's own network, and without TLS, " + LIFTED if parts.scheme == "http" else ""
        raise RefusedAddressError(f"url={url[:200]!r} must be an address such as https://example.org/hook{lifted}")
    if parts.username or parts.password:
        raise RefusedAddressError("a name and password in the address would lie open; check the signature instead")
    if private:
        return
    if _port_of(url) not in (443, 8443):
        raise RefusedAddressError(f"url={url[:200]!r}: only ports 443 and 8443 are told; for others {LIFTED}")
    if not _may_be_public(str(parts.hostname)):
        raise RefusedAddressError(
            f"url={url[:200]!r}: {parts.hostname} is in no public network; to allow that {LIFTED}"
        )


def _may_be_public(host: str) -> bool:
    """Whether a host can be in a public network, as far as its name alone tells."""
    if host == "localhost" or host.endswith(".localhost"):
        return False
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        pass
    try:
        # Resolvers take numbers in older spellings too: 127.1, 0x7f000001.
        return ipaddress.ip_address(socket.inet_aton(host)).is_global
    except OSError:
        return True


def _port_of(url: str) -> int:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError as error:
        raise RefusedAddressError(f"url={url[:200]!r} has no valid port") from error
    return port or (443 if parts.scheme == "https" else 80)


def find_webhook(session: Session, webhook_id: str) -> Webhook:
    """A webhook by its id or unique beginning.

    Raises
    ------
    NotFoundError : none, or several, begin so.
    """
    return beginnings.find(session, Webhook, webhook_id, what="webhook", see="`winnow webhook list`")


def run_ended(session: Session, run: Run, now: datetime) -> None:
    """Write down for everybody who wants to know that a run has ended; part of the transaction that ends it."""
    payload = {
        "run_id": run.id,
        "kind": run.kind,
        "dataset_id": run.dataset_id,
        "state": run.state,
        "reason": run.reason,
        "requested_by": run.requested_by,
        "records": (run.result or {}).get("records"),
        "kept": (run.result or {}).get("kept"),
    }
    # A run that fails, is resumed and fails again is two events.
    emit(session, event=f"run.{run.state}", about=f"{run.id}:{now:%Y%m%d%H%M%S%f}", payload=payload, now=now)


def wanted(session: Session) -> set[str]:
    """Events that somebody wants to be told of."""
    listed = session.scalars(select(Webhook.events).where(Webhook.enabled.is_(True)))
    return {event for events in listed for event in events}


def emit(session: Session, *, event: str, about: str, payload: dict[str, Any], now: datetime) -> None:
    """Write an event down for every webhook that wants it."""
    for webhook in session.scalars(select(Webhook).where(Webhook.enabled.is_(True))):
        if event in webhook.events:
            session.add(
                Delivery(
                    webhook_id=webhook.id,
                    event_id=f"{event}:{about}",
                    event=event,
                    payload={"type": event, "timestamp": now.isoformat(), "data": payload},
                    next_at=now,
                    created_at=now,
                )
            )


def deliver(catalog: Catalog) -> int:
    """Send what is due; return how many were taken. In every worker, any number of them at once."""
    with catalog.read() as session:
        now = catalog.now(session)
        due = session.execute(
            select(Delivery, Webhook)
            .join(Webhook, Webhook.id == Delivery.webhook_id)
            .where(Delivery.state == "waiting", Delivery.next_at <= now)
            .order_by(Delivery.next_at)
            .limit(BATCH)
        ).all()
    delivered = 0
    for delivery, webhook in due:
        if not _claimed(catalog, delivery):
            continue
        taken, answer = send(webhook, delivery, private=catalog.settings.webhook_private)
        fault("webhook.after_send")
        delivered += taken
        _record(catalog, delivery, taken=taken, answer=answer)
    return delivered


def _claimed(catalog: Catalog, delivery: Delivery) -> bool:
    with catalog.write() as session:
        until = catalog.now(session) + timedelta(seconds=LEASE_SECONDS)
        changed = session.execute(
            update(Delivery)
            .where(Delivery.id == delivery.id, Delivery.state == "waiting", Delivery.attempts == delivery.attempts)
            .values(attempts=Delivery.attempts + 1, next_at=until)
            .execution_options(synchronize_session=False)
        )
        assert isinstance(changed, CursorResult)
        return changed.rowcount == 1


def _record(catalog: Catalog, delivery: Delivery, *, taken: bool, answer: str) -> None:
    with catalog.write() as session:
        now = catalog.now(session)
        found = session.get(Delivery, delivery.id)
        if found is None or found.state != "waiting":
            return
        found.answer = answer
        if taken or now - found.created_at > GIVE_UP_AFTER:
            found.state, found.settled_at = ("delivered" if taken else "failed"), now
            return
        pause = min(FIRST_PAUSE_SECONDS * 2 ** (found.attempts - 1), LONGEST_PAUSE_SECONDS)
        found.next_at = now + timedelta(seconds=pause)


def signature(secret: str, event_id: str, timestamp: int, body: bytes) -> str:
    """Value of the header ``webhook-signature``.

    Parameters
    ----------
    secret : ``whsec_`` and the key in base64.
    timestamp : seconds since 1970, as in the header ``webhook-timestamp``.
    """
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    signed = hmac.new(key, f"{event_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(signed).decode()}"


def send(webhook: Webhook, delivery: Delivery, *, private: bool) -> tuple[bool, str]:
    """Send one event; return whether it was taken, and what was answered.

    The name is resolved once and the address that was looked at is the one that is connected to; no redirect is
    followed. So nobody who may name a URL can make this machine knock at doors that only it can reach.
    """
    import time

    import httpx

    body = json.dumps(delivery.payload, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    timestamp = int(time.time())
    parts = urlsplit(webhook.url)
    host = str(parts.hostname)
    headers = {
        "Host": parts.netloc,
        "Content-Type": "application/json",
        "User-Agent": "winnow",
        "webhook-id": delivery.event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(webhook.secret, delivery.event_id, timestamp, body),
    }
    try:
        check_url(webhook.url, private=private)
        port = _port_of(webhook.url)
        address = resolve(host, port, private=private)
        shown = f"[{address}]" if ":" in address else address
        url = parts._replace(netloc=f"{shown}:{port}", fragment="").geturl()
        with (
            # Proxies of the environment would resolve the name again.
            httpx.Client(trust_env=False, follow_redirects=False, timeout=TIMEOUT_SECONDS) as client,
            client.stream("POST", url, content=body, headers=headers, extensions={"sni_hostname": host}) as answer,
        ):
            said = next(answer.iter_bytes(MAX_ANSWER_BYTES), b"").decode("utf-8", "replace").strip()
    except RefusedAddressError as refused:
        return False, f"{refused}"
    except (httpx.HTTPError, OSError) as error:
        return False, f"{type(error).__name__}: {error}"
    return answer.is_success, f"{answer.status_code} {said}".strip()


def resolve(host: str, port: int, *, private: bool) -> str:
    """The address to connect to.

    Raises
    ------
    RefusedAddressError : the name is unknown, or belongs to a network that is not public.
    """
    try:
        found = [one[4][0] for one in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except OSError as error:
        raise RefusedAddressError(f"{host} has no address ({error})") from error
    for address in found:
        # All of them: of a public and a private one the resolver chooses, not we.
        if not private and not ipaddress.ip_address(str(address)).is_global:
            raise RefusedAddressError(f"{host} is {address}, in no public network; to allow that {LIFTED}")
    return str(found[0])
