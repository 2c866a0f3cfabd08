"""Texts whose class a linear probe is asked for: grammars made up, docstrings of installed packages, news."""

import ast
import importlib.util
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

GRAMMARS, LETTERS, SURE, WORD, WORDS = 8, 24, 0.8, 6, 7
PACKAGES = (
    "celery", "networkx", "numpy", "polars", "pydantic", "scipy", "sklearn", "sqlalchemy", "sympy", "torch",
    "transformers",
)  # fmt: skip
"""All that Winnow or what it needs brings; the standard library is the twelfth class."""
SHORTEST, LONGEST = 40, 150
"""Characters of a docstring, which is cut at the longest."""


def planted(seed: int, count: int) -> pl.DataFrame:
    """Texts of eight grammars that are told apart only by what follows what; columns ``text`` and ``label``."""
    rng = np.random.default_rng(seed)
    following = np.full((GRAMMARS, LETTERS, LETTERS), (1 - SURE) / LETTERS)
    for table in following:
        for _ in range(2):
            # A sum of permutations leaves all letters equally frequent.
            table[np.arange(LETTERS), rng.permutation(LETTERS)] += SURE / 2
    cumulated = following.cumsum(-1)
    grammar, letters = rng.integers(0, GRAMMARS, count), [rng.integers(0, LETTERS, count)]
    for _ in range(WORD * WORDS - 1):
        behind = (cumulated[grammar, letters[-1]] < rng.random(count)[:, None]).sum(-1)
        letters.append(behind.clip(max=LETTERS - 1))
    spelt = ["".join(chr(ord("a") + one) for one in row) for row in np.stack(letters, 1)]
    texts = [" ".join(row[at : at + WORD] for at in range(0, len(row), WORD)) for row in spelt]
    return pl.DataFrame({"text": texts, "label": grammar.astype(str)})


def docstrings(most: int) -> pl.DataFrame:
    """Beginnings of docstrings, so many of a package, and which package each is of, whose name is blotted out."""
    parts = [_of_package(name, folder, most) for name, folder in _folders()]
    return pl.concat(parts)


def _folders() -> Iterator[tuple[str, Path]]:
    yield "stdlib", Path(sysconfig.get_paths()["stdlib"])
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise SystemExit(
                f"docstrings of {name!r} are asked for, which is not installed; install it, or --texts planted"
            )
        yield name, Path(next(iter(spec.submodule_search_locations)))


def _of_package(name: str, folder: Path, most: int) -> pl.DataFrame:
    files = [one for one in sorted(folder.rglob("*.py")) if "site-packages" not in one.relative_to(folder).parts]
    found: dict[str, None] = {}
    # A few of every part of it, not the first parts alone.
    for number in np.random.default_rng(0).permutation(len(files)):
        for text in _docstrings(files[number]):
            found[re.sub(name, "PACKAGE", text[:LONGEST], flags=re.IGNORECASE)] = None
        if len(found) >= most:
            break
    return pl.DataFrame({"text": list(found)[:most]}).with_columns(label=pl.lit(name))


def _docstrings(file: Path) -> Iterator[str]:
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        # Packages hold files that are made to be wrong, or for another Python.
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = " ".join((ast.get_docstring(node, clean=False) or "").split())
            if len(text) >= SHORTEST:
                yield text


def read_news(folder: Path) -> pl.DataFrame:
    """News with their section."""
    path = folder / "ag_news_test" / "test.csv"
    frame = pl.read_csv(path, has_header=False, new_columns=["label", "title", "text"], infer_schema=False)
    return frame.select(text=pl.col("title") + ". " + pl.col("text"), label="label")
