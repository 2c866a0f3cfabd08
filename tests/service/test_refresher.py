"""Looking after queues beside the answers: once for many, and whatever happens."""

import threading
import time

import pytest
from sqlalchemy import text

from catalog.database import Catalog
from catalog.errors import TransientError
from catalog.settings import Settings
from service.app import close_app, create_app
from service.refresher import Refresher

WAIT_SECONDS = 10.0


def test_many_answers_are_one_look_and_those_that_come_during_it_another(tmp_path, monkeypatch):
    looks, go_on = [], threading.Event()

    def look(_catalog, queue_id):
        looks.append(queue_id)
        assert go_on.wait(WAIT_SECONDS)

    monkeypatch.setattr("workers.labeling.refresh_if_due", look)
    refresher = Refresher(Catalog(Settings(home=tmp_path)))
    began = time.monotonic()
    refresher.look_after("a")
    until(lambda: looks == ["a"])
    for _ in range(5):
        refresher.look_after("a")
    refresher.look_after("b")
    assert time.monotonic() - began < WAIT_SECONDS
    go_on.set()
    until(lambda: looks == ["a", "a", "b"])


@pytest.mark.parametrize("error", [TransientError("the database is away"), ValueError("a mistake of ours")])
def test_a_look_that_fails_is_told_and_the_next_one_is_taken(tmp_path, monkeypatch, caplog, error):
    looks = []

    def look(_catalog, queue_id):
        looks.append(queue_id)
        if len(looks) == 1:
            raise error

    monkeypatch.setattr("workers.labeling.refresh_if_due", look)
    refresher = Refresher(Catalog(Settings(home=tmp_path)))
    refresher.look_after("a")
    until(lambda: looks == ["a"])
    refresher.look_after("a")
    until(lambda: looks == ["a", "a"])
    assert "queue a" in caplog.text


def test_application_that_ends_during_a_look_leaves_no_connection_open(tmp_path, monkeypatch):
    looking, looked = threading.Event(), []

    def look(catalog, _queue_id):
        with catalog.read() as session:
            session.execute(text("SELECT 1"))
            looking.set()
            time.sleep(0.1)
        looked.append(True)

    monkeypatch.setattr("workers.labeling.refresh_if_due", look)
    app = create_app(Settings(home=tmp_path))
    pool = app.state.catalog.engine.pool
    app.state.refresher.look_after("a")
    assert looking.wait(WAIT_SECONDS)
    close_app(app)
    # A connection that comes back after its pool was emptied is closed by nobody.
    assert (looked, pool.checkedin()) == ([True], 0)


def until(condition):
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
