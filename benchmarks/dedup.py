"""Deduplication against datatrove, text-dedup, datasketch and rensa on the same text, and against the exact truth.

Every contestant runs in a process and an environment of its own (``benchmarks/peers``), from a Parquet file of raw
texts to the list of removed ids, in turn with ours on the same file. Imports are not timed; nor are, for ours, the
kernels' compilation and the table of characters, whose seconds are printed. A figure is the fastest of its rounds.

Ours verifies every removal; theirs are as their users run them, which in general verifies nothing. On a busy machine
trust the ratios of CPU seconds more than those of wall seconds.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks import truth
from benchmarks.corpora import SUMMARIES_VARIABLE, Corpus, licence_headers, mixed
from benchmarks.peers import setup
from benchmarks.peers.winnow import CONFIG, Verdicts, ours
from benchmarks.planting import CJK_EDITS, EDITS, LOOK_ALIKES, plant
from benchmarks.reporting import options_parser, report
from curation.dedup.normalize import normalize
from curation.dedup.shingles import shingle

ROOT = Path(__file__).parents[1]
SEED = 1
QUICK_SECONDS = 50.0
"""After so many, a quick run starts no further peer, and ends the one that runs."""
QUICK_RECORDS = 30_000


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One variant of one tool.

    Parameters
    ----------
    module : script in ``benchmarks/peers``, and its environment.
    variant : as the script calls it.
    key : of the last line of JSON, or None for a variant that is only shown in full runs.
    records : how many at most, in a quick and in a full run: slow tools get a part of the same corpus.
    parallel : whether it has threads or processes of its own.
    """

    module: str
    variant: str
    key: str | None
    records: tuple[int, int]
    parallel: bool

    @property
    def name(self) -> str:
        """As printed."""
        return f"{self.module} {self.variant}"


ALL = (5_000, 200_000)
OURS = Contestant(module="winnow", variant="verified", key=None, records=ALL, parallel=True)
PEERS = (
    Contestant(module="datasketch", variant="one_by_one", key="speedup_vs_datasketch", records=ALL, parallel=False),
    Contestant(module="datasketch", variant="bulk", key=None, records=ALL, parallel=False),
    Contestant(module="rensa", variant="deduplicator", key="speedup_vs_rensa", records=ALL, parallel=True),
    Contestant(module="rensa", variant="cminhash", key=None, records=ALL, parallel=True),
    Contestant(module="rensa", variant="flags", key=None, records=ALL, parallel=True),
    Contestant(
        module="text_dedup", variant="sha1", key="speedup_vs_text_dedup", records=(2_000, 50_000), parallel=True
    ),
    Contestant(module="text_dedup", variant="xxh3", key=None, records=(2_000, 50_000), parallel=True),
    Contestant(
        module="datatrove", variant="plain", key="speedup_vs_datatrove_plain", records=(2_000, 50_000), parallel=True
    ),
    Contestant(
        module="datatrove", variant="shipped", key="speedup_vs_datatrove", records=(2_000, 20_000), parallel=True
    ),
)


class Race:
    """Runs contestants on parts of one corpus and keeps what they say.

    Parameters
    ----------
    corpus : its first n records are the part of n records.
    folder : for the files.
    deadline : ``time.monotonic()`` after which nothing is started, or None.
    """

    def __init__(self, corpus: Corpus, folder: Path, deadline: float | None) -> None:
        self.frame = pl.DataFrame({"id": corpus.ids, "text": corpus.texts})
        self.folder, self.deadline = folder, deadline
        self.runs: list[dict[str, Any]] = []
        self.reasons: dict[str, str] = {}

    def part(self, records: int) -> Path:
        """File of the first records."""
        path = self.folder / f"{min(records, len(self.frame))}.parquet"
        if not path.exists():
            self.frame.head(records).write_parquet(path)
        return path

    def run(self, contestant: Contestant, path: Path, workers: int) -> dict[str, Any] | None:
        """One run; its figures, or None with the reason kept."""
        if contestant.name in self.reasons:
            return None
        if contestant is not OURS and not setup.ready(contestant.module):
            self.reasons[contestant.name] = "no environment; run python -m benchmarks.peers.setup"
            return None
        left = None if self.deadline is None else self.deadline - time.monotonic()
        if left is not None and left <= 0:
            self.reasons[contestant.name] = "no time left; run without --quick"
            return None
        figures = execute(contestant, path, self.folder / "removed.json", workers, left)
        if isinstance(figures, str):
            self.reasons[contestant.name] = figures
            print(f"{contestant.name}: {figures}", flush=True)
            return None
        figures |= {"name": contestant.name, "workers": workers}
        self.runs.append(figures)
        print(
            f"  {contestant.name:<22} {workers} worker{'s' * (workers > 1):<2} {figures['records']:>8,} records "
            f"{figures['seconds']:>8.2f} s {figures['cpu_seconds'] or float('nan'):>8.2f} s CPU",
            flush=True,
        )
        return figures

    def best(self, contestant: Contestant, records: int, workers: int, field: str) -> float | None:
        """The least seconds of all rounds."""
        wanted = (contestant.name, workers, records)
        found = [run[field] for run in self.runs if (run["name"], run["workers"], run["records"]) == wanted]
        return min(found) if found and None not in found else None

    def ratio(self, peer: Contestant, records: int, workers: int, field: str = "seconds") -> float | None:
        """How many times as fast ours is, on the same file with as many workers."""
        theirs, own = (self.best(one, records, workers, field) for one in (peer, OURS))
        return theirs / own if theirs is not None and own is not None else None


def execute(
    contestant: Contestant, path: Path, removed: Path, workers: int, timeout: float | None
) -> dict[str, Any] | str:
    """Run a contestant's script in its own environment: its figures, or why there are none."""
    python = sys.executable if contestant is OURS else str(setup.interpreter(contestant.module))
    command = [python, "-m", f"benchmarks.peers.{contestant.module}", str(path), str(removed)]
    command += ["--workers", str(workers), "--variant", contestant.variant]
    limits = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS", "POLARS_MAX_THREADS", "NUMBA_NUM_THREADS")
    environment = os.environ | dict.fromkeys(limits, str(workers)) | {"PYTHONHASHSEED": "0"}
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return "no time left; run without --quick"
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def race(corpus: Corpus, folder: Path, options: argparse.Namespace, deadline: float | None) -> Race:
    """Ours and every peer in turn, several rounds with one worker each and one with two."""
    contest = Race(corpus, folder, deadline)
    full = not options.quick
    peers = [peer for peer in PEERS if full or peer.key]
    sizes = sorted({min(peer.records[full], len(corpus.ids)) for peer in peers}, reverse=True)
    for round_number in range(options.rounds if full else 1):
        print(f"round {round_number + 1}")
        for size in sizes:
            contest.run(OURS, contest.part(size), 1)
            for peer in peers:
                if min(peer.records[full], len(corpus.ids)) == size:
                    contest.run(peer, contest.part(size), 1)
    print("two threads or processes")
    for size in sizes if full else sizes[:1]:
        contest.run(OURS, contest.part(size), 2)
        for peer in peers:
            if full and peer.key and peer.parallel and min(peer.records[full], len(corpus.ids)) == size:
                contest.run(peer, contest.part(size), 2)
    return contest


def print_ratios(contest: Race) -> None:
    """The table of ratios."""

    def number(value: float | None, shape: str) -> str:
        return "-" if value is None else format(value, shape)

    print(
        f"\n{'':<22} {'workers':>7} {'records':>8} {'records/s':>10} {'MB peak':>8} {'removed':>8}  ours is faster by"
    )
    shown = dict.fromkeys((run["name"], run["workers"], run["records"]) for run in contest.runs)
    for contestant in (OURS, *PEERS):
        for name, workers, records in shown:
            if name != contestant.name:
                continue
            some = next(
                run for run in contest.runs if (run["name"], run["workers"], run["records"]) == (name, workers, records)
            )
            seconds = contest.best(contestant, records, workers, "seconds") or float("nan")
            wall, cpu = (contest.ratio(contestant, records, workers, field) for field in ("seconds", "cpu_seconds"))
            print(
                f"{name:<22} {workers:>7} {records:>8,} {records / seconds:>10,.0f} {some['peak_rss_mb']:>8,.0f} "
                f"{some['removed']:>8,}  {number(wall, '.1f'):>6} times, {number(cpu, '.1f'):>6} in CPU time"
            )
    for name, reason in contest.reasons.items():
        print(f"{name:<22} {reason}")
    own = [run for run in contest.runs if run["name"] == OURS.name]
    if own:
        slowest = max(run["warm_up_seconds"] for run in own)
        print(f"Not counted for ours: up to {slowest:.1f} s for compiling or loading kernels and the character table.")
    for contestant in (OURS, *PEERS):
        records = {run["records"] for run in contest.runs if (run["name"], run["workers"]) == (contestant.name, 2)}
        for size in sorted(records):
            one, two = (contest.best(contestant, size, workers, "seconds") for workers in (1, 2))
            if one and two:
                print(f"Two workers make {contestant.name} {one / two:.2f} times as fast on {size:,} records.")


def sampled(corpus: Corpus, planted: pl.DataFrame, size: int, rng: np.random.Generator) -> pl.DataFrame:
    """Planted records, natural families (distinct texts with the same first five words), and others at random.

    Returns
    -------
    ``id``, ``text``, ``kind``, ``family``, from the best keeper down: longest first, then by id.
    """
    frame = pl.DataFrame({"id": corpus.ids, "text": corpus.texts}).unique("text", keep="first", maintain_order=True)
    words = pl.col("text").str.to_lowercase().str.extract_all(r"\w+").list
    frame = frame.with_columns(start=words.head(5).list.join(" "))
    related = frame.with_columns(size=pl.len().over("start")).filter(pl.col("size").is_between(2, 60))
    starts = related["start"].unique(maintain_order=True)
    place = pl.DataFrame({"start": starts, "place": rng.permutation(len(starts))})
    related = related.join(place, on="start").sort("place", "id").head((size - len(planted)) // 2)
    others = frame.filter(~pl.col("id").is_in(related["id"].implode()))
    others = others[rng.permutation(len(others))[: max(0, size - len(planted) - len(related))]]
    nothing = {"kind": pl.lit("natural"), "family": pl.lit(None, pl.Int64)}
    parts = [planted, *(part.select("id", "text").with_columns(**nothing) for part in (related, others))]
    return pl.concat(parts).sort(pl.col("text").str.len_chars(), "id", descending=[True, False])


@dataclass(frozen=True)
class Truth:
    """Everything measured about a sample.

    Parameters
    ----------
    sample : n records from the best keeper down.
    matrix : (n, shingles).
    first, second, similarity : every pair from 0.5.
    distinct : (n,) bool, first of its normalized text: what the exact stage leaves.
    """

    sample: pl.DataFrame
    matrix: Any
    first: np.ndarray
    second: np.ndarray
    similarity: np.ndarray
    distinct: np.ndarray

    @classmethod
    def of(cls, sample: pl.DataFrame) -> "Truth":
        """Measure all pairs."""
        matrix = truth.shingle_matrix(sample["text"], CONFIG)
        folded = sample.select(normalize(pl.col("text")))["text"]
        return cls(sample, matrix, *truth.similar_pairs(matrix), folded.is_first_distinct().to_numpy())

    def positions(self, ids: pl.Series) -> np.ndarray:
        """Rows of ids."""
        places = pl.DataFrame({"id": self.sample["id"], "place": np.arange(len(self.sample))})
        return ids.alias("id").to_frame().join(places, on="id", how="left", maintain_order="left")["place"].to_numpy()

    def measured(self, verdicts: Verdicts) -> np.ndarray:
        """(num_pairs,) bool: which pairs ours compared."""
        number = len(self.sample)
        ends = np.sort(np.stack([self.positions(verdicts.pairs[name]) for name in ("record_id", "keeper_id")]), axis=0)
        found: np.ndarray = np.isin(self.first * number + self.second, ends[0] * number + ends[1])
        return found

    def final(self, verdicts: Verdicts) -> np.ndarray:
        """(n,) final keepers."""
        return truth.final_keepers(self.sample["id"].to_list(), dict(verdicts.removed.iter_rows()))


def judge(known: Truth, seeds: Sequence[int]) -> dict[str, Any]:
    """Run ours on the sample and print how it stands to the truth; figures for the last line."""
    ids, texts = known.sample["id"], known.sample["text"]
    threshold = CONFIG.threshold
    answers = [ours(ids, texts, dataclasses.replace(CONFIG, seed=seed)) for seed in seeds]
    distinct = known.distinct[known.first] & known.distinct[known.second]
    similarity = known.similarity[distinct]
    found = np.concatenate([known.measured(one)[distinct] for one in answers])
    every = np.tile(similarity, len(seeds))
    bins = truth.recall_bins(every, found, bands=CONFIG.bands, rows=CONFIG.rows)
    print(f"\n{'Jaccard':<12} {'pairs':>7} {'recall':>8} {'theory':>8}   mean of {len(seeds)} seeds, texts that differ")
    for one in bins:
        if one.pairs:
            mark = "" if one.low >= threshold else "   signatures unlike enough are not measured"
            print(
                f"{one.low:.2f} to {one.low + truth.BIN_WIDTH:.2f} {one.pairs // len(seeds):>7,} "
                f"{one.found / one.pairs:>8.4f} {one.expected / one.pairs:>8.4f}{mark}"
            )
    above = every >= threshold
    expected = truth.candidate_probabilities(every[above], bands=CONFIG.bands, rows=CONFIG.rows).sum()
    answer, final = answers[0], known.final(answers[0])
    claimed = answer.pairs.filter(pl.col("jaccard") >= threshold)
    ends = [known.positions(claimed[name]) for name in ("record_id", "keeper_id")]
    right = truth.jaccard(known.matrix, *ends) >= threshold
    similar = known.similarity >= threshold
    pairs = known.first[similar], known.second[similar]
    true = truth.keepers(len(ids), *pairs)
    by_rule = truth.agreement(final, true)
    by_chains = truth.agreement(final, truth.components(len(ids), *pairs))
    sizes = shingle(texts, CONFIG).lengths == np.diff(known.matrix.indptr)
    gone = final != np.arange(len(final))
    figures = {
        "recall_vs_theory": round(float(found[above].sum() / expected), 4) if above.any() else None,
        "pair_precision": round(float(right.mean()), 6) if len(right) else None,
        "wrongful_removals": truth.wrongful_removals(known.matrix, final, threshold),
        "b_cubed_f1": round(by_rule.f1, 4),
        "ari": round(by_rule.ari, 4),
        "largest_cluster": truth.largest_cluster(final),
        "pairs_left": truth.removal_quality(len(ids), *pairs, gone)[1],
        "pairs_similar": int(similar.sum()),
    }
    print(
        f"{figures['pairs_similar']:,} pairs at {threshold} or above; of {figures['pairs_left']:,} both records stay. "
        f"Recall is {figures['recall_vs_theory']} of theory, pair precision {figures['pair_precision']}, wrongful "
        f"removals {figures['wrongful_removals']}.\n"
        f"B-cubed F1 {by_rule.f1:.4f} (precision {by_rule.precision:.4f}, recall {by_rule.recall:.4f}) and ARI "
        f"{by_rule.ari:.4f} against our rule on all pairs;\n{by_chains.f1:.4f} and {by_chains.ari:.4f} against "
        f"connected components, which chains make larger. Largest cluster {figures['largest_cluster']}, by the truth "
        f"{truth.largest_cluster(true)}.\n"
        f"Shingle sets of the reference and the kernel are of one size in {sizes.mean():.2%} of records."
    )
    print("Funnel: " + ", ".join(f"{count:,} {step}" for step, count in answer.funnel.items()))
    print_kinds(known, gone)
    return figures


def print_kinds(known: Truth, gone: np.ndarray) -> None:
    """What became of each kind of planted pair."""
    print(f"\n{'planted':<20} {'pairs':>6} {'mean J':>7} {'J >= 0.8':>9} {'of these resolved':>18}")
    rows = known.sample.select("kind", "family").with_row_index("row").drop_nulls("family")
    pairs = rows.join(rows, on="family", suffix="_other").filter(pl.col("row") < pl.col("row_other"))
    kind = pl.when(pl.col("kind") == "original").then(pl.col("kind_other")).otherwise(pl.col("kind"))
    pairs = pairs.with_columns(kind=kind)
    first, second = pairs["row"].to_numpy().astype(np.int64), pairs["row_other"].to_numpy().astype(np.int64)
    similarity = truth.jaccard(known.matrix, first, second)
    pairs = pairs.with_columns(
        similarity=similarity, above=similarity >= CONFIG.threshold, resolved=gone[first] | gone[second]
    )
    for name in (*EDITS, *CJK_EDITS, *LOOK_ALIKES):
        group = pairs.filter(pl.col("kind") == name)
        if not len(group):
            print(f"{name:<20} {0:>6}   no such text in the corpus")
            continue
        above = group.filter("above")
        print(
            f"{name:<20} {len(group):>6,} {group['similarity'].to_numpy().mean():>7.3f} {len(above):>9,} "
            f"{int(above['resolved'].sum()):>18,}{'   look-alikes' if name in LOOK_ALIKES else ''}"
        )


def judge_peers(known: Truth, contest: Race) -> dict[str, dict[str, int]]:
    """Removals of the peers on the sample: how many resemble nothing, and what they leave."""
    similar = known.similarity >= CONFIG.threshold
    pairs = known.first[similar], known.second[similar]
    path, removed = contest.folder / "sample.parquet", contest.folder / "sample.json"
    order = np.random.default_rng(SEED).permutation(len(known.sample))
    known.sample.select("id", "text")[order].write_parquet(path)
    figures = {}
    print(f"\n{'on the sample':<22} {'removed':>8} {'like nothing kept or removed':>29} {'similar pairs left':>19}")
    for contestant in (OURS, *PEERS):
        done = contest.reasons.get(contestant.name) or execute(contestant, path, removed, 1, None)
        if isinstance(done, str):
            print(f"{contestant.name:<22} {done}")
            continue
        gone = known.sample["id"].is_in(json.loads(removed.read_text(encoding="utf-8"))).to_numpy()
        unlike, left = truth.removal_quality(len(gone), *pairs, gone)
        figures[contestant.name] = {"removed": int(gone.sum()), "like_nothing": unlike, "pairs_left": left}
        print(f"{contestant.name:<22} {int(gone.sum()):>8,} {unlike:>29,} {left:>19,}")
    print("By our shingles at 0.8; datatrove, which makes numbers equal, and text-dedup have their own.")
    return figures


def options() -> argparse.Namespace:
    """What may be chosen."""
    parser = options_parser(__doc__ or "")
    parser.add_argument("--corpus", type=Path, metavar="PATH", help=f"summaries, else of ${SUMMARIES_VARIABLE}")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="data sets with Korean text")
    parser.add_argument("--records", type=int, default=ALL[1], help="of the corpus, in a full run")
    parser.add_argument("--rounds", type=int, default=3, help="of a full run")
    given = parser.parse_args()
    if given.corpus is None and os.environ.get(SUMMARIES_VARIABLE):
        given.corpus = Path(os.environ[SUMMARIES_VARIABLE])
    return given


def main() -> None:
    """Race, then judge."""
    given = options()
    deadline = time.monotonic() + QUICK_SECONDS if given.quick else None
    if not given.quick:
        for name in setup.REQUIREMENTS:
            if not setup.ready(name) and (reason := setup.install(name)):
                print(f"{name}: {reason}")
    rng = np.random.default_rng(SEED)
    records = QUICK_RECORDS if given.quick else given.records
    corpus = mixed(records, rng, summaries_path=given.corpus, data=given.data)
    print(corpus.describe())
    per_kind, size, seeds = (15, 1_500, range(1, 6)) if given.quick else (60, 5_000, range(1, 11))
    known = Truth.of(sampled(corpus, plant(corpus.texts, licence_headers(), rng, per_kind=per_kind), size, rng))
    with tempfile.TemporaryDirectory() as folder:
        figures = judge(known, seeds)
        contest = race(corpus, Path(folder), given, deadline)
        print_ratios(contest)
        on_sample = {} if given.quick else judge_peers(known, contest)
    speeds: dict[str, Any] = {}
    reasons = {}
    for peer in PEERS:
        if peer.key:
            records = min(peer.records[not given.quick], len(corpus.ids))
            for key, field in ((peer.key, "seconds"), (f"cpu_{peer.key}", "cpu_seconds")):
                ratio = contest.ratio(peer, records, 1, field)
                speeds[key] = None if ratio is None else round(ratio, 2)
            if peer.name in contest.reasons:
                reasons[peer.key] = contest.reasons[peer.name]
    details: dict[str, Any] = {"corpus": corpus.name, "records": len(corpus.ids), "seed": SEED, "reasons": reasons}
    if given.keep:
        details |= {"runs": contest.runs, "on_sample": on_sample}
    report("dedup", given, speeds | figures | details, ("numba", "numpy", "polars", "xxhash"))


if __name__ == "__main__":
    main()
