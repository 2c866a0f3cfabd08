"""KenLM in its own environment: an order-3 model by kaldingram, read and scored by kenlm."""

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


def main() -> None:
    """Read texts from the file named, print scores and speed as JSON."""
    import kenlm  # type: ignore[import-not-found]

    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        corpus, arpa = Path(folder) / "corpus.txt", Path(folder) / "model.arpa"
        corpus.write_text("\n".join(map(lowered, given["reference"])) + "\n", encoding="utf-8")
        subprocess.run(
            [sys.executable, "-m", "kaldingram", "-ngram-order", "3", "-text", str(corpus), "-lm", str(arpa)],
            check=True,
            stdout=sys.stderr,
        )
        model: Any = kenlm.Model(str(arpa))
    scores = {}
    for name, texts in given["sets"].items():
        prepared = [lowered(text) for text in texts]
        began = time.process_time()
        scores[name] = [model.perplexity(text) if text else 1e9 for text in prepared]
        seconds = time.process_time() - began
        if name == "real":
            speed = sum(len(text.encode()) for text in texts) / 1e6 / seconds
    sys.stdout.write(json.dumps({"scores": scores, "mb_per_second": speed}))


if __name__ == "__main__":
    main()
