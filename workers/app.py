"""The Celery application. Messages are hints; ``workers.engine`` decides what they mean."""

import logging
import os
from typing import Any

from celery import Celery
from celery.signals import worker_shutting_down

from catalog.database import Catalog
from catalog.settings import Settings
from workers import broker, engine
from workers.stopping import STOPPING

RUN_UNIT = "engine.run_unit"
TASK_NAMES = (RUN_UNIT,)
"""Every task name ever sent. Queued messages outlive deploys, so a name is never reused for something else."""

log = logging.getLogger(__name__)


def make_app(settings: Settings) -> Celery:
    """A Celery application on the broker in force: JSON only, early acknowledgement, no results, one message at a time.

    Early acknowledgement on purpose: the lease in the database recovers a dead worker's unit in seconds, where a broker
    takes from a minute to an hour, and no broker time limit can deliver a long unit twice.
    """
    broker.register()
    app = Celery("winnow", broker=settings.broker, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        result_serializer="json",
        task_ignore_result=True,
        task_acks_late=False,
        task_default_queue="winnow",
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_heartbeat=0,
        broker_transport_options={"polling_interval": settings.broker_poll_seconds},
        enable_utc=True,
    )
    broker.Transport.polling_interval = settings.broker_poll_seconds
    catalog = Catalog(settings)

    @app.task(name=RUN_UNIT)  # type: ignore[untyped-decorator]
    def run_unit(unit_id: str) -> None:
        """Claim one unit, do its stage, commit once. Losing the claim is not an error."""
        from workers.execution import execute

        execute(catalog, unit_id, owner=engine.this_process())
        relay(catalog, app)

    return app


def relay(catalog: Catalog, app: Celery) -> int:
    """Send every message that a committed change left in the outbox; return how many. At least once, never lost.

    A broker that does not answer leaves the rows where they are, for the next sweep of any process.
    """
    sent = 0
    for message_id, task, args in engine.unsent(catalog):
        try:
            app.send_task(task, args=args, retry=False)
        except (*app.connection_for_write().connection_errors, OSError) as error:
            log.warning("the broker does not answer (%s); the message stays in the outbox", error)
            break
        engine.mark_sent(catalog, message_id)
        sent += 1
    return sent


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _stop_running_unit(**_: Any) -> None:
    STOPPING.set()


def worker_arguments(name: str) -> list[str]:
    """Arguments of one worker process: a solo pool, because a fork after torch or polars started threads can hang."""
    return [
        "worker",
        "--pool=solo",
        f"--hostname={name}@%h",
        "--without-gossip",
        "--without-mingle",
        "--without-heartbeat",
        f"--loglevel={os.environ.get('CELERY_LOG_LEVEL', 'WARNING')}",
    ]
