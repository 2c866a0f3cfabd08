"""Language models that are trained to read passages of other records: what they learn, and what they may not see."""

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from catalog.errors import ConfigError, DataError
from tests.training.memories import KINDS, reader
from training import launch, remembering
from training.arm import ArmConfig
from training.data import TrainingData
from training.evaluation.held_out import held_out_loss
from training.export import load_folder, save_model
from training.fit import FitResult, fit
from training.initial import check_as_it_is
from training.recipe import TrainRecipe
from training.retrieval import RETRIEVAL
from training.retrieval.cross_attention import CrossAttention, PassageLanguageModel, gathered_passages
from training.retrieval.memory import Memory, MemoryReader
from training.retrieval.reading import documents_of, shuffled
from training.tokenizer import train_tokenizer

RECIPE = """
compare: none
arms:
  - name: reads
    objective: clm
    retrieval: cross_attention
    retrieval_options: {chunk_tokens: 8, key_dim: 64}
    backbone_options: {vocab_size: 258, dim: 32, num_layers: 1, num_heads: 1, dropout: 0.0, order: causal,
      positions: alibi, embedding_norm: layer}
    pacing: random
    steps: 60
    batch_size: 16
    learning_rate: 0.02
    max_tokens: 24
"""


def arm(**changed: Any) -> ArmConfig:
    return replace(TrainRecipe.from_yaml(RECIPE, name="reading").arms[0], **changed)


def facts(count: int, seed: int) -> list[str]:
    """Seven digits, the letter that goes with them in every text, and what tells one text from another."""
    known, rng = random.Random(9), random.Random(seed)
    pairs = [("".join(known.choices("0123456789", k=7)), known.choice("abcdefgh")) for _ in range(60)]
    drawn = [rng.choice(pairs) for _ in range(count)]
    return [digits + 8 * letter + "".join(rng.choices("tuvwxyz", k=8)) for digits, letter in drawn]


def frame(texts: Sequence[str]) -> pl.DataFrame:
    return pl.DataFrame({"id": [f"{number:032x}-0" for number in range(len(texts))], "text": texts})


def data(texts: Sequence[str]) -> TrainingData:
    return TrainingData.build(
        frame(texts).with_columns(
            hash=pl.col("id").str.slice(0, 32),
            label=pl.lit(None, dtype=pl.String),
            difficulty=pl.lit(0.5),
            weight=pl.lit(1.0),
        )
    )


@pytest.fixture(scope="module")
def learned() -> FitResult:
    torch.set_num_threads(1)
    return fit(arm(), data(facts(200, 0)))


def memory_of(result: FitResult) -> Memory:
    assert isinstance(result.network, MemoryReader)
    assert result.network.memory is not None
    return result.network.memory


def test_passages_tell_what_the_weights_do_not_know_and_shuffled_ones_do_not(
    learned: FitResult, tmp_path: Path
) -> None:
    memory = memory_of(learned)
    assert len(memory) == 3 * 200
    saved = load_folder(save_model(learned, tmp_path / "model"))
    made = saved.network
    assert isinstance(made, PassageLanguageModel)
    held_out, found = data(facts(60, 1)), {}
    for name, one in (("memory", memory), ("shuffled", shuffled(memory, 0)), ("none", None)):
        made.use(one)
        found[name] = held_out_loss(saved.network, saved.model, saved.tokenizer, saved.arm, held_out)["loss"]
    assert found["memory"] < 0.85 * min(found["none"], found["shuffled"])


def test_a_run_that_was_stopped_ends_with_the_same_bits(tmp_path: Path) -> None:
    short, records = arm(steps=5, checkpoint_every=2, stop_patience=5, stop_every=2), data(facts(40, 0))
    unbroken, done = fit(short, records), [0]
    fit(
        short,
        records,
        checkpoint_dir=tmp_path,
        on_progress=lambda step, total, loss: done.append(step),
        should_stop=lambda: done[-1] >= 3,
    )
    resumed = fit(short, records, checkpoint_dir=tmp_path)
    assert (resumed.losses, resumed.checks) == (unbroken.losses, unbroken.checks)
    assert unbroken.network is not None
    assert resumed.network is not None
    for name, value in unbroken.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
    parts = fit(replace(short, micro_batch_size=5), records)
    assert [loss for _, loss in parts.losses] == pytest.approx([loss for _, loss in unbroken.losses], abs=1e-5)


def test_neither_a_record_nor_what_is_nearly_it_is_read() -> None:
    config = CrossAttention(chunk_tokens=4, num_neighbours=3, key_dim=64, spare=8)
    rng = random.Random(0)
    first = rng.choices(range(30), k=40)
    near, far = [*first[:38], 1, 2], [*first[:4], *rng.choices(range(30), k=36)]
    made = RETRIEVAL["cross_attention"].member(reader("cross_attention").model, config)
    assert isinstance(made, PassageLanguageModel)
    made.use(gathered_passages([(5, first), (6, near), (7, far)], config, 30))
    asked = torch.tensor([first, far])
    real = torch.ones_like(asked, dtype=torch.bool)
    same = made.same_text(asked, real)
    assert same is not None
    assert [sorted(set(one.tolist()) - {-1}) for one in same] == [[5, 6], [7]]
    read = made.passages(asked, real, same)
    assert read is not None
    of_first = {tuple(one.tolist()) for one in read[0].flatten(0, 1)}
    assert of_first <= {(-1,) * 8, *(tuple(far[at : at + 8]) for at in range(0, 36, 4)), (*far[36:], *[-1] * 4)}
    assert tuple(far[:8]) in of_first
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(read, made.passages(asked, real, same))


def test_equal_texts_are_one_document_and_a_full_memory_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    texts = ["once upon a time", "another text, long", "once upon a time"]
    tokenizer, config = train_tokenizer(texts, vocab_size=258), CrossAttention(chunk_tokens=8, key_dim=4)
    assert [number for number, _ in documents_of(tokenizer, texts, 24, config)] == [0, 1, 0]
    monkeypatch.setattr("training.retrieval.reading.MAX_MEMORY_BYTES", 5 * 4 * (4 + 17))
    assert [number for number, _ in documents_of(tokenizer, texts, 24, config)] == [0, 1]
    assert "the memory is full: it holds 2 of 3 records" in caplog.text


def test_texts_shorter_than_a_chunk_are_refused_before_the_first_step() -> None:
    with pytest.raises(DataError, match="no text has chunk_tokens=8 tokens: there is nothing to remember; lower it"):
        fit(arm(), data([f"{number}" for number in range(30)]))


def test_a_model_as_it_is_reads_as_it_was_trained_to() -> None:
    as_it_is = arm(retrieval_options={"chunk_tokens": 8, "key_dim": 64, "memory": "RUN/reads"})
    check_as_it_is(as_it_is, arm())
    for trained in (arm(retrieval="none", retrieval_options={}), arm(retrieval_options={"chunk_tokens": 4})):
        with pytest.raises(ConfigError, match="what reads passages is a part of it; train one that does"):
            check_as_it_is(as_it_is, trained)
    with pytest.raises(
        ConfigError, match=r"\{'retrieval': 'knn_lm'\} of arm 'reads' must be \{'retrieval': 'cross_att"
    ):
        check_as_it_is(arm(retrieval="knn_lm", retrieval_options={}), arm())


def test_every_retrieval_says_what_it_goes_with() -> None:
    assert sorted(remembering.FITS) == sorted(RETRIEVAL.load()) == sorted(KINDS)


def test_a_launched_training_keeps_the_memory_that_it_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame(facts(40, 0)).write_parquet(tmp_path / "train.parquet")
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("steps: 60", "steps: 2"))
    options = [f"--recipe={tmp_path}/recipe.yaml", f"--data={tmp_path}/train.parquet", f"--out={tmp_path}/out"]
    for _ in range(2):
        assert launch.main(options) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    made = load_folder(Path(line["model"])).network
    assert isinstance(made, PassageLanguageModel)
    made.use(Memory.open(tmp_path / "out" / "memories" / "reads"))
    assert made.memory is not None
    assert len(made.memory) == 3 * 40


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"objective: clm": "objective: mlm", "causal": "encoder"}, "goes with objective 'clm', not with 'mlm'"),
        ({"chunk_tokens: 8": "chunk_tokens: 24"}, "chunk_tokens=24 must be below max_tokens=24: a text is read from"),
        ({"chunk_tokens: 8": "chunk_tokens: 0"}, "chunk_tokens=0 must be at least 1"),
        ({"key_dim: 64": "layers: [2]"}, r"layers=\[2\] must lie in \[1, 1\], the network's layers"),
        ({"key_dim: 64": "layers: 1"}, "layers=1 must be a list of layers, counted from 1"),
        ({"key_dim: 64": "weight: 0.3"}, "unknown option 'weight'"),
        ({"key_dim: 64": "memory: RUN/reads"}, "memory='RUN/reads' is not what the arm would be trained with; set ste"),
        ({"steps: 60": "packing: rows"}, "reads for a text a row; set packing to none, not 'rows'"),
        (
            {"compare: none": "compare: random", "pacing: random": "pacing: linear"},
            "arm 'reads' is trained to read a memory, and no control gets one to be measured with; set compare: none",
        ),
    ],
)
def test_passages_that_no_arm_can_read_are_refused(changed: dict[str, str], message: str) -> None:
    text = RECIPE
    for old, new in changed.items():
        assert old in text
        text = text.replace(old, new)
    with pytest.raises(ConfigError, match=message):
        TrainRecipe.from_yaml(text, name="refused")
