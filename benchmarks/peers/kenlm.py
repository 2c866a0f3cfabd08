"""KenLM in its own environment: an order-3 model by kaldingram, read and scored by kenlm.

kaldingram writes no probability of unknown words, and KenLM then takes 1e-100: how many unknown words a text has would
be all that counts. Here they get 1e-6, about what KenLM's own counter, which its wheel lacks, would give.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def lowered(text: str) -> str:
    """Words as ours: letters, digits, underscores, case ignored."""
    return " ".join("".join(one if one.isalnum() or one == "_" else " " for one in text.lower()).split())


UNKNOWN = -6.0
"""log10 of the probability of an unknown word."""


def perplexity(model: Any, text: str) -> float:
    """Of the words and the end of a text."""
    found = [UNKNOWN if is_unknown else score for score, _, is_unknown in model.full_scores(text)]
    return float(10 ** (-sum(found) / len(found)))


def main() -> None:
    """Read texts from the file named, print scores and speed as JSON."""
    import kenlm  # type: ignore[import-not-found]

    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        corpus, arpa = Path(folder) / "corpus.txt", Path(folder) / "model.arpa"
        corpus.write_text("\n".join(map(lowered, given["reference"])) + "\n", encoding="utf-8")
        counter = str(Path(sys.executable).parent / "kaldingram")
        subprocess.run(
            [counter, "train", "--ngram-order", "3", "--text", str(corpus), "--lm", str(arpa)],
            check=True,
            stdout=sys.stderr,
        )
        model: Any = kenlm.Model(str(arpa))
    scores = {}
    for name, texts in given["sets"].items():
        prepared = [lowered(text) for text in texts]
        began = time.process_time()
        scores[name] = [perplexity(model, text) for text in prepared]
        seconds = time.process_time() - began
        if name == "real":
            speed = sum(len(text.encode()) for text in texts) / 1e6 / seconds
    sys.stdout.write(json.dumps({"scores": scores, "mb_per_second": speed}))


if __name__ == "__main__":
    main()
