"""What every benchmark prints: a table of ratios against named peers, then one line of JSON, also kept as a file."""

import argparse
import json
import math
import os
import platform
import statistics
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def options_parser(description: str) -> argparse.ArgumentParser:
    """``--quick`` ends within a minute and keeps no file; ``--keep`` writes the figures to ``benchmarks/results``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="end within a minute")
    parser.add_argument("--keep", action="store_true", help="write the figures to benchmarks/results")
    return parser


def arguments(description: str) -> argparse.Namespace:
    """The options of a benchmark that has no others."""
    return options_parser(description).parse_args()


def report(name: str, options: argparse.Namespace, figures: dict[str, Any], packages: tuple[str, ...] = ()) -> None:
    """Print the last line, and keep it with the machine and versions behind it."""
    if options.keep:
        RESULTS.mkdir(exist_ok=True)
        machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
        kept = {
            "command": _command(),
            "machine": machine,
            "versions": {package: version(package) for package in packages},
            "figures": figures,
        }
        (RESULTS / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(figures) + "\n")


def interval(values: list[float]) -> tuple[float, float, float]:
    """Mean of at least two values, and its 95 % interval by Student's t."""
    from scipy.stats import t

    mean = statistics.fmean(values)
    half = float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


PLACES = {"--corpus": "FILE", "--hatecheck": "FILE", "--harmless": "FILE", "--data": "FOLDER", "--curves": "FILE"}
"""Options that name a file of the machine, and what is said instead."""


def _command() -> str:
    """How the benchmark was started; a file is named by what it is, wherever it lay."""
    words = [f"python -m benchmarks.{Path(sys.argv[0]).stem}"]
    for before, word in zip(sys.argv, sys.argv[1:], strict=False):
        if word != "--keep":
            words.append(PLACES.get(before, word))
    return " ".join(words)
