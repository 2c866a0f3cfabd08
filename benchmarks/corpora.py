"""Real text for benchmarks, offline and seeded; none of it is committed.

Every machine has the docstrings of its installed packages: families of near-duplicates as software grows them. Debian
adds its package descriptions, and a file of one-line package summaries is taken where one is given.
"""

import csv
import functools
import hashlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

SUMMARIES_VARIABLE = "WINNOW_BENCH_TSV"
"""Environment variable with the path of a tab-separated file whose column ``summary`` holds one-line texts."""
MIN_WORDS = 5
"""Shorter texts are one shingle: nothing near to find."""

Texts = tuple[pl.Series, pl.Series]
"""n distinct ids and n texts."""

_VERSION = 1
"""Of what the cache holds."""
_DOCSTRING = re.compile(r"^[ \t]*[rRuU]?(\"\"\"|''')(.*?)\1", re.DOTALL | re.MULTILINE)
_HEADER = re.compile(r"\A(?:#.*\n){4,}")
_HANGUL = re.compile(r"[가-힣]")


@dataclass(frozen=True)
class Corpus:
    """Texts with where they come from.

    Parameters
    ----------
    ids, texts : n distinct ids, n texts.
    sources : number of records by source.
    """

    ids: pl.Series
    texts: pl.Series
    sources: Mapping[str, int]

    @property
    def name(self) -> str:
        """Sources and counts, as printed beside every figure."""
        return ", ".join(f"{count:,} {source}" for source, count in self.sources.items())

    def describe(self) -> str:
        """Name, size, and a digest by which two runs can be seen to have had the same text."""
        words = int(self.texts.str.count_matches(r"\S+").sum())
        size = int(self.texts.str.len_bytes().sum())
        digest = hashlib.sha256(self.texts.str.join("\n").item().encode()).hexdigest()[:16]
        return (
            f"{len(self.ids):,} records, {size / 1e6:.1f} MB, {words / max(len(self.ids), 1):.1f} words each, "
            f"sha256 {digest}: {self.name}"
        )


def mixed(records: int, rng: np.random.Generator, *, summaries_path: Path | None, data: Path | None) -> Corpus:
    """Equal shares of every source at hand, in random order; what one lacks the others give.

    Parameters
    ----------
    records : how many are wanted; fewer where there are fewer.
    summaries_path : tab-separated file of summaries, or None.
    data : folder of data sets with Korean text, or None.
    """
    sources = {"docstrings of installed packages": docstrings(), "Debian package descriptions": descriptions()}
    if summaries_path is not None:
        sources["package summaries"] = summaries(summaries_path)
    if data is not None:
        sources["Korean sentences"] = korean(data)
    sources = {name: found for name, found in sources.items() if len(found[0])}
    parts, counts = [], {}
    left = records
    for done, (name, (ids, texts)) in enumerate(sorted(sources.items(), key=lambda item: len(item[1][0]))):
        share = min(left // (len(sources) - done), len(ids))
        rows = pl.Series(np.sort(rng.permutation(len(ids))[:share]))
        parts.append(pl.DataFrame({"id": ids.gather(rows), "text": texts.gather(rows)}))
        counts[name] = share
        left -= share
    frame = pl.concat(parts)
    frame = frame[rng.permutation(len(frame))]
    return Corpus(frame["id"], frame["text"], counts)


def docstrings() -> Texts:
    """Docstrings of the packages installed beside this Python, in file order, repeats included."""
    return _numbered("docstring", _source_texts().filter(pl.col("kind") == "docstring")["text"])


def docstrings_of(package: str) -> pl.Series:
    """Distinct docstrings of one installed package, in file order."""
    folder = Path(sysconfig.get_paths()["purelib"]) / package
    sources = (path.read_text(encoding="utf-8", errors="ignore") for path in sorted(folder.rglob("*.py")))
    found = [inspect.cleandoc(match[2]) for source in sources for match in _DOCSTRING.finditer(source)]
    return pl.Series("text", found, dtype=pl.String).unique(maintain_order=True)


def licence_headers() -> pl.Series:
    """Distinct comments at the top of installed source files that state a licence."""
    return _source_texts().filter(pl.col("kind") == "header")["text"]


def descriptions() -> Texts:
    """Debian package descriptions, long where the machine's lists have them; none on other systems."""
    command = shutil.which("apt-cache")
    if command is None:
        return _numbered("debian", [])
    listed = subprocess.run([command, "dumpavail"], capture_output=True, text=True, errors="replace")
    return _numbered("debian", _descriptions(listed.stdout.splitlines()))


def summaries(path: Path) -> Texts:
    """The column ``summary`` of a tab-separated file."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return _numbered("summary", [row["summary"] or "" for row in rows])


def korean(folder: Path) -> Texts:
    """Every distinct string with ten or more Hangul syllables in the JSON files below a folder, in file order."""
    found: dict[str, None] = {}
    for path in sorted(folder.rglob("*.json")):
        for text in _strings(json.loads(path.read_text(encoding="utf-8"))):
            if len(_HANGUL.findall(text)) >= 10:
                found.setdefault(text)
    return _numbered("korean", list(found))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)


def _numbered(prefix: str, texts: Iterable[str]) -> Texts:
    column = pl.Series("text", texts, dtype=pl.String)
    column = column.filter(column.str.count_matches(r"\w+") >= MIN_WORDS)
    ids = pl.select(pl.format(prefix + "-{}", pl.int_range(len(column)).cast(pl.String).str.zfill(7)).alias("id"))
    return ids["id"], column


def _descriptions(lines: Iterable[str]) -> Iterator[str]:
    """Summary and long text of each package: a field, continued by lines that begin with a space."""
    gathered: list[str] = []
    for line in lines:
        if line.startswith(" ") and gathered:
            gathered.append("" if line == " ." else line.strip())
            continue
        if gathered:
            yield "\n".join(gathered)
            gathered = []
        if line.startswith(("Description:", "Description-en:")):
            gathered = [line.partition(":")[2].strip()]
    if gathered:
        yield "\n".join(gathered)


@functools.cache
def _source_texts() -> pl.DataFrame:
    """Columns kind and text, cached by what is installed."""
    site = Path(sysconfig.get_paths()["purelib"])
    installed = sorted(f"{one.name}=={one.version}" for one in distributions(path=[str(site)]))
    key = hashlib.sha256(repr((_VERSION, installed)).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "winnow-benchmarks"
    path = folder / f"source-texts-{key}.parquet"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(f".{os.getpid()}")
        _scan(site).write_parquet(aside)
        aside.replace(path)
    return pl.read_parquet(path)


def _scan(site: Path) -> pl.DataFrame:
    found: list[str] = []
    headers: dict[str, None] = {}
    for path in sorted(site.rglob("*.py")):
        source = path.read_text(encoding="utf-8", errors="ignore")
        found += [inspect.cleandoc(match[2]) for match in _DOCSTRING.finditer(source)]
        header = _HEADER.match(source)
        if header and "licen" in header[0].lower():
            headers.setdefault("\n".join(line.lstrip("# ") for line in header[0].splitlines()))
    kinds = ["docstring"] * len(found) + ["header"] * len(headers)
    return pl.DataFrame({"kind": kinds, "text": [*found, *headers]}, schema={"kind": pl.String, "text": pl.String})
