"""A model leaves the store as a folder that others load, whole or not at all."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy import select

from catalog.database import Catalog
from catalog.errors import ConfigError, ConflictError, CorruptionError, NotFoundError
from catalog.store import Store
from catalog.tables.engine import Unit
from service.app import API
from tests.service.conftest import World
from tests.workers.building import clean_dataset, drain
from tests.workers.corpus import sentences
from tests.workers.test_determinism import make_catalog
from training.export import load_model
from training.model import Transformer
from training.recipe import TrainRecipe
from workers.models import export_model, stored_model
from workers.pipelines.train import submit_train

RECIPE = """
test_share: 0.35
max_tokens: 16
compare: none
arms:
  - name: plain
    objective: clm
    steps: 4
    batch_size: 8
    learning_rate: 0.01
    backbone_options: {dim: 16, num_layers: 1, num_heads: 2, vocab_size: 300, order: causal, vocab_bias: none}
  - name: alibi
    objective: clm
    steps: 1
    batch_size: 8
    backbone_options: {dim: 16, num_layers: 1, num_heads: 2, vocab_size: 300, order: causal, positions: alibi}
"""
FILES = ["README.md", "config.json", "model.safetensors", "tokenizer.json"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    folder = tmp_path_factory.mktemp("models")
    catalog = make_catalog(folder / "home")
    clean_dataset(catalog, folder, sentences(100, seed=1))
    return catalog


@pytest.fixture(scope="module")
def run_id(home: Catalog) -> str:
    made, _ = submit_train(home, dataset="tickets", recipe=TrainRecipe.from_yaml(RECIPE, name="decoders"))
    drain(home)
    return made


@pytest.fixture
def world(home: Catalog, run_id: str) -> Iterator[World]:
    assert run_id
    made = World(home)
    yield made
    made.close()


def test_a_finished_training_is_loaded_by_transformers_with_equal_logits(
    home: Catalog, run_id: str, tmp_path: Path
) -> None:
    from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

    # By the first characters of the run, as commands print it.
    assert export_model(home, f"{run_id[:8]}/plain", tmp_path / "ours") == FILES
    told = export_model(home, f"{run_id}/plain", tmp_path / "theirs", layout="transformers")
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= set(told)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["ours", "theirs"]
    card = (tmp_path / "theirs" / "README.md").read_text()
    assert card == (tmp_path / "ours" / "README.md").read_text()
    assert "| dataset version |" in card
    saved = load_model(tmp_path / "ours")
    assert isinstance(saved.model, Transformer)
    theirs, words = (one.from_pretrained(tmp_path / "theirs") for one in (AutoModelForCausalLM, AutoTokenizer))
    text = "the second parcel 늦었어요 🚚"
    encoded = saved.encode([text])
    assert words(text)["input_ids"][:16] == encoded.input_ids[0].tolist()
    with torch.inference_mode():
        states = saved.model.hidden(*encoded)
        logits = saved.model.token_logits(states)
        assert logits.std() > 0.01
        assert (theirs(input_ids=encoded.input_ids).logits - logits).abs().max() < 1e-4
        bare = AutoModel.from_pretrained(tmp_path / "theirs")(input_ids=encoded.input_ids)
        assert (bare.last_hidden_state - states).abs().max() < 1e-4


def test_what_cannot_be_written_is_refused_and_leaves_nothing(home: Catalog, run_id: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"positions='alibi' \(needs 'learned' or 'rope'\)"):
        export_model(home, f"{run_id}/alibi", tmp_path / "x", layout="transformers")
    with pytest.raises(ConfigError, match="model 'plain' must be RUN/ARM"):
        export_model(home, "plain", tmp_path / "x")
    with pytest.raises(NotFoundError, match="has no trained arm 'other'; it has alibi, plain"):
        export_model(home, f"{run_id}/other", tmp_path / "x")
    with pytest.raises(ConfigError, match="does not exist; make it"):
        export_model(home, f"{run_id}/plain", tmp_path / "no" / "x")
    (tmp_path / "x").mkdir()
    with pytest.raises(ConflictError, match="x is there already; remove it, or name a new folder"):
        export_model(home, f"{run_id}/plain", tmp_path / "x")
    assert [one.name for one in tmp_path.rglob("*")] == ["x"]


def test_damaged_weights_leave_no_folder(home: Catalog, run_id: str, tmp_path: Path) -> None:
    with home.read() as session:
        file = stored_model(session, f"{run_id}/plain")["tokenizer.json"]
    path = home.settings.home / "store" / file.name
    before = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(before[:-1] + b" ")
    try:
        with pytest.raises(CorruptionError):
            export_model(home, f"{run_id}/plain", tmp_path / "x")
    finally:
        path.write_bytes(before)
    assert list(tmp_path.iterdir()) == []


def test_a_model_is_fetched_over_http_by_curators(world: World, run_id: str) -> None:
    for role in ("curator", "annotator"):
        world.add_user(role, role)
    address = f"{API}/runs/{run_id}/models"
    fetched: Any = world.client("curator").get(f"{address}/plain")
    assert (fetched.status_code, fetched.headers["content-type"]) == (200, "application/zip")
    assert fetched.headers["content-disposition"] == "attachment; filename*=UTF-8''plain.zip"
    assert int(fetched.headers["content-length"]) == len(fetched.content)
    with world.catalog.read() as session:
        files = stored_model(session, f"{run_id}/plain")
    store = Store.of(world.catalog.settings)
    with zipfile.ZipFile(io.BytesIO(fetched.content)) as archive:
        assert archive.namelist() == FILES
        assert all(archive.read(name) == store.read_bytes(file) for name, file in files.items())
    missing = world.client("curator").get(f"{address}/other")
    assert (missing.status_code, "it has alibi, plain" in missing.json()["message"]) == (404, True)
    assert world.client("annotator").get(f"{address}/plain").status_code == 403


def test_an_arm_that_still_trains_is_no_model(home: Catalog, run_id: str) -> None:
    of_arm = select(Unit).where(Unit.run_id == run_id, Unit.stage == 1, Unit.position == 0)
    with home.write() as session:
        unit = session.scalars(of_arm).one()
        kept, unit.result, unit.state = unit.result, {"memory": {"total_bytes": 1}}, "running"
    try:
        with (
            home.read() as session,
            pytest.raises(NotFoundError, match="has no trained arm 'plain'; it has alibi"),
        ):
            stored_model(session, f"{run_id[:8]}/plain")
    finally:
        with home.write() as session:
            unit = session.scalars(of_arm).one()
            unit.result, unit.state = kept, "done"
