"""A task that does nothing but count itself, under the settings that our workers have."""

import os

import redis
from celery import Celery

COUNTER = "plain:done"
app = Celery("plain", broker=os.environ["PLAIN_BROKER"])
app.conf.update(
    task_serializer="json",
    accept_content=["json"],
    task_ignore_result=True,
    task_acks_late=False,
    worker_prefetch_multiplier=1,
    worker_enable_remote_control=False,
    broker_connection_retry_on_startup=True,
)
_client = redis.Redis.from_url(os.environ["PLAIN_BROKER"])


@app.task(name="plain.nothing")  # type: ignore[untyped-decorator]
def nothing() -> None:
    """Count, so that somebody knows when the last is done."""
    _client.incr(COUNTER)
