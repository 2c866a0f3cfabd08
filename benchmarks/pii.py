"""Personal data: what is found of what is there, and what is found that is not, beside presidio's analyzer.

On texts drawn by seed (`benchmarks/pii_texts.py`): English, Korean and code, with lookalikes in most. With ``--corpus``
also on a file of presidio-research's form (``full_text`` and ``spans``), by presidio's own authors. A value is found
where a span of its kind shares at least half of the longer of the two with it; ours count from the default confidence.
Pooled figures are over the kinds both know, in English texts. presidio's default is to return whatever scores above 0;
for each of its kinds the score is taken that serves it best on these very texts (highest F1), which nobody could know
beforehand. The rows of our kinds are over all texts, its rows over the English ones.
Private addresses are a value to presidio and none to us: they count for and against nobody.

Rates: texts of installed packages, one core; of presidio a part of them.
"""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.corpora import docstrings
from benchmarks.peers.setup import install, interpreter, ready
from benchmarks.pii_texts import Labelled, labelled
from benchmarks.reporting import options_parser, report
from curation.pii.finding import find_spans

SEED = 2
ENTITIES = {
    "EMAIL_ADDRESS": "email",
    "PHONE_NUMBER": "phone",
    "CREDIT_CARD": "payment_card",
    "IBAN_CODE": "iban",
    "IP_ADDRESS": "ip_address",
    "US_SSN": "us_ssn",
    "US_ITIN": "us_itin",
    "UK_NHS": "uk_nhs",
}
"""Kinds both know."""
SCORES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.35, 0.4, 0.5, 0.6, 0.75, 0.85, 1.0)
Place = tuple[int, str, int, int]


def covers(one: Place, other: Place) -> bool:
    """Whether two places of a row and kind share half of the longer."""
    shared = min(one[3], other[3]) - max(one[2], other[2])
    return one[:2] == other[:2] and 2 * shared >= max(one[3] - one[2], other[3] - other[2])


def by_row(places: Iterable[Place]) -> dict[tuple[int, str], list[Place]]:
    """Places by row and kind."""
    found: dict[tuple[int, str], list[Place]] = {}
    for one in places:
        found.setdefault(one[:2], []).append(one)
    return found


def judge(found: Sequence[Place], truth: Sequence[Place], ignored: set[tuple[int, int, int]]) -> dict[str, float]:
    """Recall and precision, with the numbers behind them."""
    counted = [
        one
        for one in found
        if not any(row == one[0] and one[2] < end and start < one[3] for row, start, end in ignored)
    ]
    of_truth, of_found = by_row(truth), by_row(counted)
    hits = sum(any(covers(one, other) for other in of_found.get(one[:2], [])) for one in truth)
    right = sum(any(covers(one, other) for other in of_truth.get(one[:2], [])) for one in counted)
    return {
        "recall": round(hits / len(truth), 4) if truth else 1.0,
        "precision": round(right / len(counted), 4) if counted else 1.0,
        "values": len(truth),
        "found": len(counted),
    }


def f1(judged: dict[str, float]) -> float:
    """Harmonic mean of recall and precision."""
    total = judged["recall"] + judged["precision"]
    return 2 * judged["recall"] * judged["precision"] / total if total else 0.0


def corpus(path: Path) -> list[Labelled]:
    """Texts of a file of presidio-research's form, with the spans of kinds both know."""
    return [
        Labelled(
            one["full_text"],
            [
                (ENTITIES[span["entity_type"]], span["start_position"], span["end_position"])
                for span in one["spans"]
                if span["entity_type"] in ENTITIES
            ],
        )
        for one in json.loads(path.read_text(encoding="utf-8"))
    ]


def presidio(texts: Sequence[str], folder: Path) -> tuple[list[tuple[Place, float]], float]:
    """What the peer finds, with its scores, and its seconds."""
    source, target = folder / "texts.parquet", folder / "found.json"
    pl.DataFrame({"text": list(texts)}).write_parquet(source)
    command = [str(interpreter("presidio")), "-m", "benchmarks.peers.presidio", str(source), str(target), *ENTITIES]
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=alone)
    found = [
        ((row, ENTITIES[entity], start, end), float(score))
        for row, entity, start, end, score in json.loads(target.read_text(encoding="utf-8"))
    ]
    return found, float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def compare(texts: Sequence[Labelled], folder: Path, *, with_peer: bool) -> dict[str, Any]:
    """Both on the same texts: recall and precision per kind, and pooled over the kinds both know."""
    given = [one.text for one in texts]
    frame = find_spans(pl.Series(given))
    found: list[Place] = list(frame.select("row", "kind", "start", "end").iter_rows())
    truth = [(row, *span) for row, one in enumerate(texts) for span in one.spans]
    ignored = {(row, *place) for row, one in enumerate(texts) for place in one.ignored}
    korean = {row for row, one in enumerate(texts) if one.korean}
    kinds = {
        kind: judge([one for one in found if one[1] == kind], [one for one in truth if one[1] == kind], ignored)
        for kind in sorted({one[1] for one in truth} | {one[1] for one in found})
    }
    figures: dict[str, Any] = {"kinds": kinds}
    if korean:
        figures["korean"] = judge(
            [one for one in found if one[0] in korean], [one for one in truth if one[0] in korean], ignored
        )

    def shared(places: Iterable[Place]) -> list[Place]:
        return [one for one in places if one[1] in ENTITIES.values() and one[0] not in korean]

    figures["ours"] = judge(shared(found), shared(truth), ignored)
    if not with_peer:
        return figures
    theirs, _ = presidio(given, folder)
    figures["presidio_kinds"] = {}
    chosen: list[Place] = []
    for kind in sorted(ENTITIES.values()):
        of_kind = [(one, score) for one, score in theirs if one[1] == kind and one[0] not in korean]
        there = [one for one in shared(truth) if one[1] == kind]
        tried = {least: judge([one for one, score in of_kind if score >= least], there, ignored) for least in SCORES}
        best = max(SCORES, key=lambda least: f1(tried[least]))
        figures["presidio_kinds"][kind] = tried[best] | {"score": best}
        chosen += [one for one, score in of_kind if score >= best]
    figures["presidio"] = judge(chosen, shared(truth), ignored)
    figures["presidio_default"] = judge(shared(one for one, _ in theirs), shared(truth), ignored)
    for name in ("recall", "precision"):
        figures[f"{name}_vs_presidio"] = round(figures["ours"][name] / figures["presidio"][name], 3)
    return figures


def rates(quick: bool, folder: Path, *, with_peer: bool) -> dict[str, float]:  # noqa: FBT001 - an option
    """Megabytes a second of both, on the same kind of text."""
    texts = docstrings()[1].sample(fraction=1, shuffle=True, seed=SEED)
    size = texts.str.len_bytes().cum_sum()
    ours, theirs = texts.filter(size <= (8e6 if quick else 64e6)), texts.filter(size <= (1e5 if quick else 5e5))
    find_spans(texts.head(100))
    began = time.perf_counter()
    find_spans(ours)
    rate = int(ours.str.len_bytes().sum()) / 1e6 / (time.perf_counter() - began)
    figures = {"megabytes_per_second": round(rate, 1)}
    if with_peer:
        _, seconds = presidio(theirs.to_list(), folder)
        peer = int(theirs.str.len_bytes().sum()) / 1e6 / seconds
        figures |= {"presidio_megabytes_per_second": round(peer, 3), "speedup_vs_presidio": round(rate / peer, 1)}
    return figures


def show(name: str, figures: dict[str, Any]) -> None:
    """A table for people."""
    print(f"{name}: recall and precision, ours | presidio at its best scores")
    for kind, one in figures["kinds"].items():
        peer = figures.get("presidio_kinds", {}).get(kind)
        beside = f"{peer['recall']:>8.3f} {peer['precision']:>6.3f}" if peer else ""
        print(f"  {kind:<20} {one['values']:>6,} {one['recall']:>7.3f} {one['precision']:>6.3f} | {beside}")
    for which in ("ours", "presidio", "presidio_default", "korean"):
        if which in figures:
            one = figures[which]
            print(f"  pooled, {which:<18} {one['recall']:>7.3f} {one['precision']:>6.3f}")


def main() -> None:
    """Measure both on the same texts."""
    parser = options_parser(__doc__ or "")
    parser.add_argument("--corpus", type=Path, help="a file of presidio-research's form, measured too")
    options = parser.parse_args()
    reason = "" if ready("presidio") else install("presidio")
    if reason:
        print(f"presidio cannot be installed: {reason}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        drawn = compare(labelled(500 if options.quick else 4_000, SEED), folder, with_peer=not reason)
        show("drawn texts", drawn)
        real = compare(corpus(options.corpus), folder, with_peer=not reason) if options.corpus else None
        if real is not None:
            show("corpus", real)
        speed = rates(options.quick, folder, with_peer=not reason)
    print(f"{speed['megabytes_per_second']} MB/s, presidio {speed.get('presidio_megabytes_per_second')} MB/s")
    figures = drawn | speed | ({"corpus": real} if real is not None else {})
    report("pii", options, figures, ("polars",))


if __name__ == "__main__":
    main()
