"""A training as a job: cancelled and taken up again, and refused before any arm is trained."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from sqlalchemy import select

from catalog.database import Catalog
from catalog.errors import ConfigError
from catalog.tables.engine import Run, Unit
from catalog.tables.training import LossPoint
from service.app import API
from tests.service.conftest import World
from tests.workers.building import clean_dataset, drain
from tests.workers.corpus import sentences
from tests.workers.test_determinism import make_catalog
from training.checkpoint import latest_checkpoint
from training.recipe import TrainRecipe
from workers import runs
from workers.jobs import check_job, submit_run
from workers.pipelines.train import submit_train

STEPS = 300
TEXTS = f"""
test_share: 0.4
max_tokens: 16
arms:
  - name: masked
    objective: mlm
    pacing: random
    steps: {STEPS}
    batch_size: 4
    checkpoint_every: 25
    backbone_options: {{vocab_size: 300, dim: 16, num_layers: 1, num_heads: 2, feedforward_options: {{hidden: 16}}}}
"""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    # Hundreds of tiny steps: several threads would mostly wait for one another.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """A cleaned dataset whose records all have one label."""
    folder = tmp_path_factory.mktemp("one-class")
    # Who works learns of a cancel by its heartbeat.
    catalog = make_catalog(folder / "home", shard_rows=1000, heartbeat_seconds=0.05)
    clean_dataset(catalog, folder, [row | {"queue": "hardware"} for row in sentences(90, seed=4)])
    return catalog


def run_of(catalog: Catalog, run_id: str) -> Run:
    with catalog.read() as session:
        return session.get_one(Run, run_id)


def losses(catalog: Catalog, run_id: str) -> list[float]:
    with catalog.read() as session:
        found = session.scalars(select(LossPoint.loss).where(LossPoint.run_id == run_id).order_by(LossPoint.step))
        return list(found)


def test_a_cancelled_training_goes_on_from_its_checkpoint_to_the_same_losses(home: Catalog) -> None:
    recipe = TrainRecipe.from_yaml(TEXTS, name="cancelled")
    run_id, _ = submit_train(home, dataset="tickets", recipe=recipe)
    outcomes: list[str] = []
    working = threading.Thread(target=lambda: outcomes.extend(drain(home)))
    working.start()
    checkpoints = home.settings.home / "checkpoints" / run_id / "masked"
    # Losses come with the heartbeat, whose pace is not the training's.
    while working.is_alive() and (latest_checkpoint(checkpoints) is None or not losses(home, run_id)):
        working.join(0.01)
    with home.write() as session:
        runs.cancel(session, session.get_one(Run, run_id), home.now(session))
    working.join()
    assert outcomes[-1] == "lost"
    assert run_of(home, run_id).state == "cancelled"
    shown = losses(home, run_id)
    assert shown
    left = latest_checkpoint(checkpoints)
    assert left is not None
    assert 25 <= int(left.name.removeprefix("step-")) < STEPS

    # That it is read shows when it is damaged.
    damaged = max((one for one in left.iterdir() if one.is_file()), key=lambda one: one.stat().st_size)
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert submit_train(home, dataset="tickets", recipe=recipe) == (run_id, "resumed")
    drain(home)
    assert run_of(home, run_id).state == "failed"
    assert damaged.name in (run_of(home, run_id).reason or "")
    damaged.write_bytes(content)
    assert submit_train(home, dataset="tickets", recipe=recipe) == (run_id, "resumed")
    drain(home)
    assert run_of(home, run_id).state == "done"
    whole, state = submit_train(home, dataset="tickets", recipe=TrainRecipe.from_yaml(TEXTS, name="whole"))
    assert whole != run_id
    assert state == "new"
    drain(home)
    assert losses(home, run_id) == losses(home, whole)
    assert len(losses(home, whole)) == STEPS
    assert losses(home, whole)[: len(shown)] == shown


DOCUMENT = {"test_share": 0.4, "objective": "mlm", "compare": "none", "arms": [{"name": "one", "pacing": "linear"}]}


def asked_for(catalog: Catalog, **config: Any) -> dict[str, Any]:
    """The recipe of the run that a request starts; nobody works on it."""
    run_id = submit_run(catalog, kind="train", dataset="tickets", config=config)
    with catalog.write() as session:
        run = session.get_one(Run, run_id)
        runs.cancel(session, run, catalog.now(session))
        return dict(run.config["recipe"])


def test_a_request_may_hold_the_recipe_itself(home: Catalog) -> None:
    plain = asked_for(home, document=DOCUMENT)
    assert TrainRecipe.from_canonical(json.dumps(plain)) == TrainRecipe.from_document(
        json.loads(json.dumps(DOCUMENT)), name="asked-for"
    )
    compared = asked_for(home, document=DOCUMENT | {"name": "mine"}, compare=True, seeds=2)
    assert [compared[name] for name in ("name", "compare", "compare_seeds")] == ["mine", "controls", 2]
    assert asked_for(home, recipe="classify-small", compare=True)["compare_seeds"] == 3


def test_a_request_over_http_is_the_run_that_it_asks_for_or_refused(home: Catalog) -> None:
    world = World(home)
    try:
        world.add_user("curator", "curator")
        client = world.client("curator")

        def post(**config: Any) -> Any:
            return client.post(f"{API}/runs", json={"kind": "train", "dataset": "tickets", "config": config})

        asked = post(document=DOCUMENT | {"name": "sent"}, compare=True, seeds=2)
        assert asked.status_code == 202
        with home.write() as session:
            run = session.get_one(Run, asked.json()["run_id"])
            runs.cancel(session, run, home.now(session))
            recipe = run.config["recipe"]
        assert [recipe[name] for name in ("name", "compare", "compare_seeds")] == ["sent", "controls", 2]
        refused = post(document=DOCUMENT | {"arms": [{"name": "a", "init_from": "/etc"}]})
        assert (refused.status_code, "is a folder, and a request may read none" in refused.json()["message"]) == (
            422,
            True,
        )
    finally:
        world.close()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"document": DOCUMENT | {"tset_share": 0.2}}, "unknown key 'tset_share'; did you mean 'test_share'"),
        ({"document": DOCUMENT | {"arms": [{"name": "a", "init_from": "../b"}]}}, "init_from='../b' .* is a folder"),
        ({"document": DOCUMENT | {"arms": [{"name": "a", "init_from": "/etc"}]}}, "name a training as RUN/ARM"),
        ({"document": "objective: mlm"}, "must be a mapping of a recipe's settings"),
        ({"document": DOCUMENT, "recipe": "classify"}, "recipe has no effect beside document"),
        (
            {"document": DOCUMENT | {"arms": [{"name": "a", "pacing": "random"}]}, "compare": True},
            "compare='controls' has no effect",
        ),
        ({"recipe": "classify", "compare": "yes"}, "compare='yes' must be true or false"),
        ({"recipe": "classify", "seeds": 3}, "seeds=3 has no effect without compare"),
        ({"recipe": "classify", "compare": True, "seeds": 30}, r"compare_seeds=30 must lie in \[2, 20\]"),
        ({"recipe": "classify", "compare": True, "seeds": "3"}, "seeds='3' must be a number from 2 to 20"),
        ({}, "train: give a preset's name as recipe, or a recipe's settings as document; presets: classify, "),
    ],
)
def test_a_request_is_refused_before_there_is_a_run(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_job("train", config)


def test_labels_of_one_class_are_refused_before_any_arm_is_trained(home: Catalog) -> None:
    recipe = TrainRecipe.from_yaml("labels: given\narms: [{name: small}]\n", name="one class")
    run_id, _ = submit_train(home, dataset="tickets", recipe=recipe)
    drain(home)
    found = run_of(home, run_id)
    assert found.state == "failed"
    assert "labelled records are 'hardware'; a classifier needs two classes: label more, or loosen" in (
        found.reason or ""
    )
    with home.read() as session:
        assert list(session.scalars(select(Unit.stage).where(Unit.run_id == run_id))) == [0]
