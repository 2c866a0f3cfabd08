"""A process with several annotators at work on a real queue, run by the tests with a real clock.

Says that it is ready, waits to be told to go, and works; tells the answers of which it was told that they are kept.
With ``hold`` set it takes one lease an annotator and then waits to be killed.
"""

import os
import random
import threading
import time
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

# Before the fork, not after each.
import sqlalchemy.dialects.postgresql.psycopg
import sqlalchemy.dialects.sqlite  # noqa: F401

from catalog.database import Catalog
from catalog.settings import Settings
from labeling import queue


def work(catalog: Catalog, orders: dict[str, Any], annotator: str, answers: list[tuple[str, str, bool]]) -> None:
    """Ask and answer until the queue says it is done; now and then oversleep, give back or answer twice."""
    chance = random.Random(f"{orders['seed']} {annotator}")
    number = 0
    while True:
        with catalog.write() as session:
            now = catalog.now(session)
            served = queue.next_task(session, now=now, queue_id=orders["queue_id"], annotator_id=annotator)
        if isinstance(served, queue.NoTask):
            if served.reason == "done":
                return
            time.sleep(min(served.retry_after_seconds or 0.0, 0.05))
            continue
        act = chance.random()
        if act < orders["oversleep"]:
            time.sleep(orders["lease_seconds"] * 1.5)
        elif act < orders["oversleep"] + orders["give_back"]:
            with catalog.write() as session:
                queue.release(session, now=catalog.now(session), lease_id=served.lease_id, annotator_id=annotator)
            continue
        number += 1
        for _ in range(2 if chance.random() < 0.2 else 1):
            with catalog.write() as session:
                done = queue.submit(
                    session,
                    now=catalog.now(session),
                    lease_id=served.lease_id,
                    annotator_id=annotator,
                    value="긍정",
                    key=f"{os.getpid()} {annotator} {number}",
                )
        answers.append((served.record_id, annotator, done.late))


def hold(catalog: Catalog, orders: dict[str, Any]) -> None:
    """Take one task an annotator and keep it."""
    for annotator in orders["annotators"]:
        with catalog.write() as session:
            now = catalog.now(session)
            queue.next_task(session, now=now, queue_id=orders["queue_id"], annotator_id=annotator)


def main(orders: dict[str, Any], pipe: "Connection[str, str | list[tuple[str, str, bool]]]") -> None:
    """Do as ordered."""
    warnings.simplefilter("error")
    catalog = Catalog(Settings(home=Path(orders["home"]), database_url=orders["database_url"]))
    if orders.get("hold"):
        hold(catalog, orders)
    pipe.send("ready")
    pipe.recv()
    answers: list[tuple[str, str, bool]] = []
    threads = [threading.Thread(target=work, args=(catalog, orders, one, answers)) for one in orders["annotators"]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pipe.send(answers)
    catalog.close()
