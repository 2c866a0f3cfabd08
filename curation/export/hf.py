"""A dataset folder that ``datasets.load_from_disk`` and ``datasets.load_dataset`` both read."""

import json
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from curation.export import WRITERS, Batches, Target
from curation.export.schema import to_table

SHARD_BYTES = 500 * 2**20
"""Arrow bytes after which the next file begins, as the library has it."""
_RECORDS = 1_000


@dataclass(frozen=True, kw_only=True)
class Folder(Target):
    """A folder has no suffix."""

    suffixes: tuple[str, ...] = ()


@dataclass(kw_only=True)
class _Split:
    """The files of one split, the last of which is open."""

    folder: Path
    stack: ExitStack
    writer: Any = None
    num_bytes: int = 0
    files: list[Path] = field(default_factory=list)

    def write(self, table: pa.Table) -> None:
        if self.writer is None or self.num_bytes >= SHARD_BYTES:
            self._begin(table.schema)
        self.writer.write_table(table, max_chunksize=_RECORDS)
        self.num_bytes += table.nbytes

    def _begin(self, schema: pa.Schema) -> None:
        if self.writer is not None:
            self.writer.close()
        path = self.folder / f"{len(self.files)}.arrow"
        self.writer = self.stack.enter_context(
            pa.ipc.new_stream(self.stack.enter_context(pa.OSFile(str(path), "wb")), schema)
        )
        self.files.append(path)
        self.num_bytes = 0

    def finish(self, name: str, schema: pa.Schema) -> None:
        """Name the files by their number and describe them."""
        if not self.files:
            self.write(schema.empty_table())
        self.writer.close()
        total = len(self.files)
        named = [
            path.rename(self.folder / f"data-{index:05d}-of-{total:05d}.arrow") for index, path in enumerate(self.files)
        ]
        state: dict[str, Any] = {
            "_data_files": [{"filename": path.name} for path in named],
            "_fingerprint": "0" * 16,
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": name,
        }
        _write(self.folder / "state.json", state)
        # Without features the library takes those of the Arrow schema.
        _write(self.folder / "dataset_info.json", {"citation": "", "description": "", "homepage": "", "license": ""})


@WRITERS.register("hf", Folder)
def write_hf(path: Path, batches: Batches, schema: pa.Schema) -> int:
    """Write a folder with one subfolder a split (``train`` where none is known), of Arrow streams in files.

    The layout is that of ``DatasetDict.save_to_disk``; a README beside it tells ``load_dataset`` which files are which
    split, whatever its name.
    """
    number = 0
    splits: dict[str, _Split] = {}
    path.mkdir()
    with ExitStack() as stack:
        for split, rows in batches:
            name = split or "train"
            if name not in splits:
                (path / name).mkdir()
                splits[name] = _Split(folder=path / name, stack=stack)
            splits[name].write(to_table(rows, schema))
            number += len(rows)
        if not splits:
            (path / "train").mkdir()
            splits["train"] = _Split(folder=path / "train", stack=stack)
        for name, one in splits.items():
            one.finish(name, schema)
    _write(path / "dataset_dict.json", {"splits": list(splits)})
    files = "".join(f"  - split: {name}\n    path: {name}/data-*.arrow\n" for name in splits)
    readme = f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n"
    (path / "README.md").write_text(readme, "utf-8")
    return number


def _write(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2) + "\n", "utf-8")
