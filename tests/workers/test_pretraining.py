"""A training on texts alone measures what it was for, and another starts from it."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from sqlalchemy import select

from catalog.database import Catalog
from catalog.errors import ConfigError, DataError, NotFoundError
from catalog.store import Store, StoredFile
from catalog.tables.engine import Run, Unit
from catalog.tables.training import Evaluation, LossPoint
from curation.recipe import load_recipe
from service.cli.difficulty import explain_losses
from service.cli.teaching import memory_line, show_training
from service.losses import arm_curves
from tests.training.objectives import data_of
from tests.workers.building import drain
from tests.workers.corpus import RECIPE, sentences
from tests.workers.test_determinism import make_catalog
from tests.workers.test_live_curves import points
from tests.workers.test_pipelines import write_rows
from training.arm import ArmConfig
from training.export import save_model
from training.fit import fit
from training.recipe import TrainRecipe
from training.recipe import load_recipe as load_training
from workers import engine, manifests
from workers.biography import biography
from workers.learned import MIDDLE, losses_of_record
from workers.live_curves import LiveCurve
from workers.pipelines.clean import submit_clean
from workers.pipelines.ingest import submit_ingest
from workers.pipelines.train import submit_train

BACKBONE = "backbone_options: {dim: 16, num_layers: 1, num_heads: 2, vocab_size: 300}"
STARTED = BACKBONE.replace(", vocab_size: 300", "")
"""Of an arm that takes over another's vocabulary."""
PRETRAIN = f"""
test_share: 0.35
max_tokens: 16
arms:
  - {{name: masked, objective: mlm, pacing: linear, record_losses: last, steps: 4, batch_size: 8,
     {BACKBONE}}}
  - {{name: replaced, objective: rtd, pacing: random, steps: 4, batch_size: 8, {BACKBONE}}}
"""
FOLLOWED = """
test_share: 0.35
max_tokens: 16
compare: none
arms:
  - {name: masked, objective: mlm, steps: 6, batch_size: 8, checkpoint_every: 2,
     backbone_options: {dim: 16, num_layers: 1, num_heads: 2, vocab_size: 300}}
"""
TUNE = f"""
test_share: 0.35
max_tokens: 16
compressions: []
compare: none
trackers: [tensorboard]
arms:
  - {{name: tuned, steps: 2, batch_size: 8, init_from: RUN/replaced, record_losses: last, {STARTED}}}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Two cleaned datasets: ``bare`` without labels, ``labelled`` with."""
    folder = tmp_path_factory.mktemp("pretraining")
    catalog = make_catalog(folder / "home")
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE)
    for name, column, seed in (("bare", None, 1), ("labelled", "queue", 2)):
        path = write_rows(folder / f"{name}.jsonl", sentences(140, seed=seed))
        submit_ingest(catalog, dataset=name, paths=[path], text_column="body", label_column=column)
        drain(catalog)
        submit_clean(catalog, dataset=name, recipe=load_recipe(str(recipe)))
        drain(catalog)
    return catalog


@pytest.fixture(scope="module")
def pretrained(home: Catalog) -> Run:
    run_id, state = submit_train(home, dataset="bare", recipe=TrainRecipe.from_yaml(PRETRAIN, name="pretrain"))
    assert state == "new"
    drain(home)
    return ended(home, run_id)


def ended(catalog: Catalog, run_id: str) -> Run:
    with catalog.read() as session:
        run = session.get_one(Run, run_id)
        assert run.state == "done", run.reason
        return run


def test_texts_alone_are_measured_by_what_they_cost(
    home: Catalog, pretrained: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    result: dict[str, Any] = pretrained.result or {}
    rows = {one["arm"]: one for one in result["held_out"]}
    assert list(rows) == ["masked", "masked-random", "replaced"]
    masked = rows["masked"]
    assert masked["perplexity"] > 1
    assert masked["num_examples"] == result["test"]
    assert len(rows["replaced"]["terms"]) == 2
    assert rows["replaced"]["perplexity"] is None
    (comparison,) = result["loss_comparisons"]
    assert comparison["low"] <= comparison["loss_saved"] <= comparison["high"]
    with home.read() as session:
        steps = session.scalars(select(LossPoint.arm).where(LossPoint.run_id == pretrained.id)).all()
        assert session.scalars(select(Evaluation).where(Evaluation.run_id == pretrained.id)).all() == []
    assert sorted(set(steps)) == ["masked", "masked-random", "replaced"]
    show_training(result, run_id=pretrained.id, dataset="bare", asked=False)
    assert "replaced" in capsys.readouterr().out


def test_points_of_a_training_are_seen_before_its_end_and_once_after_a_resumption(
    home: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[int, float]] = []

    class Beating(LiveCurve):
        """Renews its lease after every update, as the heart does after every second."""

        def add(self, step: int, loss: float) -> None:
            super().add(step, loss)
            engine.renew(home, self._mine, step, 6, apply=self.write)
            seen.append(points(home, self._mine.run_id))
            if len(seen) == 3:
                raise RuntimeError("pulled the plug")

    monkeypatch.setattr("workers.fitting.LiveCurve", Beating)
    run_id, _ = submit_train(home, dataset="bare", recipe=TrainRecipe.from_yaml(FOLLOWED, name="followed"))
    drain(home)
    # The third was made after the last checkpoint, and is made again.
    numbers = [len(one) for one in seen]
    assert numbers == [1, 2, 3, 3, 4, 5, 6]
    assert [max(one) for one in seen] == numbers
    assert seen[3] == seen[2]
    with home.read() as session:
        run = session.get_one(Run, run_id)
        assert run.state == "done", run.reason
        (curve,) = arm_curves(session, run)
    assert points(home, run_id) == seen[-1] == dict(curve.points)
    assert curve.memory is not None
    (told,) = (run.result or {})["memory"]
    assert told == {"arm": "masked"} | curve.memory
    assert curve.memory["total_bytes"] > curve.memory["activations_bytes"] > 0
    assert "masked" in memory_line(told)


def test_another_training_starts_from_it(home: Catalog, pretrained: Run) -> None:
    recipe = TrainRecipe.from_yaml(TUNE.replace("RUN", pretrained.id), name="tune")
    run_id, _ = submit_train(home, dataset="labelled", recipe=recipe)
    drain(home)
    assert [one["arm"] for one in (ended(home, run_id).result or {})["variants"]] == ["tuned"]
    with home.read() as session:
        files = [
            unit.result["files"]["tokenizer.json"]
            for unit in session.scalars(select(Unit).where(Unit.run_id.in_([run_id, pretrained.id]), Unit.stage == 1))
            if unit.result and unit.result["arm"] in ("tuned", "replaced")
        ]
        (drawn,) = manifests.run_files(session, run_id, "record_losses")
    assert len(files) == 2
    assert files[0]["sha256"] == files[1]["sha256"], "the vocabulary of the model that it starts from"
    losses = Store.of(home.settings).read_frame(drawn)
    assert losses.columns == ["id", "difficulty", "loss", "arm"]
    assert 8 <= losses.height <= 16
    assert losses["id"].is_unique().all()
    assert (losses["loss"] > 0).all()
    (events,) = (home.settings.home / "tracked" / run_id / "tuned" / "tensorboard").iterdir()
    assert events.name.startswith("events.out.tfevents")


def test_a_training_starts_from_a_folder_as_it_was_when_it_was_asked_for(home: Catalog, tmp_path: Path) -> None:
    arm = ArmConfig(
        name="outside",
        objective="mlm",
        steps=2,
        batch_size=4,
        max_tokens=16,
        backbone_options={"dim": 16, "num_layers": 1, "num_heads": 2, "vocab_size": 300},
    )
    result = fit(arm, data_of("mlm"))
    save_model(result, tmp_path / "model")
    text = TUNE.replace("RUN/replaced", "./model").replace("trackers: [tensorboard]", "")
    (tmp_path / "tune.yaml").write_text(text)
    recipe = load_training(str(tmp_path / "tune.yaml"))
    assert recipe.arms[0].init_from == str(tmp_path / "model")
    run_id, state = submit_train(home, dataset="labelled", recipe=recipe)
    assert state == "new"
    # The worker may be elsewhere, and the folder change.
    shutil.rmtree(tmp_path / "model")
    drain(home)
    ended(home, run_id)
    with home.read() as session:
        (unit,) = session.scalars(select(Unit).where(Unit.run_id == run_id, Unit.stage == 1))
        file = StoredFile.from_json((unit.result or {})["files"]["tokenizer.json"])
        assert Store.of(home.settings).read_bytes(file).decode() == result.tokenizer.document
    with pytest.raises(NotFoundError, match="no model in"):
        submit_train(home, dataset="labelled", recipe=recipe)
    save_model(fit(dataclasses.replace(arm, seed=1), data_of("mlm")), tmp_path / "model")
    assert submit_train(home, dataset="labelled", recipe=recipe)[1] == "new", "another model is another training"
    drain(home)
    other = TrainRecipe.from_yaml(
        text.replace("./model", str(tmp_path / "model")).replace("num_heads: 2", "num_heads: 4"), name="other"
    )
    with pytest.raises(ConfigError, match=r"num_heads=4 of arm 'tuned' must be 2, as that model was trained with"):
        submit_train(home, dataset="labelled", recipe=other)


def test_controls_of_texts_are_pooled_over_seeds(home: Catalog, capsys: pytest.CaptureFixture[str]) -> None:
    text = PRETRAIN.partition("  - {name: replaced")[0].replace("record_losses: last, steps: 4", "steps: 2")
    recipe = TrainRecipe.from_yaml(text, name="compared").compared(2)
    run_id, _ = submit_train(home, dataset="bare", recipe=recipe)
    drain(home)
    result: dict[str, Any] = ended(home, run_id).result or {}
    rows = result["loss_comparisons"]
    assert [(one["arm"], one["control"], one["order"], one["seeds"]) for one in rows] == [
        ("masked", "masked-random", "random order", 2),
        ("masked", "masked-anti", "hardest first", 2),
        ("masked", "masked-same-pacing", "the same pacing in random order", 2),
    ]
    assert all(one["low"] < one["loss_saved"] < one["high"] for one in rows)
    assert result["curricula"] == [{"arm": "masked", "verdict": "no gain shown"}]
    show_training(result, run_id=run_id, dataset="bare", asked=True)
    told = capsys.readouterr().err
    assert "masked against masked-random at 2 equal steps and 2 seeds: " in told
    assert "curriculum of masked: no gain shown" in told


def test_experts_start_from_a_dense_model_of_another_training(home: Catalog, pretrained: Run) -> None:
    experts = "feedforward: moe_topk, feedforward_options: {num_experts: 3, top_k: 2, hidden: 512, biases: own}"
    text = f"""
test_share: 0.35
max_tokens: 16
compare: none
arms:
  - {{name: experts, objective: mlm, pacing: random, steps: 1, batch_size: 8, learning_rate: 1.0e-9,
     init_from: {pretrained.id}/masked, {STARTED.replace("}", ", " + experts + "}")}}}
"""
    run_id, _ = submit_train(home, dataset="bare", recipe=TrainRecipe.from_yaml(text, name="experts"))
    drain(home)
    (row,) = (ended(home, run_id).result or {})["held_out"]
    before = (pretrained.result or {})["held_out"][0]
    # One step at a rate of nothing: the same masks cost what they cost the dense model.
    assert (row["num_targets"], row["terms"]) == (before["num_targets"], pytest.approx(before["terms"], rel=1e-5))
    with home.read() as session:
        (unit,) = session.scalars(select(Unit).where(Unit.run_id == run_id, Unit.stage == 1))
    assert any(name.endswith("/max_load") for name in (unit.result or {})["router"])
    with pytest.raises(ConfigError, match="hidden=256 of moe_topk must be 512"):
        narrow = TrainRecipe.from_yaml(text.replace("hidden: 512", "hidden: 256"), name="narrow")
        submit_train(home, dataset="bare", recipe=narrow)


def test_losses_of_a_training_are_the_difficulty_of_another(home: Catalog, pretrained: Run) -> None:
    name = f"losses of {pretrained.id}/masked"
    text = f"""
test_share: 0.35
max_tokens: 16
compare: none
difficulty: {name}
arms:
  - {{name: ordered, objective: mlm, pacing: linear, steps: 2, batch_size: 8, {BACKBONE}}}
"""
    run_id, _ = submit_train(home, dataset="bare", recipe=TrainRecipe.from_yaml(text, name="ordered"))
    drain(home)
    assert ended(home, run_id).config["difficulty_run"] == pretrained.id
    store = Store.of(home.settings)
    with home.read() as session:
        (train,) = manifests.run_files(session, run_id, "train")
        kept = manifests.run_files(session, pretrained.id, "record_losses")
    losses = pl.concat([store.read_frame(file) for file in kept]).filter(pl.col("arm") == "masked")
    assert len(kept) == 2, "of the arm and of its control"
    by_id = dict(losses.select("id", "loss").rows())
    rows = store.read_frame(train).select("id", "difficulty").rows()
    assert {difficulty for one, difficulty in rows if one not in by_id} == {MIDDLE}
    ordered = sorted((one for one, _ in rows if one in by_id), key=by_id.__getitem__)
    assert len(ordered) == len(by_id) > 8
    found = dict(rows)
    assert [found[one] for one in ordered] == pytest.approx([place / (len(by_id) - 1) for place in range(len(by_id))])

    def ask(dataset: str, other: str) -> str:
        recipe = TrainRecipe.from_yaml(text.replace(name, other), name="refused")
        return submit_train(home, dataset=dataset, recipe=recipe)[0]

    with pytest.raises(ConfigError, match=r"arm 'replaced' kept no losses; train it with record_losses: last"):
        ask("bare", name.replace("masked", "replaced"))
    with pytest.raises(ConfigError, match=r"difficulty='losses of masked' must be RUN/ARM"):
        ask("bare", "losses of masked")
    with pytest.raises(NotFoundError, match=r"losses of RUN/masked': 'RUN' is too short for the id of a run"):
        ask("bare", "losses of RUN/masked")
    foreign = ask("labelled", name)
    drain(home)
    with home.read() as session:
        assert "none of" in (reason := session.get_one(Run, foreign).reason or "")
        assert "name a training of the same records" in reason


def test_a_record_tells_what_it_cost_the_arms_that_drew_it(
    home: Catalog, pretrained: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store.of(home.settings)
    with home.read() as session:
        frames = [store.read_frame(one) for one in manifests.run_files(session, pretrained.id, "record_losses")]
        drawn = {frame["arm"][0]: frame for frame in frames}
        both = drawn["masked"].join(drawn["masked-random"], on="id", how="semi")["id"][0]
        (test,) = manifests.run_files(session, pretrained.id, "test")
        held_out = store.read_frame(test, ["id"])["id"][0]
        bare = manifests.find_dataset(session, "bare")
        monkeypatch.setattr("workers.learned.MOST_ARMS", 1_000)
        told = losses_of_record(session, store, bare.id, both) or {}
        never = losses_of_record(session, store, bare.id, held_out) or {}
        rows = {one["arm"]: one for one in told["arms"] if one["run"] == pretrained.id}
        assert sorted(rows) == ["masked", "masked-random"], "the other arms kept none"
        for arm, frame in drawn.items():
            own = frame.row(by_predicate=pl.col("id") == both, named=True)
            below = sum(loss < own["loss"] for loss in frame["loss"])
            assert rows[arm]["loss"] == own["loss"]
            assert rows[arm]["percentile"] == pytest.approx(below / (frame.height - 1))
            assert (rows[arm]["num_drawn"], rows[arm]["steps"]) == (frame.height, 4)
            assert rows[arm]["difficulty"] == own["difficulty"]
        assert never["arms"] == []
        assert never["never_drew"] == len(told["arms"]) + told["never_drew"] >= 2
        assert biography(session, store, bare, both)["losses"] == told
        monkeypatch.setattr("workers.learned.MOST_ARMS", 1)
        cut = losses_of_record(session, store, bare.id, both) or {}
        assert cut["not_read"] == never["never_drew"] - 1
        assert sorted([len(cut["arms"]), cut["never_drew"]]) == [0, 1]
        assert losses_of_record(session, store, "no dataset", both) is None
    explain_losses(told | {"never_drew": 3, "not_read": 2})
    lines = capsys.readouterr().out
    assert f"{pretrained.id[:8]}/masked-random" in lines
    assert "3 arms that kept losses never drew it" in lines
    assert "2 older arms kept losses too" in lines
    explain_losses(None)
    assert capsys.readouterr().out == ""


def test_what_cannot_be_started_from_or_learned_is_refused_at_once(home: Catalog, pretrained: Run) -> None:
    def ask(dataset: str, text: str) -> None:
        submit_train(home, dataset=dataset, recipe=TrainRecipe.from_yaml(text, name="refused"))

    with pytest.raises(NotFoundError, match="'RUN' is too short for the id of a run"):
        ask("labelled", TUNE)
    with pytest.raises(NotFoundError, match="has no trained arm 'other'; it has masked, masked-random, replaced"):
        ask("labelled", TUNE.replace("RUN/replaced", f"{pretrained.id}/other"))
    with pytest.raises(ConfigError, match=r"init_from='RUN' must be RUN/ARM, .*or a folder that begins with / or ./"):
        ask("labelled", TUNE.replace("RUN/replaced", "RUN"))
    with pytest.raises(DataError, match="nobody has answered a queue of task spans of 'labelled' yet"):
        ask("labelled", TUNE.replace("init_from: RUN/replaced", "objective: tagging"))
    with pytest.raises(DataError, match="'bare' has no labels"):
        ask("bare", TUNE.replace("init_from: RUN/replaced, ", ""))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("objective: rtd", "objective: classification"),
            "learn from different things .*masked from texts, replaced from",
        ),
        (("test_share: 0.35", "labels: given\ntest_share: 0.35"), "labels='given' has no effect"),
        (("objective: rtd", "objective: clm"), "arm 'replaced': objective 'clm': .*set order .* to causal"),
        (("objective: rtd", "objective: rtd, objective_options: {weigth: 3}"), "unknown option 'weigth'; did you mean"),
    ],
)
def test_recipes_without_sense_are_refused(change: tuple[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainRecipe.from_yaml(PRETRAIN.replace(*change), name="refused")
