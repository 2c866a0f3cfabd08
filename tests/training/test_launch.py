"""What torchrun starts, by one process alone; two are seen in test_distributed."""

import json
from pathlib import Path

import polars as pl
import pytest

from catalog.errors import DataError
from training.export import load_model
from training.launch import main, read_data

RECIPE = """
arms:
  - name: one
    steps: 2
    batch_size: 4
    max_tokens: 16
    backbone_options: {vocab_size: 300, dim: 16}
  - name: two
    pacing: random
    steps: 1
    batch_size: 4
    backbone_options: {vocab_size: 300, dim: 16}
"""


@pytest.fixture
def files(frame: pl.DataFrame, tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    exported = frame.select(
        pl.col("id").alias("winnow_id"), pl.col("difficulty").alias("winnow_difficulty"), "text", topic="label"
    )
    exported.write_parquet(tmp_path / "train.parquet")
    return tmp_path


def launched(files: Path, *more: str) -> int:
    given = {"--recipe": "recipe.yaml", "--data": "train.parquet", "--out": "models"}
    return main([word for name, file in given.items() for word in (name, str(files / file))] + list(more))


def test_an_export_is_trained_on_and_every_arm_saved(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert launched(files, "--label", "topic") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["arm"], line["steps"]) for line in lines] == [("one", 2), ("two", 1)]
    assert load_model(files / "models" / "one").classes == ("food", "교통")
    card = (files / "models" / "one" / "README.md").read_text()
    assert "| processes | 1, none |" in card
    assert "| optimizer | adamw, rate 0.001, schedule wsd |" in card


def test_an_arm_starts_from_the_folder_of_a_saved_model(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert launched(files, "--label", "topic", "--arm", "one") == 0
    (files / "recipe.yaml").write_text(
        RECIPE.replace("name: one", "name: next\n    init_from: run/one").replace("vocab_size: 300, ", "", 1)
    )
    assert launched(files, "--label", "topic", "--arm", "next") == 1
    assert "arm 'next' starts from 'run/one'; name the folder of that model by --initial" in capsys.readouterr().err
    first = str(files / "models" / "one")
    assert launched(files, "--label", "topic", "--arm", "next", "--initial", first) == 0
    tokenizers = [(files / "models" / name / "tokenizer.json").read_bytes() for name in ("one", "next")]
    assert tokenizers[0] == tokenizers[1]


MIXED = """
arms:
  - name: mixed
    pacing: mixture
    pacing_options: {shares: {a.jsonl: 1, b.jsonl: 0}, start: 0.5}
    steps: 2
    batch_size: 4
    max_tokens: 16
    backbone_options: {vocab_size: 300, dim: 16}
"""


@pytest.mark.parametrize("column", ["source", "winnow_file"])
def test_a_mixture_draws_by_the_source_that_the_file_gives(
    column: str, frame: pl.DataFrame, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (files / "recipe.yaml").write_text(MIXED)
    folder = "data/" if column == "winnow_file" else ""
    sources = [f"{folder}{'ab'[number % 2]}.jsonl" for number in range(frame.height)]
    frame.with_columns(pl.Series(column, sources)).write_parquet(files / "train.parquet")
    assert launched(files) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 2
    (files / "recipe.yaml").write_text(MIXED.replace("a.jsonl", "c.jsonl"))
    assert launched(files) == 1
    assert "names source 'c.jsonl', which has no record to draw" in capsys.readouterr().err


def test_columns_of_the_same_name_that_no_arm_uses_are_not_looked_at(frame: pl.DataFrame, files: Path) -> None:
    own = frame.with_columns(source=pl.lit(None, dtype=pl.String), spans=pl.lit(3), topic="label")
    own.write_parquet(files / "train.parquet")
    assert launched(files, "--label", "topic", "--arm", "two") == 0


def test_spans_slices_and_versions_of_labels_are_kept(frame: pl.DataFrame, tmp_path: Path) -> None:
    spans = [None if number % 2 else [{"start": 0, "end": 3, "label": "place"}] for number in range(frame.height)]
    tags = {"slices": [["ko"]] * frame.height, "label_version": ["given"] * frame.height}
    path = tmp_path / "spans.parquet"
    full = frame.with_columns(pl.Series("spans", spans), *(pl.Series(name, one) for name, one in tags.items()))
    full.with_columns(pl.lit(None, dtype=pl.String).alias("label")).write_parquet(path)
    data = read_data(path)
    assert data.spans is not None
    assert (data.spans[0], data.spans[1], data.classes) == ([(0, 3, 0)], None, ["place"])
    assert data.manifest.frame["slices"].to_list() == tags["slices"]
    assert data.manifest.frame["label_version"].to_list() == tags["label_version"]
    frame.with_columns(slices=pl.struct("id")).write_parquet(path)
    with pytest.raises(DataError, match=r"spans.parquet: column 'slices' is Struct.* and must be List\(String\)"):
        read_data(path)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--arm", "three"], "arm='three' is not in recipe 'recipe'; it has one, two"),
        (["--text", "body"], "has no column 'body'; name the column of texts with --text. It has winnow_id,"),
        (["--strategy", "fsdp2"], "strategy='fsdp2' needs processes; start this with torchrun"),
        ([], "objective 'classification' learns from labels"),
    ],
)
def test_what_cannot_be_trained_is_said_and_ends_with_1(
    more: list[str], message: str, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launched(files, *more) == 1
    assert message in capsys.readouterr().err


def test_a_damaged_file_is_refused(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = files / "train.parquet"
    path.write_bytes(path.read_bytes()[:100])
    assert launched(files) == 1
    assert "train.parquet cannot be read as Parquet" in capsys.readouterr().err
    path.unlink()
    path.mkdir()
    assert launched(files) == 1
    assert "train.parquet is a folder; name the Parquet file in it" in capsys.readouterr().err


def test_a_memory_that_would_not_be_kept_is_refused(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "recipe.yaml").write_text(RECIPE.replace("name: one", "name: one\n    retrieval: knn_classifier"))
    assert launched(files, "--label", "topic") == 1
    assert (
        "arm 'one': retrieval='knn_classifier' has no effect here, where no memory is kept" in capsys.readouterr().err
    )
