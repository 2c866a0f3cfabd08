"""A dataset folder that ``datasets.load_dataset`` reads: Parquet, and a README that describes it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import yaml

from catalog.errors import DataError
from labeling.exchange import FORMATS, Format, Given, Item, Problem, Written, retraction, seconds
from labeling.schema import LabelSchema

BATCH_ROWS = 1_000


@dataclass(frozen=True, kw_only=True)
class Folder(Format):
    """``data/train.parquet`` with a row a record, and ``README.md`` with its features."""

    is_folder: ClassVar[bool] = True

    def write(self, path: Path, items: Iterable[Item], schema: LabelSchema) -> Written:
        """Write the folder."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        written = Written()
        layout = _layout(schema)
        file = path / "data" / "train.parquet"
        file.parent.mkdir(parents=True)
        with pq.ParquetWriter(str(file), layout, compression="zstd", write_page_checksum=True) as writer:
            batch: list[dict[str, Any]] = []
            for item in items:
                batch.append(_row(item))
                written.num_items += 1
                written.num_answers += len(item.answers)
                if len(batch) == BATCH_ROWS:
                    writer.write_table(pa.Table.from_pylist(batch, layout))
                    batch = []
            if batch:
                writer.write_table(pa.Table.from_pylist(batch, layout))
        (path / "README.md").write_text(_readme(schema, written, file.stat().st_size), "utf-8")
        return written

    def read(self, path: Path, schema: LabelSchema) -> Iterator[Item | Problem]:  # noqa: ARG002 - one contract
        """Every Parquet file below the folder, by name."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        files = sorted(path.rglob("*.parquet")) if path.is_dir() else []
        if not files:
            raise DataError(f"{path.name} is no folder with Parquet files; give the folder of the dataset")
        for file in files:
            try:
                source = pq.ParquetFile(str(file))
                missing = {"text", "answers"} - set(source.schema_arrow.names)
                if missing:
                    raise DataError(f"{file.name} has no column {', '.join(sorted(missing))}; is it a label export?")
                for number, row in enumerate(row for batch in source.iter_batches() for row in batch.to_pylist()):
                    yield _item(row, f"{file.name}, row {number}")
            except (pa.ArrowInvalid, OSError) as error:
                raise DataError(f"{file.name} is no Parquet file: {error}") from error


def _layout(schema: LabelSchema) -> Any:
    import pyarrow as pa

    span = pa.struct([("start", pa.int64()), ("end", pa.int64()), ("label", pa.string())])
    value = {"multi_label": pa.list_(pa.string()), "spans": pa.list_(span), "rating": pa.float64()}.get(
        schema.task, pa.string()
    )
    answer = pa.struct(
        [
            ("annotator", pa.string()),
            ("value", value),
            ("at", pa.timestamp("us", "UTC")),
            ("late", pa.bool_()),
            ("seconds_spent", pa.float64()),
            ("retracted", pa.string()),
        ]
    )
    return pa.schema(
        [
            ("record_id", pa.string()),
            ("text", pa.string()),
            ("value", value),
            ("confidence", pa.float64()),
            ("num_votes", pa.int64()),
            ("answers", pa.list_(answer)),
        ]
    )


def _row(item: Item) -> dict[str, Any]:
    return {
        "record_id": item.record_id,
        "text": item.text,
        "value": item.value if item.num_votes else None,
        "confidence": item.confidence,
        "num_votes": item.num_votes,
        "answers": [
            {
                "annotator": one.annotator,
                "value": one.value,
                "at": one.at,
                "late": one.late,
                "seconds_spent": one.seconds_spent,
                "retracted": one.retracted,
            }
            for one in item.answers
        ],
    }


def _item(row: dict[str, Any], where: str) -> Item:
    return Item(
        record_id=row.get("record_id"),
        text=row["text"],
        answers=tuple(
            Given(
                annotator=one["annotator"],
                value=_plain(one["value"]),
                at=one.get("at"),
                seconds_spent=seconds(one.get("seconds_spent")),
                late=bool(one.get("late")),
                retracted=retraction(one.get("retracted")),
            )
            for one in row["answers"] or ()
        ),
        value=_plain(row.get("value")),
        confidence=row.get("confidence"),
        num_votes=row.get("num_votes") or 0,
        where=where,
    )


def _plain(value: Any) -> Any:
    """Whole numbers are whole again: the column holds floats."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class _Whole(yaml.SafeDumper):
    """Writes what occurs twice twice: the library that reads it changes what it has read as it goes."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - one signature
        return True


def _readme(schema: LabelSchema, written: Written, num_bytes: int) -> str:
    span = [
        {"name": "start", "dtype": "int64"},
        {"name": "end", "dtype": "int64"},
        {"name": "label", "dtype": "string"},
    ]
    kinds: dict[str, dict[str, Any]] = {
        "multi_label": {"list": "string"},
        "spans": {"list": span},
        "rating": {"dtype": "float64"},
    }
    value: dict[str, Any] = {"name": "value"} | kinds.get(schema.task, {"dtype": "string"})
    answer = [
        {"name": "annotator", "dtype": "string"},
        value,
        {"name": "at", "dtype": "timestamp[us, tz=UTC]"},
        {"name": "late", "dtype": "bool"},
        {"name": "seconds_spent", "dtype": "float64"},
        {"name": "retracted", "dtype": "string"},
    ]
    features = [
        {"name": "record_id", "dtype": "string"},
        {"name": "text", "dtype": "string"},
        value,
        {"name": "confidence", "dtype": "float64"},
        {"name": "num_votes", "dtype": "int64"},
        {"name": "answers", "list": answer},
    ]
    head = {
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train.parquet"}]}],
        "dataset_info": {
            "features": features,
            "splits": [{"name": "train", "num_examples": written.num_items, "num_bytes": num_bytes}],
            "download_size": num_bytes,
            "dataset_size": num_bytes,
        },
    }
    labels = f" Labels: {', '.join(schema.names)}." if schema.names else ""
    return (
        f"---\n{yaml.dump(head, Dumper=_Whole, allow_unicode=True, sort_keys=False)}---\n\n"
        f"{written.num_items} records with {written.num_answers} answers of task type `{schema.task}`, schema version "
        f"{schema.version}.{labels}\n\nQuestion: {schema.question}\n\nOffsets count Unicode code points, half open.\n"
    )


FORMATS.register("hf", Folder)(Folder)
