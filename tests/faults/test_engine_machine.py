"""The engine does what a small model of it does; and the model would notice if it did not."""

import inspect
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy.exc import IntegrityError

from catalog.database import Catalog
from catalog.store import Store
from tests.faults.engine_machine import KIND, PIPELINE, EngineMachine
from workers import engine
from workers.pipelines import PIPELINES

EXAMPLES = {"sqlite": 40, "postgresql": 15}
MUTANTS = {
    "a commit that does not name its epoch": ("_guarded", "Unit.epoch == mine.epoch, ", ""),
    "a commit of a unit that nobody runs": ("_guarded", ', Unit.state == "running"', ""),
    "a claim that leaves the epoch as it is": ("claim", "epoch=Unit.epoch + 1", "epoch=Unit.epoch"),
    "a claim while another's lease holds": ("claim", ", Unit.lease_until < now", ""),
    "a claim for a run that has ended": ("claim", ", Unit.run_id.in_(running)", ""),
    "a next stage before the last is done": ("advance", 'Unit.state != "done"', 'Unit.state == "ready"'),
    "a sweep that sends nothing again": ("_resend_forgotten", "announce(session, unit_id, now)", "pass"),
}


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
    function, right, wrong = MUTANTS[mutant]
    source = inspect.getsource(getattr(engine, function))
    assert source.count(right) == 1, f"{function} has changed: write the mutant anew"
    namespace = dict(vars(engine))
    exec(source.replace(right, wrong), namespace)
    mutated = namespace[function]
    # Its own callees are those of the module, and so are its callers.
    monkeypatch.setattr(engine, function, type(mutated)(mutated.__code__, vars(engine), function, mutated.__defaults__))
    getattr(engine, function).__kwdefaults__ = mutated.__kwdefaults__
    # A unit committed twice plans the next stage twice, which the database refuses by itself.
    with pytest.raises((AssertionError, ExceptionGroup, IntegrityError)):
        run_state_machine_as_test(
            lambda: EngineMachine(database),
            settings=settings(
                max_examples=300,
                stateful_step_count=40,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
