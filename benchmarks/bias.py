"""Whether the tables find a planted bias and keep quiet otherwise, balance hits its mix, and what scores are worth.

- **found**: real docstrings, of which some are made to mention a group, pass rules that remove that group more often
  than the others by a known ratio (1.5 to 4), or by none. How many of the planted rules are called, and how many of the
  innocent ones wrongly, over all groups.
- **balance**: largest distance between the share that a value has and the one that was wanted, for each action, and for
  what a training stream draws by the weights.
- **mentions**: MB/s of all terms of all languages in one pass, against one regular expression a group with the same
  words (no particles), both on one thread.
- **toxicity** (``--hatecheck FILE``, test_suite_cases.csv of HateCheck, Roettger et al. 2021): area under the ROC
  curve, recall and false positives of both measures; false positives on neutral or positive mentions of identity.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("POLARS_MAX_THREADS", "1")

import numpy as np
import polars as pl

from benchmarks.corpora import docstrings
from benchmarks.reporting import options_parser, report
from curation.balance import Balance, balance
from curation.bias.identity import IdentityTerms
from curation.bias.removal import ANY_GROUP, count_removals, disparities
from curation.rules import measure
from training.stream import Stream, StreamManifest

SEED = 1
BASE_RATE = 0.05
"""Share of the records that a rule removes of everybody else."""
PLANTED = {
    "gender/women": "A woman asked for it.",
    "religion/muslims": "무슬림은 그렇게 말했다.",
    "nationality/japanese": "彼は日本人です。",
    "disability/disabled": "Disabled people use it.",
    "age/older": "노인들에게도 쉽다.",
    "ethnicity/black": "Black people wrote it.",
}
RATIOS = (1.0, 1.5, 2.0, 4.0)
NEUTRAL = ("ident_neutral_nh", "ident_pos_nh")


def planted(texts: pl.Series, rng: np.random.Generator, share: float) -> tuple[pl.Series, np.ndarray[Any, Any]]:
    """Texts of which a share each mentions one of the planted groups, and which (-1: none)."""
    which = rng.choice(len(PLANTED) + 1, size=len(texts), p=[1 - share * len(PLANTED)] + [share] * len(PLANTED)) - 1
    sentences = ["", *(f"\n{one}" for one in PLANTED.values())]
    ends = pl.Series([sentences[one + 1] for one in which])
    return texts + ends, which


def found(texts: pl.Series, terms: IdentityTerms, rounds: int) -> dict[str, Any]:
    """Called among planted and among innocent rules."""
    rng = np.random.default_rng(SEED)
    hits: dict[float, list[bool]] = {ratio: [] for ratio in RATIOS}
    wrong = []
    for _ in range(rounds):
        made, which = planted(texts, rng, 0.02)
        identity = terms.index.mentioned(made)
        for place, group in enumerate(PLANTED):
            for ratio in RATIOS:
                rate = np.where(which == place, BASE_RATE * ratio, BASE_RATE)
                removed = rng.random(len(made)) < rate
                records = pl.DataFrame({"kept": ~removed, "identity": identity}).with_columns(
                    failed=pl.when("kept").then(pl.lit([], pl.List(pl.String))).otherwise(pl.lit(["planted"])),
                    language=pl.lit("en"), source=pl.lit("docstrings"), label=pl.lit(None, pl.String),
                )  # fmt: skip
                table = disparities(count_removals(records)).filter(
                    (pl.col("rule") == "planted") & (pl.col("value") != ANY_GROUP)
                )
                called = table.with_columns(pl.col("verdict") == "more").select("value", "verdict")
                hits[ratio].append(
                    bool(called.filter(pl.col("value") == group)["verdict"].fill_null(value=False).any())
                )
                others = called.filter(pl.col("value") != group)["verdict"].fill_null(value=False)
                wrong += others.to_list()
    return {
        "planted_found": {f"{ratio:g}": round(float(np.mean(hits[ratio])), 3) for ratio in RATIOS if ratio > 1},
        "false_calls": round(float(np.mean(wrong + hits[1.0])), 5),
        "compared": len(wrong) + len(hits[1.0]),
    }


def balanced(number: int) -> dict[str, float]:
    """Largest distance from the wanted share."""
    rng = np.random.default_rng(SEED)
    names, shares = ["a", "b", "c", "d"], [0.7, 0.2, 0.08, 0.02]
    values = pl.Series("value", rng.choice(names, size=number, p=shares))
    ids = pl.Series("id", [f"{row:032x}-0" for row in range(number)])
    errors = {}
    target = {"a": 0.25, "b": 0.35, "c": 0.25, "d": 0.15}
    for action in ("resample", "reweight"):
        decided, table = balance(ids, values, Balance(by="label", action=action, target=target))
        errors[action] = max(abs(one["share_after"] - target[one["value"]]) for one in table)
    capped = balance(ids, values, Balance(by="label", action="cap", cap=0.4))[1]
    errors["cap"] = max(0.0, max(one["share_after"] for one in capped) - 0.4)
    frame = pl.DataFrame({"id": ids, "hash": ids, "weight": decided["weight"]}).with_columns(difficulty=0.5)
    steps, batch = number // 64, 64
    stream = Stream(
        manifest=StreamManifest.build(frame),
        pacing="random",
        options={},
        seed=SEED,
        total_steps=steps,
        global_batch_size=batch,
    )
    drawn = values.gather(np.concatenate([stream.batch(step) for step in range(steps)]))
    errors["stream"] = max(abs((drawn == name).mean() - share) for name, share in target.items())  # type: ignore[operator]
    return {name: round(float(error), 5) for name, error in errors.items()}


def speed(texts: pl.Series, terms: IdentityTerms) -> dict[str, float]:
    """MB/s of finding all terms, and how many times that of a regular expression a group."""
    size = int(texts.str.len_bytes().sum()) / 1e6
    _ = terms.index.patterns
    groups = {
        name: rf"(?i)\b(?:{'|'.join(pl.select(pl.lit(one).str.escape_regex()).item() for one in words)})\b"
        for name, words in terms.index.groups.items()
    }

    def one_by_one() -> None:
        texts.alias("text").to_frame().select(
            pl.col("text").str.contains(one).alias(name) for name, one in groups.items()
        )

    ours = _fastest(lambda: terms.index.mentioned(texts))
    return {"mentions_mb_per_second": round(size / ours, 1), "speedup_vs_regex": round(_fastest(one_by_one) / ours, 2)}


def _fastest(run: Callable[[], Any], rounds: int = 3) -> float:
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)


def toxicity(path: Path, terms: IdentityTerms) -> dict[str, Any]:
    """What both measures are worth on HateCheck."""
    from sklearn.metrics import roc_auc_score

    cases = pl.read_csv(path)
    hateful = (cases["label_gold"] == "hateful").to_numpy()
    neutral = cases["functionality"].is_in(NEUTRAL).to_numpy()
    values = measure(cases["test_case"], ["toxicity", "toxic_term_count"]).fill_null(0.0)
    figures: dict[str, Any] = {}
    for name, thresholds in (("toxicity", (0.5, 0.9)), ("toxic_term_count", (0.5,))):
        value = values[name].to_numpy()
        figures[name] = {"auroc": round(float(roc_auc_score(hateful, value)), 3)}
        for threshold in thresholds:
            flagged = value > threshold
            figures[name][f"above {threshold:g}"] = {
                "recall": round(float(flagged[hateful].mean()), 3),
                "false_positives": round(float(flagged[~hateful].mean()), 3),
                "false_positives_on_identity": round(float(flagged[neutral].mean()), 3),
            }
    scored = cases.select("target_ident").with_columns(values["toxicity"]).filter(neutral)
    figures["false_positives_by_target"] = {
        one["target_ident"]: round(one["toxicity"], 3)
        for one in scored.group_by("target_ident")
        .agg((pl.col("toxicity") > 0.5).mean())
        .sort("target_ident")
        .to_dicts()
    }
    named = cases.filter(pl.col("target_ident").is_not_null())
    mentioned = terms.index.mentioned(named["test_case"]).list.len() > 0
    figures["targets_mentioned"] = round(float(mentioned.mean()), 3)  # type: ignore[arg-type]
    return figures


def harmless(path: Path) -> dict[str, float]:
    """Share of the lines of a file without offence that each measure takes for it."""
    values = measure(pl.Series(path.read_text("utf-8").splitlines()), ["toxicity", "toxic_term_count"]).fill_null(0.0)
    measured = (("toxicity", 0.5), ("toxicity", 0.9), ("toxic_term_count", 0.0))
    shares = {f"{name} above {limit:g}": float((values[name].to_numpy() > limit).mean()) for name, limit in measured}
    return {"lines": values.height} | {name: round(share, 4) for name, share in shares.items()}


def main() -> None:
    """Measure and print."""
    parser = options_parser(__doc__ or "")
    parser.add_argument("--hatecheck", type=Path, help="test_suite_cases.csv of HateCheck")
    parser.add_argument("--harmless", type=Path, help="a file of texts without offence, one a line, e.g. news")
    options = parser.parse_args()
    terms = IdentityTerms.configured()
    texts = docstrings()[1].unique(maintain_order=True)
    texts = texts.filter(texts.str.len_chars() < 4000).head(8_000 if options.quick else 40_000)
    texts = texts.filter(terms.index.mentioned(texts).list.len() == 0)
    figures: dict[str, Any] = {"records": len(texts)}
    figures |= found(texts, terms, 1 if options.quick else 5)
    figures["balance_error"] = balanced(20_000 if options.quick else 200_000)
    figures |= speed(texts.head(8_000), terms)
    if options.hatecheck is not None:
        figures["hatecheck"] = toxicity(options.hatecheck, terms)
    if options.harmless is not None:
        figures["harmless"] = harmless(options.harmless)
    for name, value in figures.items():
        print(f"{name:24} {value}")
    report("bias", options, figures, ("polars", "alt-profanity-check", "scikit-learn"))


if __name__ == "__main__":
    main()
