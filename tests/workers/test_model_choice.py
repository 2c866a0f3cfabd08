"""Queues that go by the trainer's own models: asked for by choices, scored by jobs, used by the choices after them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pytest
from sqlalchemy import select

from catalog.database import Catalog
from catalog.errors import ConfigError, ConflictError, DataError, NotFoundError
from catalog.store import Store, StoredFile
from catalog.tables.base import new_id
from catalog.tables.datasets import Version
from catalog.tables.engine import Run, Unit
from catalog.tables.labeling import LabelEntry, LabelGeneration, LabelQueue, LabelTask
from catalog.tables.training import Evaluation
from labeling import queue as queues
from labeling.learner import Learner
from labeling.model_choice import check_model
from labeling.schema import parse_schema
from labeling.uncertainty import measure
from tests.workers.building import clean_dataset, drain
from tests.workers.corpus import LABELS, sentences
from tests.workers.test_determinism import make_catalog
from training.evaluation.evaluate import predict, probabilities
from training.export import SavedModel, load_model
from training.recipe import TrainRecipe
from training.setfit import SetFit, tune
from workers import curated, model_scores
from workers.labeling import open_queue, refresh_if_due
from workers.pipelines.model_scores import best_arm, in_classes
from workers.pipelines.train import submit_train

SCHEMA = parse_schema("labels: [hardware, software, 환불, other]")
TINY = """
name: tiny
test_share: 0.3
max_tokens: 16
seed: {seed}
arms:
  - name: small
    backbone: small
    backbone_options: {{dim: 16, num_layers: 1, num_heads: 2, vocab_size: 300}}
    pacing: random
    steps: 4
    batch_size: 8
"""


def ask(catalog: Catalog, model: str, *, name: str = "labels", schema: Any = SCHEMA) -> str:
    given: dict[str, Any] = {"strategy": "margin", "refresh_every": 8, "num_entries": 8, "random_share": 0.0}
    queue_id, _, _ = open_queue(catalog, dataset="tickets", name=name, schema=schema, model=model, **given)
    drain(catalog)
    return queue_id


def answer(catalog: Catalog, queue_id: str, count: int = 8) -> None:
    for number in range(count):
        with catalog.write() as session:
            now = catalog.now(session)
            one = queues.next_task(session, now=now, queue_id=queue_id, annotator_id="ann")
            assert isinstance(one, queues.Served)
            lease = {"lease_id": one.lease_id, "annotator_id": "ann", "key": new_id()}
            queues.submit(session, now=now, value=LABELS[number % 3], **lease)


def refreshed(catalog: Catalog, queue_id: str) -> tuple[dict[str, Any], list[LabelEntry], dict[str, str]]:
    """Answer, let the jobs work; what the choice said of its model, the tasks that it chose, and the labels it had."""
    answer(catalog, queue_id)
    assert refresh_if_due(catalog, queue_id) is not None
    drain(catalog)
    with catalog.read() as session:
        newest = select(LabelGeneration).where(LabelGeneration.queue_id == queue_id)
        made = session.scalars(newest.order_by(LabelGeneration.generation.desc()).limit(1)).one()
        chosen = select(LabelEntry).where(LabelEntry.queue_id == queue_id, LabelEntry.generation == made.generation)
        labels = {one.record_id: one.value for one in queues.current_labels(session, queue_id=queue_id)}
        return dict(made.figures), list(session.scalars(chosen.order_by(LabelEntry.rank))), labels


def train(catalog: Catalog, seed: int) -> tuple[str, SavedModel]:
    """A finished training, and the model of its best arm as it lies in the store."""
    run_id, _ = submit_train(
        catalog, dataset="tickets", recipe=TrainRecipe.from_yaml(TINY.format(seed=seed), name="tiny")
    )
    drain(catalog)
    with catalog.read() as session:
        assert session.get_one(Run, run_id).state == "done"
        units = session.scalars(select(Unit).where(Unit.run_id == run_id, Unit.stage == 1)).all()
        measured = session.scalars(select(Evaluation).where(Evaluation.run_id == run_id, Evaluation.variant == "none"))
        best = min(measured, key=lambda one: (-one.accuracy, one.arm)).arm
        files = next((one.result or {})["files"] for one in units if one.payload["arm"] == best)
    folder = catalog.settings.home / f"model-{seed}"
    folder.mkdir()
    for name, file in files.items():
        (folder / name).write_bytes(Store.of(catalog.settings).read_bytes(StoredFile.from_json(file)))
    return run_id, load_model(folder)


def texts_of(story: "Story", entries: list[LabelEntry]) -> list[str]:
    with story.catalog.read() as session:
        return [session.get_one(LabelTask, one.task_id).text for one in entries]


@dataclass(frozen=True, kw_only=True)
class Story:
    """A queue that was opened before there was a training, and what its choices went by as two came."""

    catalog: Catalog
    queue_id: str
    choices: list[tuple[dict[str, Any], list[LabelEntry], dict[str, str]]]
    trainings: list[str]
    saved: list[SavedModel]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """One choice, a training, two choices, another training, two choices."""
    folder = tmp_path_factory.mktemp("trained")
    catalog = make_catalog(folder / "home")
    clean_dataset(catalog, folder, sentences(160, seed=3))
    queue_id = ask(catalog, "checkpoint")
    choices, trainings, saved = [refreshed(catalog, queue_id)], [], []
    for seed in (1, 2):
        run_id, model = train(catalog, seed)
        trainings.append(run_id)
        saved.append(model)
        choices += [refreshed(catalog, queue_id) for _ in range(2)]
    return Story(catalog=catalog, queue_id=queue_id, choices=choices, trainings=trainings, saved=saved)


def test_queue_goes_by_the_newest_training_once_a_job_has_scored_its_texts(story: Story) -> None:
    first, second = (f"checkpoint {run_id[:8]}" for run_id in story.trainings)
    # The choice that finds a training asks for its scores, and goes by what there is meanwhile.
    assert [figures.get("model") for figures, _, _ in story.choices] == [None, None, first, first, second]
    with story.catalog.read() as session:
        scored = select(Run).where(Run.kind == "model_scores", Run.config["queue"].as_string() == story.queue_id)
        runs = session.scalars(scored).all()
    assert sorted(run.config["training"] for run in runs) == sorted(story.trainings)
    for place, saved in ((2, story.saved[0]), (4, story.saved[1])):
        _, entries, _ = story.choices[place]
        texts = texts_of(story, entries)
        proba = in_classes(probabilities(saved.model, saved.encode, texts), saved.classes, list(SCHEMA.classes))
        # Sums of a batch depend a little on how long its longest text is.
        utility = measure("classifier_margin", proba)
        assert [1 - one.utility for one in entries] == pytest.approx(utility.tolist(), abs=1e-5)
        assert proba[:, 3].tolist() == [0.0] * len(texts)
        said = [SCHEMA.classes[code] for code in predict(saved.model, saved.encode, texts)]
        assert [one.predicted and one.predicted[0] for one in entries] == said


def test_queue_goes_by_its_own_head_while_there_is_no_training(story: Story) -> None:
    _, entries, labels = story.choices[0]
    with story.catalog.read() as session:
        version = session.get_one(Version, session.get_one(LabelQueue, story.queue_id).version_id)
    records = curated.read_records(Store.of(story.catalog.settings), version)
    vectors = curated.read_embeddings(Store.of(story.catalog.settings), version)
    known = records["id"].is_in(list(labels)).to_numpy()
    given = [labels[one] for one in records["id"].filter(pl.Series(known))]
    head = Learner.fit(vectors[known], given, SCHEMA.classes, 0)
    row_of = dict(zip(records["text"], range(records.height), strict=True))
    utility = measure("classifier_margin", head.proba(vectors[[row_of[text] for text in texts_of(story, entries)]]))
    assert [1 - one.utility for one in entries] == pytest.approx(utility.tolist())


def test_queue_with_a_named_training_stays_with_it_and_wrong_names_are_refused(story: Story) -> None:
    catalog, first = story.catalog, story.trainings[0]
    queue_id = ask(catalog, f"checkpoint:{first[:10]}", name="named")
    with catalog.read() as session:
        assert session.get_one(LabelQueue, queue_id).model == f"checkpoint:{first}"
        other = session.scalars(select(Run.id).where(Run.kind == "clean")).first()
    assert refreshed(catalog, queue_id)[0]["model"] == f"checkpoint {first[:8]}"
    assert ask(catalog, f"checkpoint:{first}", name="named") == queue_id
    with pytest.raises(ConflictError, match="model='checkpoint:"):
        ask(catalog, "linear", name="named")
    for name in ("checkpoint:0000", f"checkpoint:{other}", "checkpoint:%"):
        with pytest.raises(NotFoundError, match="the dataset has no training '"):
            ask(catalog, name, name="other")


def test_best_arm_is_the_one_that_did_best_before_it_was_made_smaller(story: Story) -> None:
    with story.catalog.write() as session:
        of_run = select(Evaluation).where(Evaluation.run_id == story.trainings[1])
        only = session.scalars(of_run.where(Evaluation.variant == "none")).one()
        columns = {name.key: getattr(only, name.key) for name in Evaluation.__table__.columns}
        # Names before and behind its own in the alphabet.
        for arm, variant, accuracy in (("a", "none", -0.1), ("z", "none", -0.1), ("a", "int8", 0.1)):
            other = {"id": new_id(), "arm": arm, "variant": variant, "accuracy": only.accuracy + accuracy}
            session.add(Evaluation(**(columns | other)))
        session.flush()
        assert best_arm(session, story.trainings[1])[0] == only.arm == "small"
        for one in session.scalars(of_run.where(Evaluation.arm.in_(("a", "z")))):
            session.delete(one)


def test_training_of_other_classes_is_passed_over(story: Story) -> None:
    queue_id = ask(story.catalog, "checkpoint", name="fruit", schema=parse_schema("labels: [hardware, 사과, 배]"))
    with story.catalog.read() as session:
        asked = select(Run).where(Run.kind == "model_scores", Run.config["queue"].as_string() == queue_id)
        assert session.scalars(asked).all() == []
        assert session.get_one(LabelQueue, queue_id).generation == 1


@pytest.mark.no_cover
def test_setfit_queue_tunes_an_encoder_on_its_answers_in_a_job(story: Story) -> None:
    catalog = story.catalog
    queue_id = ask(catalog, "setfit", name="setfit")
    _, entries, labels = refreshed(catalog, queue_id)
    answer(catalog, queue_id)
    with catalog.write() as session:
        labels = {one.record_id: one.value for one in queues.current_labels(session, queue_id=queue_id)}
        asked = {"queue_id": queue_id, "labels": list(labels.values())}
        now = catalog.now(session)
        assert model_scores.submit_if_newer(session, now=now, **(asked | {"labels": asked["labels"][:15]})) is None
        run_id = model_scores.submit_if_newer(session, now=now, **asked, steps=2)
        assert model_scores.submit_if_newer(session, now=now, **asked) == run_id
    drain(catalog)
    assert refresh_if_due(catalog, queue_id) is not None
    drain(catalog)
    with catalog.read() as session:
        assert session.get_one(Run, run_id).state == "done"
        made = session.get_one(LabelGeneration, (queue_id, 3))
        assert made.figures["model"] == "setfit, 16 labels"
        newest = select(LabelEntry).where(LabelEntry.queue_id == queue_id, LabelEntry.generation == 3)
        entries = list(session.scalars(newest.order_by(LabelEntry.rank)))
        version = session.get_one(Version, session.get_one(LabelQueue, queue_id).version_id)
    records = (
        curated.read_records(Store.of(catalog.settings), version).filter(pl.col("id").is_in(list(labels))).sort("id")
    )
    given = [labels[one] for one in records["id"]]
    encoder = tune(records["text"].to_list(), given, SetFit(steps=2), 16)
    head = Learner.fit(encoder.encode(records["text"].to_list()), given, SCHEMA.classes, 16)
    utility = measure("classifier_margin", head.proba(encoder.encode(texts_of(story, entries))))
    assert [1 - one.utility for one in entries] == pytest.approx(utility.tolist(), abs=1e-3)


def test_models_that_there_are_not_or_that_do_not_hold_are_named() -> None:
    for wrong in ("bert", "linear:x", "checkpoint:", ""):
        with pytest.raises(ConfigError, match=r"is unknown; .*checkpoint:RUN"):
            check_model(wrong, SCHEMA)
    with pytest.raises(ConfigError, match="does not hold for spans answers"):
        check_model("checkpoint", parse_schema("task: spans\nlabels: [a]"))
    check_model("linear", parse_schema("task: spans\nlabels: [a]"))
    with pytest.raises(DataError, match="knows none of the queue's classes a, b"):
        in_classes(np.ones((1, 1)), ("c",), ["a", "b"])
    assert in_classes(np.array([[0.2, 0.6, 0.2]]), ("x", "a", "b"), ["b", "new", "a"]) == pytest.approx(
        np.array([[0.25, 0.0, 0.75]])
    )
