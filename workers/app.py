"""The Celery application. Messages are hints; ``workers.engine`` decides what they mean."""

import logging
import os
from collections.abc import Sequence
from typing import Any

from celery import Celery
from celery.signals import worker_shutting_down
from kombu import Exchange, Queue
from kombu.exceptions import OperationalError
from kombu.utils.url import maybe_sanitize_url

from catalog.database import Catalog
from catalog.errors import ConfigError, TransientError
from catalog.faults import fault
from catalog.settings import NEEDS, Settings
from workers import broker, outbox, process_names
from workers.stopping import STOPPING

RUN_UNIT = "engine.run_unit"
TASK_NAMES = (RUN_UNIT,)
"""Every task name ever sent. Queued messages outlive deploys, so a name is never reused for something else."""

CONNECT_SECONDS = 4.0
log = logging.getLogger(__name__)


class BrokerAwayError(TransientError):
    """The broker does not answer. Whatever was to be sent stays in the outbox, and any sweeper sends it later."""

    code = "broker_away"


def make_app(settings: Settings) -> Celery:
    """A Celery application on the broker in force: JSON only, early acknowledgement, no results, one message at a time.

    Early acknowledgement on purpose: the lease in the database recovers a dead worker's unit in seconds, where a broker
    takes from a minute to an hour, and no broker time limit can deliver a long unit twice.

    Raises
    ------
    ConfigError : no broker is known by that URL, or its driver is not installed.
    """
    broker.register()
    app = Celery("winnow", broker=settings.broker, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        result_serializer="json",
        task_ignore_result=True,
        task_acks_late=False,
        task_default_queue=queue_of("cpu"),
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        # For ever: a broker that is away overnight must not cost the workers.
        broker_connection_max_retries=None,
        broker_heartbeat=0,
        broker_transport_options={
            "polling_interval": settings.broker_poll_seconds,
            # RabbitMQ's alone: what is written to a connection whose server has just died is no error by itself.
            "confirm_publish": True,
            # Short, because a sweeper that waits for a broker shows no life meanwhile.
            "connect_retries_timeout": 1.0,
            "socket_connect_timeout": CONNECT_SECONDS,
        },
        enable_utc=True,
    )
    if not settings.broker.startswith(("amqp:", "amqps:", "pyamqp:")):
        # These hand out one message at a time and forget it by that. To acknowledge it would be worse than nothing:
        # when the server dies just then, kombu counts the message as one under way for ever, asks for no other, and
        # never notices that its connection is gone. RabbitMQ would send one worker all that it need not acknowledge.
        names = [queue_of(needs) for needs in NEEDS]
        app.conf.task_queues = [Queue(name, Exchange(name), routing_key=name, no_ack=True) for name in names]
    broker.Transport.polling_interval = settings.broker_poll_seconds
    _check_broker_url(app, settings)
    catalog = Catalog(settings)

    # Not shared: a process that makes a second application would register it there again, and Celery would complain.
    @app.task(name=RUN_UNIT, shared=False)  # type: ignore[untyped-decorator]
    def run_unit(unit_id: str) -> None:
        """Claim one unit, do its stage, commit once. Losing the claim is not an error."""
        from workers.execution import execute

        fault("message.taken")
        execute(catalog, unit_id, owner=process_names.this_process())
        # Most units leave no message; what others left, they or any sweeper send.
        if outbox.UNSENT.is_set():
            relay(catalog, app)

    return app


def _check_broker_url(app: Celery, settings: Settings) -> None:
    try:
        _ = app.connection_for_write().transport
    except (KeyError, ImportError) as error:
        reason = error.args[0] if error.args else error
        raise ConfigError(
            f"broker {broker_name(settings)} cannot be used ({reason}); set WINNOW_BROKER_URL to redis://HOST:6379/0 "
            "(pip install 'winnow[redis]') or amqp://USER:PASSWORD@HOST:5672//, or leave it empty"
        ) from error


def broker_name(settings: Settings) -> str:
    """The broker as people may see it: the embedded one's file, or URLs without their passwords."""
    if not settings.broker_url:
        return settings.broker.removeprefix(f"{broker.SCHEME}:///")
    return ";".join(maybe_sanitize_url(url) for url in settings.broker_url.split(";"))


def deliver(catalog: Catalog, app: Celery) -> int:
    """Send every message that a committed change left in the outbox; return how many. At least once, never lost.

    Raises
    ------
    BrokerAwayError : the broker takes no message; the rows stay for the next sweep of any process.
    """
    # Before the look: what is left there from now on is seen by the next.
    outbox.UNSENT.clear()
    with outbox.sending(catalog) as (messages, sent):
        if not messages:
            return 0
        connection = app.connection_for_write()
        try:
            with app.producer_or_acquire() as producer:
                for message in messages:
                    fault("outbox.before_send")
                    app.send_task(
                        message.task, args=message.args, queue=queue_of(message.needs), retry=False, producer=producer
                    )
                    fault("outbox.after_send")
                    sent.append(message.id)
        except (OperationalError, *connection.connection_errors, OSError) as error:
            name = broker_name(catalog.settings)
            remedy = f"; {broker.DAMAGED.format(name)}" if broker.is_damaged(error) else ""
            raise BrokerAwayError(f"the broker at {name} does not answer ({error}){remedy}") from error
    fault("outbox.after_mark")
    if len(messages) == outbox.RELAY_BATCH:
        outbox.UNSENT.set()
    return len(sent)


def relay(catalog: Catalog, app: Celery) -> int:
    """Send what the outbox holds, as ``deliver``; a broker that is away is a warning, and 0."""
    try:
        return deliver(catalog, app)
    except BrokerAwayError as away:
        log.warning("%s; the messages stay in the outbox", away)
        return 0


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _stop_running_unit(**_: Any) -> None:
    STOPPING.set()


def queue_of(needs: str) -> str:
    """The broker's queue of units that need this of a worker."""
    return f"winnow.{needs}"


def worker_arguments(name: str, serves: Sequence[str]) -> list[str]:
    """Arguments of one worker process: a solo pool, because a fork after torch or polars started threads can hang."""
    return [
        # No banner: a log file is one JSON object a line.
        "--quiet",
        "worker",
        "--pool=solo",
        f"--queues={','.join(queue_of(needs) for needs in serves)}",
        f"--hostname={name}@%h",
        "--without-gossip",
        "--without-mingle",
        "--without-heartbeat",
        f"--loglevel={os.environ.get('CELERY_LOG_LEVEL', 'WARNING')}",
    ]
