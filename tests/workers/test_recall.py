"""A training's memory: made of what was trained on, measured beside the model, and swapped for another."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from catalog.database import Catalog
from catalog.errors import ConfigError, NotFoundError
from catalog.store import Store
from catalog.tables.datasets import Version
from catalog.tables.engine import Run, Unit
from catalog.tables.training import Evaluation
from curation.recipe import Recipe
from service.cli.teaching import show_training
from service.outcome import recall_line
from service.pages.rendering import spaced
from service.report import render_report
from tests.cli.corpus import WORDS
from tests.workers.building import drain
from tests.workers.test_determinism import make_catalog
from tests.workers.test_pipelines import write_rows
from training import remembering
from training.arm import ArmConfig
from training.evaluation import evaluate as evaluation
from training.recipe import TrainRecipe
from workers import curated, manifests, memories
from workers.pipelines.clean import submit_clean
from workers.pipelines.ingest import submit_ingest
from workers.pipelines.train import submit_train

COMMON = "compare: none\ncompressions: []\ntest_share: 0.3\nmax_tokens: 12\narms:\n"
SIZE = "dim: 16, num_layers: 1, num_heads: 2, vocab_size: 300"
CLASSIFY = (
    f"{COMMON}  - {{name: asks, steps: 3, batch_size: 8, retrieval: knn_classifier,\n"
    f"     OPTIONSbackbone_options: {{{SIZE}}}}}\n"
)
LANGUAGE = (
    f"{COMMON}  - {{name: asks, objective: clm, steps: 3, batch_size: 8, retrieval: knn_lm,\n"
    f"     OPTIONSbackbone_options: {{{SIZE}, order: causal}}}}\n"
)


READING = LANGUAGE.replace("knn_lm", "cross_attention").replace("OPTIONS", "retrieval_options: {chunk_tokens: 4MORE}, ")


def tickets(count: int, seed: int) -> list[dict[str, str]]:
    """Texts whose words tell their queue."""
    rng = random.Random(seed)
    names = sorted(WORDS)[:2]
    return [
        {"body": " ".join(rng.choices(WORDS[name].split(), k=7)), "queue": name}
        for name in (names[number % 2] for number in range(count))
    ]


def add_dataset(catalog: Catalog, folder: Path, rows: list[dict[str, str]], name: str) -> None:
    path = write_rows(folder / f"{name}.jsonl", rows)
    submit_ingest(catalog, dataset=name, paths=[path], text_column="body", label_column="queue")
    drain(catalog)
    submit_clean(catalog, dataset=name, recipe=Recipe(name="small", exact=False))
    drain(catalog)


@pytest.fixture(scope="module", autouse=True)
def _short_windows() -> Iterator[None]:
    """Nothing here asks how fast a model is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "WINDOW_SECONDS", 0.01)
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Two cleaned datasets of the same classes."""
    folder = tmp_path_factory.mktemp("recall")
    catalog = make_catalog(folder / "home")
    for seed, name in enumerate(("one", "other")):
        add_dataset(catalog, folder, tickets(170, seed), name)
    return catalog


def arm_of(run: Run) -> ArmConfig:
    """Its first arm."""
    return TrainRecipe.from_canonical(json.dumps(run.config["recipe"])).arms[0]


def train(catalog: Catalog, dataset: str, text: str) -> Run:
    run_id, state = submit_train(catalog, dataset=dataset, recipe=TrainRecipe.from_yaml(text, name="recalled"))
    assert state == "new"
    drain(catalog)
    with catalog.read() as session:
        return session.get_one(Run, run_id)


def done(catalog: Catalog, dataset: str, text: str) -> Run:
    run = train(catalog, dataset, text)
    assert run.state == "done", run.reason
    return run


def kept(catalog: Catalog, run: Run, arm: str = "asks") -> dict[str, Any]:
    """What an arm keeps."""
    with catalog.read() as session:
        units = session.scalars(select(Unit).where(Unit.run_id == run.id, Unit.stage == 1)).all()
        (found,) = (one.result or {} for one in units if one.payload["arm"] == arm)
        return found


@pytest.fixture(scope="module")
def classified(home: Catalog) -> Run:
    """One arm with a memory of the catalog's vectors, with its control; one with its own states; one with none."""
    text = CLASSIFY.replace("OPTIONS", "").replace("compare: none", "compare: random") + (
        f"  - {{name: shows, pacing: random, steps: 16, batch_size: 8, record_losses: last,\n"
        f"     retrieval: knn_classifier,\n"
        f"     retrieval_options: {{encoder: ''}}, backbone_options: {{{SIZE}}}}}\n"
        f"  - {{name: plain, pacing: random, steps: 2, batch_size: 8, backbone_options: {{{SIZE}}}}}\n"
    )
    return done(home, "one", text)


@pytest.fixture(scope="module")
def spoken(home: Catalog) -> Run:
    return done(home, "one", LANGUAGE.replace("OPTIONS", ""))


@pytest.fixture(scope="module")
def read(home: Catalog) -> Run:
    return done(home, "one", READING.replace("MORE", ""))


def test_a_classifier_is_measured_with_the_labels_of_training_records_beside_it(
    home: Catalog, classified: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    result: dict[str, Any] = classified.result or {}
    variants = ["asks none", "asks knn_classifier", "asks-random none"]
    variants += ["shows none", "shows knn_classifier", "plain none"]
    assert [f"{one['arm']} {one['variant']}" for one in result["variants"]] == variants, "controls have no memory"
    without, beside = result["variants"][:2]
    facts = kept(home, classified)["recall"]
    store = Store.of(home.settings)
    assert beside["size_bytes"] == without["size_bytes"] + sum(one["size_bytes"] for one in facts["files"].values())
    told, of_states = result["memories"]
    assert (told["arm"], told["vectors"]) == ("asks", "encoder hashing")
    assert (of_states["arm"], of_states["vectors"]) == ("shows", memories.STATES)
    assert told["difference"] == pytest.approx(beside["accuracy"] - without["accuracy"])
    # Three steps teach nothing, and the words of the records around a text tell its queue.
    assert told["verdict"] == "paid"
    assert told["low"] > 0.1
    assert told["loss_with"] < told["loss_without"]
    states = kept(home, classified, "shows")["recall"]
    assert states["dim"] == 16
    assert states["source"].startswith("means of ")
    with home.read() as session:
        version = session.get_one(Version, classified.version_id)
        (trained,) = manifests.run_files(session, classified.id, "train")
        (drawn,) = manifests.run_files(session, classified.id, "record_losses")
        rows = session.scalars(select(Evaluation.variant).where(Evaluation.run_id == classified.id)).all()
    assert sorted(rows) == ["knn_classifier"] * 2 + ["none"] * 4
    memory, records = memories.stored_memory(store, facts), store.read_frame(trained)
    assert 10 <= told["num_outcomes"] == records.height - told["num_entries"] < records.height / 4
    # 128 draws go once through all there is to draw.
    assert set(store.read_frame(drawn)["id"]) == set(
        records["id"].filter(~remembering.kept_back(arm_of(classified), records["id"]))
    )
    every = [tuple(one) for one in curated.embeddings_of(store, version, records["id"])]
    labels = dict(zip(every, records["label"], strict=True))
    assert {labels[tuple(one)] for one in memory.keys} == set(facts["classes"])
    assert [labels[tuple(one)] for one in memory.keys] == [facts["classes"][one] for one in memory.values[:, 0]]
    assert "asks with knn_classifier, " in recall_line(told)
    assert capsys.readouterr().out == ""


def test_a_language_model_is_measured_with_its_contexts(
    home: Catalog, spoken: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    result: dict[str, Any] = spoken.result or {}
    without, beside = result["held_out"]
    assert "retrieval" not in without
    assert beside["retrieval"] == "knn_lm"
    assert beside["perplexity"] < without["perplexity"]
    assert without["num_targets"] == beside["num_targets"]
    files = kept(home, spoken)["recall"]["files"].values()
    assert beside["size_bytes"] == without["size_bytes"] + sum(one["size_bytes"] for one in files)
    (told,) = result["memories"]
    assert told["vectors"] == memories.STATES
    assert told["verdict"] == "paid"
    show_training(result, run_id="0" * 8, dataset="d", asked=False)
    assert "asks + knn_lm" in capsys.readouterr().out


def test_the_report_of_the_newest_training_says_whether_its_memories_paid(
    home: Catalog, classified: Run, spoken: Run
) -> None:
    store = Store.of(home.settings)
    for run, unit, scale, num_digits in ((classified, "points of accuracy", 100, 1), (spoken, "nats saved", 1, 4)):
        with home.write() as session:
            # Whichever other test asked for it first, it counts as asked for last.
            session.get_one(Run, run.id).created_at = home.now(session)
            session.flush()
            page = render_report(session, store, manifests.find_dataset(session, "one"))
        lines = [line for line in page.splitlines() if line.startswith("<p>The memory of ")]
        told = (run.result or {})["memories"]
        assert len(lines) == len(told) > 0
        for line, one in zip(lines, told, strict=True):
            gain, low, high = (f"{scale * one[name]:+.{num_digits}f}" for name in ("difference", "low", "high"))
            assert f"The memory of {one['arm']} ({one['retrieval']}, {spaced(one['num_entries'])} entries by " in line
            assert f"{gain} {unit} against the same model without it (95 % interval {low} to {high})" in line
            assert line.endswith(f": <strong>{one['verdict']}</strong>.</p>")


def test_a_memory_is_swapped_without_a_step_of_training(home: Catalog, spoken: Run) -> None:
    as_it_was = LANGUAGE.replace("steps: 3, batch_size: 8", f"steps: 0, init_from: {spoken.id}/asks")
    as_it_was = as_it_was.replace(", vocab_size: 300", "")
    own = done(home, "other", as_it_was.replace("OPTIONS", ""))
    theirs = done(home, "other", as_it_was.replace("OPTIONS", f"retrieval_options: {{memory: {spoken.id}/asks}}, "))
    first, second, original = (kept(home, one) for one in (own, theirs, spoken))
    weights = {one["files"]["model.safetensors"]["sha256"] for one in (first, second, original)}
    assert len(weights) == 1
    assert first["steps"] == 0
    assert second["recall"]["files"] == original["recall"]["files"] != first["recall"]["files"]
    assert (theirs.result or {})["memories"][0]["memory_of"] == f"{spoken.id}/asks"
    alone, beside = zip(*((one.result or {})["held_out"] for one in (own, theirs)), strict=True)
    assert alone[0]["loss"] == alone[1]["loss"]
    assert beside[0]["loss"] != beside[1]["loss"]


def test_a_model_that_reads_passages_is_measured_with_them_with_shuffled_ones_and_without(
    home: Catalog, read: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    result: dict[str, Any] = read.result or {}
    without, beside, control = result["held_out"]
    assert "retrieval" not in without
    assert [one["retrieval"] for one in (beside, control)] == ["cross_attention", "cross_attention, shuffled"]
    assert len({one["loss"] for one in result["held_out"]}) == 3
    facts = kept(home, read)["recall"]
    memory = memories.stored_memory(Store.of(home.settings), facts)
    assert memory.values.shape == (facts["num_entries"], 1 + 2 * 4)
    assert beside["size_bytes"] == without["size_bytes"] + sum(one["size_bytes"] for one in facts["files"].values())
    assert [one["retrieval"] for one in result["memories"]] == [beside["retrieval"], control["retrieval"]]
    show_training(result, run_id="0" * 8, dataset="d", asked=False)
    assert "asks + cross_attention, shuffled" in capsys.readouterr().out
    line = recall_line(result["memories"][0])
    assert f"{facts['num_entries']:,} entries by hashed pairs of tokens: " in line


def test_passages_are_swapped_without_a_step_of_training_where_the_tokens_are_the_same(
    home: Catalog, read: Run, classified: Run
) -> None:
    as_it_was = READING.replace("steps: 3, batch_size: 8", f"steps: 0, init_from: {read.id}/asks")
    as_it_was = as_it_was.replace(", vocab_size: 300", "")
    own = done(home, "other", as_it_was.replace("MORE", ""))
    theirs = done(home, "other", as_it_was.replace("MORE", f", memory: {read.id}/asks"))
    first, second, original = (kept(home, one) for one in (own, theirs, read))
    assert first["files"] == second["files"] == original["files"]
    assert second["recall"]["files"] == original["recall"]["files"] != first["recall"]["files"]
    alone, beside = zip(*((one.result or {})["held_out"][:2] for one in (own, theirs)), strict=True)
    assert alone[0]["loss"] == alone[1]["loss"]
    assert beside[0]["loss"] != beside[1]["loss"]
    another = done(home, "other", READING.replace("MORE", ""))
    for name, text, message in (
        ("tokens", as_it_was.replace("MORE", f", memory: {another.id}/asks"), "has tokens of another tokenizer than"),
        (
            "kind",
            as_it_was.replace("MORE", f", memory: {classified.id}/asks"),
            "was written for retrieval 'knn_classifier', not 'cross_attention'",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            submit_train(home, dataset="other", recipe=TrainRecipe.from_yaml(text, name=name))


def test_another_dataset_s_labels_serve_where_the_same_encoder_made_the_vectors(home: Catalog, classified: Run) -> None:
    options = f"retrieval_options: {{memory: {classified.id}/asks, weight: 0.4, temperature: 0.2}}, "
    run = done(home, "other", CLASSIFY.replace("OPTIONS", options))
    (told,) = (run.result or {})["memories"]
    assert (told["weight"], told["temperature"], told["num_outcomes"]) == (0.4, 0.2, 0)
    assert kept(home, run)["recall"]["files"] == kept(home, classified)["recall"]["files"]


def test_memories_that_something_else_made_are_refused_at_once(home: Catalog, classified: Run, spoken: Run) -> None:
    def ask(text: str, options: str = "") -> None:
        recipe = TrainRecipe.from_yaml(text.replace("OPTIONS", options), name="refused")
        submit_train(home, dataset="other", recipe=recipe)

    def of(run: Run, more: str = "") -> str:
        return f"retrieval_options: {{memory: {run.id}/asks{more}}}, "

    with pytest.raises(ConfigError, match="has states of another model than this arm would train; set steps: 0"):
        ask(LANGUAGE, of(spoken))
    with pytest.raises(ConfigError, match="was written for retrieval 'knn_classifier', not 'knn_lm'"):
        ask(LANGUAGE, of(classified))
    with pytest.raises(ConfigError, match=r"has vectors by encoder 'hashing', and .* are by the model's own states"):
        ask(CLASSIFY, of(classified, ", encoder: ''"))
    with pytest.raises(
        ConfigError, match="no such vectors, but those of encoder 'hashing'; clean it with encoder: wor"
    ):
        ask(CLASSIFY, "retrieval_options: {encoder: words}, ")
    with pytest.raises(NotFoundError, match="memory='RUN/asks': 'RUN' is too short for the id of a run"):
        ask(CLASSIFY, "retrieval_options: {memory: RUN/asks}, ")
    with pytest.raises(ConfigError, match="that arm kept no memory; train it with retrieval: knn_classifier"):
        ask(CLASSIFY, of(classified).replace("asks", "plain"))
    another = done(
        home, "one", LANGUAGE.replace("OPTIONS", "seed: 5, retrieval_options: {weight: 0.3, temperature: 3.0}, ")
    )
    as_it_was = LANGUAGE.replace("steps: 3, batch_size: 8", f"steps: 0, init_from: {another.id}/asks")
    as_it_was = as_it_was.replace(", vocab_size: 300", "")
    with pytest.raises(ConfigError, match="has states of a model with other weights than that of init_from="):
        ask(as_it_was, of(spoken))
    with pytest.raises(ConfigError, match="max_tokens=9 of arm 'asks' must be 12, as that model was trained with and"):
        ask(as_it_was.replace("max_tokens: 12", "max_tokens: 9"))


def test_too_few_records_to_choose_on_and_other_classes_end_before_training(
    home: Catalog, classified: Run, tmp_path: Path
) -> None:
    add_dataset(home, tmp_path, [one | {"queue": f"{one['queue']}s"} for one in tickets(85, seed=7)], "few")
    few = train(home, "few", CLASSIFY.replace("OPTIONS", ""))
    assert "are kept back to choose the memory's weight and temperature on, at least 10 are needed" in str(few.reason)
    options = f"retrieval_options: {{memory: {classified.id}/asks, weight: 0.4, temperature: 0.2}}, "
    other = train(home, "few", CLASSIFY.replace("OPTIONS", options))
    assert "knows the classes account, billing, and these records have accounts, billings" in str(other.reason)


def test_a_full_memory_says_of_how_many_records_it_is(
    home: Catalog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(remembering, "MAX_MEMORY_BYTES", 500 * (4 * 16 + 4))
    options = "retrieval_options: {weight: 0.3, temperature: 3.0}, seed: 2, "
    run = done(home, "one", LANGUAGE.replace("OPTIONS", options))
    assert 300 < kept(home, run)["recall"]["num_entries"] <= 500
    assert "the memory is full: it holds " in caplog.text
