"""Workers killed at random moments, again and again: ``python -m tests.faults.kill_loop --rounds 20``.

A round is a home of its own on which a small corpus is ingested and cleaned by two workers. All of them are killed with
SIGKILL at once, at moments drawn from a seed, and started again. What comes out must be what comes out undisturbed,
byte for byte.
"""

import argparse
import json
import platform
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import make_url, select

from catalog import migrate
from catalog.store import Store
from catalog.tables.engine import Unit
from curation.recipe import load_recipe
from tests.faults import judging
from tests.faults.world import Nursery, World
from tests.servers import RedisServer, administer, postgres_server
from tests.workers.corpus import RECIPE, write_files
from workers.pipelines.clean import submit_clean

NUM_WORKERS = 2
LEASE_SECONDS = 4.0
FINISH_SECONDS = 600.0
CLEAN_GAP_SECONDS = (0.5, 6.0)
"""Between two kills while a corpus is cleaned: a worker needs seconds for its first unit."""


@dataclass
class Recoveries:
    """How long killed workers' units stayed in their hands."""

    seconds: list[float] = field(default_factory=list)

    @property
    def worst(self) -> float:
        """The longest, in seconds; 0 where no unit was hit."""
        return max(self.seconds, default=0.0)


def held(world: World) -> dict[str, int]:
    """Units that somebody is at, and their epochs."""
    with world.catalog.read() as session:
        rows = session.execute(select(Unit.id, Unit.epoch).where(Unit.state == "running")).all()
    return {row.id: row.epoch for row in rows}


def wait_until_freed(world: World, units: dict[str, int], since: float) -> list[float]:
    """Seconds from ``since`` until each unit is in no dead hand any more: ready for anybody, or claimed again.

    Those that were finished before the blow fell are left out.
    """
    found: dict[str, float] = {}

    def all_free() -> bool:
        with world.catalog.read() as session:
            rows = session.execute(select(Unit.id, Unit.state, Unit.epoch).where(Unit.id.in_(units))).all()
        for row in rows:
            if (row.state, row.epoch) == ("done", units[row.id]):
                found[row.id] = -1.0
            elif row.state != "running" or row.epoch > units[row.id]:
                found.setdefault(row.id, time.monotonic() - since)
        return found.keys() == units.keys()

    world.wait_until(all_free)
    return [seconds for seconds in found.values() if seconds >= 0]


@contextmanager
def killer(world: World, rng: random.Random, gap: tuple[float, float], num_kills: int) -> Iterator[Recoveries]:
    """While the body works, kill every worker ``num_kills`` times, ``gap`` seconds apart."""
    recoveries, done = Recoveries(), threading.Event()
    failures: list[BaseException] = []

    def kill() -> None:
        try:
            for _ in range(num_kills):
                if done.wait(rng.uniform(*gap)):
                    return
                units, since = held(world), time.monotonic()
                for name in world.worker_names:
                    world.nursery.order(signal=name, number=signal.SIGKILL)
                recoveries.seconds += wait_until_freed(world, units, since)
        except BaseException as error:  # noqa: BLE001 - told where the body ends
            failures.append(error)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield recoveries
    finally:
        done.set()
        thread.join()
    if failures:
        raise failures[0]


def clean(world: World, paths: list[str]) -> None:
    """Ingest and clean, whoever does it."""
    recipe = world.folder / "recipe.yaml"
    recipe.write_text(RECIPE)
    ingest = world.ask_ingest(paths)
    world.relay()
    world.wait_for(ingest)
    run_id, _ = submit_clean(world.catalog, dataset="tickets", recipe=load_recipe(str(recipe)))
    world.relay()
    world.wait_for(run_id)


def one_round(
    world: World, work: Callable[[], None], *, seed: int, gap: tuple[float, float], num_kills: int
) -> tuple[int, Recoveries]:
    """Work under kills; how many processes died, and how long their units waited."""
    ends: list[int] = []
    rng = random.Random(seed)
    with world.workers(NUM_WORKERS, ends=ends), killer(world, rng, gap, num_kills) as recoveries:
        work()
    assert set(ends) <= {-signal.SIGKILL}, ends
    return len(ends), recoveries


def main() -> None:
    """Kill in every round on both databases, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--places", nargs="+", choices=("sqlite", "postgresql"), default=("sqlite", "postgresql"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    judging.register()
    started = time.monotonic()
    equal: dict[str, int] = {}
    num_deaths = 0
    waits: list[float] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        nursery = Nursery()
        stack.callback(nursery.close)
        postgres = stack.enter_context(postgres_server())
        redis = RedisServer(folder)
        redis.start()
        stack.callback(redis.stop)
        paths = write_files(folder / "corpus", 2, 30)

        def new_world(name: str, place: str) -> World:
            given: dict[str, Any] = {"lease_seconds": LEASE_SECONDS}
            if place == "postgresql":
                administer(postgres, f"CREATE DATABASE {name}")
                given["database_url"] = make_url(postgres).set(database=name).render_as_string(hide_password=False)
                given["broker_url"] = redis.url
            world = World(folder / name, nursery, given, finish_seconds=FINISH_SECONDS)
            migrate.upgrade(world.catalog)
            Store.of(world.settings).create()
            return world

        calm = new_world("undisturbed", "sqlite")
        with calm.workers():
            clean(calm, paths)
        undisturbed = calm.outcome()
        for place in options.places:
            equal[place] = 0
            for number in range(options.rounds):
                seed = options.seed + number
                world = new_world(f"{place}{number}", place)
                work = lambda world=world: clean(world, paths)  # noqa: E731
                deaths, recoveries = one_round(world, work, seed=seed, gap=CLEAN_GAP_SECONDS, num_kills=options.kills)
                same = world.outcome() == undisturbed
                equal[place] += same
                num_deaths += deaths
                waits += recoveries.seconds
                sys.stderr.write(
                    f"{place}, seed {seed}: {'equal' if same else 'DIFFERENT'}, {deaths} processes killed, "
                    f"{len(recoveries.seconds)} units hit, longest wait {recoveries.worst:.2f} s\n"
                )
                world.close()
        calm.close()
    result = {
        "rounds": options.rounds,
        "equal": equal,
        "killed": num_deaths,
        "units_hit": len(waits),
        "recovery_over_lease": round(max(waits, default=0.0) / LEASE_SECONDS, 3),
        "seeds": [options.seed, options.seed + options.rounds - 1],
        "seconds": round(time.monotonic() - started, 1),
        "python": platform.python_version(),
    }
    sys.stdout.write(json.dumps(result) + "\n")
    if any(count < options.rounds for count in equal.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
