"""Folders of datasets: which files, in what order, of which split; real ones, written by the datasets library."""

import json

import datasets
import polars as pl
import pytest

from catalog.errors import ConfigError, DataError
from curation.sources import read_batches
from curation.sources.folders import parts_of
from curation.sources.mapping import Mapping, load_mapping


def texts(part) -> list[str]:
    batches = read_batches(str(part.path), Mapping(label="label").options())
    return [text for one in batches for text in one.records["text"]]


def test_folders_that_the_library_saved_are_read_with_splits_and_label_names(tmp_path):
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "좋음"])}
    )
    train = datasets.Dataset.from_dict(
        {"text": [f"t{n}" for n in range(5)], "label": [0, 1, 0, 1, 1]}, features=features
    )
    test = datasets.Dataset.from_dict({"text": ["u"], "label": [1]}, features=features)
    train.save_to_disk(tmp_path / "one", num_shards=2)
    datasets.DatasetDict({"train": train, "test": test}).save_to_disk(tmp_path / "two")
    assert [(texts(part), part.split) for part in parts_of(tmp_path / "one")] == [
        (["t0", "t1", "t2"], None), (["t3", "t4"], None),
    ]  # fmt: skip
    assert [(texts(part), part.split) for part in parts_of(tmp_path / "two")] == [
        (["t0", "t1", "t2", "t3", "t4"], "train"), (["u"], "test"),
    ]  # fmt: skip
    (batch,) = read_batches(str(parts_of(tmp_path / "two")[1].path), Mapping(label="label").options())
    assert batch.records["label"].to_list() == ["좋음"]


def test_data_folders_tell_the_split_by_names_of_files_or_folders(tmp_path):
    for name in ("data/train-00001-of-00002", "data/train-00000-of-00002", "data/test-00000-of-00001", "val/a", "more"):
        path = tmp_path / f"{name}.parquet"
        path.parent.mkdir(exist_ok=True)
        pl.DataFrame({"text": [name]}).write_parquet(path)
    (tmp_path / "README.md").write_text("about")
    (tmp_path / "dataset_infos.json").write_text("{}")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "train.parquet").write_bytes(b"")
    assert [(texts(part)[0], part.split) for part in parts_of(tmp_path)] == [
        ("data/train-00000-of-00002", "train"),
        ("data/train-00001-of-00002", "train"),
        ("val/a", "validation"),
        ("data/test-00000-of-00001", "test"),
        ("more", None),
    ]
    (tmp_path / "x.csv").write_text("text\na\n")
    with pytest.raises(DataError, match=r"mixes \.csv, \.parquet; give the files of one kind"):
        parts_of(tmp_path)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "is no dataset folder"),
        ({"state.json": {"_data_files": [{"filename": "../a.arrow"}]}}, "lies outside of it"),
        ({"state.json": {"_data_files": [{"filename": "a.arrow"}]}}, "is not there; copy the whole folder"),
        ({"state.json": {"_data_files": []}}, "lists no data files"),
        ({"state.json": {"_indices_data_files": [{"filename": "i.arrow"}]}}, r"flatten_indices\(\)"),
        ({"state.json": []}, "is no JSON object"),
        ({"dataset_dict.json": {"splits": "train"}}, "names no splits"),
        ({"dataset_dict.json": {"splits": ["/etc"]}}, "lies outside of it"),
    ],
)
def test_folders_that_are_no_whole_dataset_are_refused(tmp_path, files, said):
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(DataError, match=said):
        parts_of(tmp_path)


def test_mapping_file_is_read_strictly(tmp_path):
    path = tmp_path / "map.yaml"
    path.write_text("text: body.content\nlabel: meta.topic\nsource: meta.url\n")
    mapping = load_mapping(str(path))
    assert mapping == Mapping(text="body.content", label="meta.topic", source="meta.url")
    assert Mapping(turns="alpaca").text_column == "instruction+input+output"
    for text, said in (
        ("txt: a", r"unknown key 'txt'; did you mean 'text'\?"),
        ("text: a\nturns: openai", "turns say where the text is"),
        ("turns: openia", "did you mean 'openai'"),
        ("format: parquett", "did you mean 'parquet'"),
        ("encoding: utf-16", "does not contain ASCII"),
        ("label: [a]", "must be a name"),
        ("text: a\ntext: b", "given twice"),
        ("- a", "must map text, label"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=said):
            load_mapping(str(path))
    with pytest.raises(ConfigError, match="cannot be read"):
        load_mapping(str(tmp_path / "none.yaml"))
