"""The engine does what a small model of it does; and the model would notice if it did not."""

import ast
import inspect
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import get_state_machine_test, run_state_machine_as_test
from sqlalchemy.exc import IntegrityError

from catalog.database import Catalog
from catalog.store import Store
from tests.faults.engine_machine import KIND, PIPELINE, EngineMachine
from workers import engine, sweeping
from workers.pipelines import PIPELINES

EXAMPLES = {"sqlite": 40, "postgresql": 15}
NUM_SEEDS, EXAMPLES_OF_SEED = 20, 15
"""How long a mutant may go unnoticed. Many short searches: a long one spends its first tenth on tiny examples."""
MUTANTS = {
    "a commit that does not name its epoch": ("_DONE", "_UNITS.epoch == bindparam", "_UNITS.epoch >= bindparam"),
    "a commit of a unit that nobody runs": ("_DONE", ', _UNITS.state == "running"', ""),
    "a failure that does not name its epoch": ("_guarded", "Unit.epoch == mine.epoch, ", ""),
    "a claim that leaves the epoch as it is": ("_CLAIM", "epoch=_UNITS.epoch + 1", "epoch=_UNITS.epoch"),
    "a claim while another's lease holds": ("_CLAIM", '_UNITS.lease_until < bindparam("now")', "_UNITS.epoch >= 0"),
    "a claim for a run that has ended": ("_CLAIM", '_RUNS.state == "running", ', ""),
    "a claim for a run that is paused": ("_CLAIM", ", _RUNS.paused_at.is_(None)", ""),
    "a look for units that forgets priorities": ("_candidates", "Run.priority.desc(), ", ""),
    "a next stage before the last is done": ("advance", "== run.stage, UNFINISHED)", "== run.stage, READY)"),
    "a sweep that sends nothing again": ("_resend_forgotten", "announce(session, unit_id, now, needs)", "pass"),
}
"""What of the engine is changed: a function or a statement, and how."""


@pytest.fixture(autouse=True)
def machine_kind(database: Catalog) -> Iterator[None]:
    """A job kind for these tests alone."""
    Store.of(database.settings).create()
    PIPELINES.register(KIND)(PIPELINE)
    yield
    del PIPELINES._members[KIND]


def test_engine_does_what_the_model_does(database: Catalog, request: pytest.FixtureRequest) -> None:
    examples = EXAMPLES["sqlite" if database.is_sqlite else "postgresql"]
    run_state_machine_as_test(
        lambda: EngineMachine(database),
        settings=settings(max_examples=examples, stateful_step_count=40, deadline=None),
    )


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("mutant", MUTANTS)
def test_model_notices_an_engine_that_is_wrong(database: Catalog, monkeypatch: pytest.MonkeyPatch, mutant: str) -> None:
    name, right, wrong = MUTANTS[mutant]
    ((module, found),) = [
        (module, node)
        for module in (engine, sweeping)
        for node in ast.parse(inspect.getsource(module)).body
        if getattr(node, "name", None) == name
        or (isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == name)
    ]
    source = str(ast.get_source_segment(inspect.getsource(module), found))
    assert source.count(right) == 1, f"{name} has changed: write the mutant anew"
    namespace = dict(vars(module))
    exec(source.replace(right, wrong), namespace)
    mutated = namespace[name]
    if isinstance(found, ast.FunctionDef):
        # Its own callees are those of the module, and so are its callers.
        defaults, keywords = mutated.__defaults__, mutated.__kwdefaults__
        mutated = type(mutated)(mutated.__code__, vars(module), name, defaults)
        mutated.__kwdefaults__ = keywords
    monkeypatch.setattr(module, name, mutated)
    # A unit committed twice plans the next stage twice, which the database refuses by itself.
    with pytest.raises((AssertionError, ExceptionGroup, IntegrityError)):
        for number in range(NUM_SEEDS):
            search = get_state_machine_test(
                lambda: EngineMachine(database),
                settings=settings(
                    max_examples=EXAMPLES_OF_SEED,
                    stateful_step_count=40,
                    deadline=None,
                    database=None,
                    phases=[Phase.generate],
                    suppress_health_check=list(HealthCheck),
                ),
            )
            seed(number)(search)()
