"""Quality scorers at telling real text from text that looks like it: area under the ROC curve, and MB/s of one core.

Real are docstrings of installed packages, one a record, from packages that the models have not read. The others are
made of the same texts: words in random order, words drawn by their frequency (a machine's, order 1), text by a bigram
model (a machine's, order 2), letters of each word shuffled, lists of links as navigation bars are, and a template
filled in. The classifier is trained on good and bad examples made of other packages' texts, two thirds of the kinds
mixed; figures are of each kind alone. KenLM reads a model of the same reference that kaldingram counted
(``python -m benchmarks.peers.setup kenlm``); without it, its column is left out.
"""

import json
import subprocess
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.corpora import docstrings
from benchmarks.dedup_semantic import CACHE
from benchmarks.peers import setup
from benchmarks.reporting import arguments, report
from curation.dedup.exact import exact_hash
from curation.encoders import ENCODERS
from curation.quality import SCORERS, Model
from curation.quality.classifier import examples_of, fit_classifier
from curation.quality.perplexity import ReferenceConfig, count_reference

SEED = 1
Score = Callable[[pl.Series], np.ndarray]
KENLM = Path(__file__).parent / "peers" / "kenlm.py"


def real_texts(count: int, rng: np.random.Generator) -> pl.Series:
    """Distinct docstrings of 20 words and more, on one line each."""
    _, texts = docstrings()
    lines = texts.str.replace_all(r"\s+", " ").str.strip_chars()
    lines = lines.filter(lines.str.count_matches(r"\S+").is_between(20, 300))
    frame = pl.DataFrame({"text": lines, "hash": exact_hash(lines)}).unique("hash").sort("hash")
    return frame["text"][rng.permutation(frame.height)[:count]]


def shuffled(texts: Sequence[str], rng: np.random.Generator) -> list[str]:
    """The same words in random order."""
    return [" ".join(rng.permutation(text.split()).tolist()) for text in texts]


def letters(texts: Sequence[str], rng: np.random.Generator) -> list[str]:
    """The letters of each word in random order."""
    return [" ".join("".join(rng.permutation(list(word)).tolist()) for word in text.split()) for text in texts]


def drawn(texts: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Words by their frequency."""
    words = np.array([word for text in texts for word in text.split()])
    return [" ".join(rng.choice(words, len(text.split())).tolist()) for text in texts]


def chained(texts: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Each word by what followed the word before it."""
    following = defaultdict(list)
    for text in texts:
        words = text.split()
        for first, second in pairwise(words):
            following[first].append(second)
    starts = list(following)
    made = []
    for text in texts:
        word = starts[int(rng.integers(len(starts)))]
        line = [word]
        for _ in range(len(text.split()) - 1):
            after = following.get(word) or starts
            word = after[int(rng.integers(len(after)))]
            line.append(word)
        made.append(" ".join(line))
    return made


def navigation(texts: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Frequent words as links in a row."""
    counted = Counter(word for text in texts for word in text.split() if word.isalpha() and len(word) > 3)
    words = np.array([word.title() for word, _ in counted.most_common(400)])
    return [" | ".join(rng.choice(words, max(8, len(text.split()) // 3)).tolist()) for text in texts]


def template(texts: Sequence[str], rng: np.random.Generator) -> list[str]:
    """A page of a shop, with a few words of the text."""
    made = []
    for text in texts:
        words = rng.choice(text.split(), 4).tolist()
        made.append(
            f"Best {words[0]} deals 2026! Buy {words[1]} online at the lowest price, free shipping on all {words[2]} "
            f"orders over $50. Click here to subscribe to our {words[3]} newsletter and save 20% today. Add to cart."
        )
    return made


KINDS = {
    "shuffled words": shuffled,
    "shuffled letters": letters,
    "words by frequency": drawn,
    "bigram text": chained,
    "navigation": navigation,
    "template": template,
}


def classifier_of(good: pl.Series, encoder: str, rng: np.random.Generator) -> Score:
    """A classifier of the good texts and of bad ones of every kind made of them."""
    share = len(good) // len(KINDS)
    listed = good.to_list()
    bad = [
        text
        for number, make in enumerate(KINDS.values())
        for text in make(listed[number * share : (number + 1) * share], rng)
    ]
    examples = examples_of(good, pl.Series(bad))

    def encode(_: str, texts: Sequence[str]) -> np.ndarray:
        return ENCODERS[encoder].member(texts, CACHE)

    version = ENCODERS[encoder].version
    found, measured = fit_classifier(
        examples, encode("", examples.texts.to_list()), encoder=encoder, encoder_version=version
    )
    told = f"cross-validated AUROC {measured.auroc:.3f}, calibration error {measured.calibration_error:.3f}"
    print(f"  classifier/{encoder}: {told}")
    return SCORERS["classifier"].member(Model(raw=found.to_bytes(), encode=encode))


def perplexity_of(reference: pl.Series, unit: str) -> Score:
    """Low perplexity is good: its negative."""
    began = time.perf_counter()
    raw = count_reference(reference, ReferenceConfig(unit=unit))
    seconds = time.perf_counter() - began
    size = int(reference.str.len_bytes().sum()) / 1e6
    print(f"  perplexity/{unit}: counted {size:.1f} MB in {seconds:.1f} s, model {len(raw) / 1e6:.1f} MB")
    score = SCORERS["perplexity"].member(Model(raw=raw))
    return lambda texts: -np.nan_to_num(score(texts), nan=1e9)


def kenlm_scores(reference: pl.Series, sets: dict[str, pl.Series]) -> tuple[dict[str, np.ndarray], float] | None:
    """Its perplexities of each set, negative, and its MB/s of text; None where it is not installed."""
    if not setup.ready("kenlm"):
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "given.json"
        path.write_text(
            json.dumps({"reference": reference.to_list(), "sets": {k: v.to_list() for k, v in sets.items()}})
        )
        done = subprocess.run(
            [str(setup.interpreter("kenlm")), "-P", str(KENLM), str(path)], capture_output=True, text=True, check=True
        )
    found = json.loads(done.stdout)
    return {name: -np.array(values) for name, values in found["scores"].items()}, found["mb_per_second"]


def auroc(good: np.ndarray, bad: np.ndarray) -> float:
    """Chance that a real text scores higher than one of the others."""
    from sklearn.metrics import roc_auc_score

    return round(float(roc_auc_score([1] * len(good) + [0] * len(bad), np.concatenate([good, bad]))), 4)


def main() -> None:
    """Train, score, print the table."""
    options = arguments(str(__doc__))
    rng = np.random.default_rng(SEED)
    num_reference, num_test, num_examples = (6_000, 600, 900) if options.quick else (20_000, 2_000, 4_000)
    texts = real_texts(num_reference + num_test + num_examples, rng)
    test, examples = texts[:num_test], texts[num_test : num_test + num_examples]
    reference = texts[num_test + num_examples :]
    print(
        f"{len(reference):,} reference texts, {len(test):,} of each kind to tell apart, {len(examples):,} good examples"
    )
    scorers: dict[str, Score] = {
        "perplexity/word": perplexity_of(reference, "word"),
        "perplexity/character": perplexity_of(reference, "character"),
        "classifier/static": classifier_of(examples, "static", rng),
        "classifier/hashing": classifier_of(examples, "hashing", rng),
    }
    sets = {"real": test} | {kind: pl.Series(make(test.to_list(), rng)) for kind, make in KINDS.items()}
    size = int(test.str.len_bytes().sum()) / 1e6
    figures: dict[str, dict[str, float]] = {}
    speeds: dict[str, float] = {}
    for name, score in scorers.items():
        score(test[:64])
        began = time.process_time()
        real = score(test)
        speeds[name] = round(size / (time.process_time() - began), 2)
        figures[name] = {kind: auroc(real, score(sets[kind])) for kind in KINDS}
    peer = kenlm_scores(reference, sets)
    if peer is not None:
        figures["KenLM"] = {kind: auroc(peer[0]["real"], peer[0][kind]) for kind in KINDS}
        speeds["KenLM"] = round(peer[1], 2)
    print(f"\n{'':22}" + "".join(f"{name:>22}" for name in figures))
    for kind in KINDS:
        print(f"{kind:22}" + "".join(f"{one[kind]:>22.3f}" for one in figures.values()))
    means = {name: round(float(np.mean(list(one.values()))), 4) for name, one in figures.items()}
    print(f"{'mean':22}" + "".join(f"{one:>22.3f}" for one in means.values()))
    print(f"{'MB/s':22}" + "".join(f"{one:>22.2f}" for one in speeds.values()))
    last = {"auroc": means, "auroc_by_kind": figures, "mb_per_second": speeds}
    report("quality", options, last, ("numpy", "polars", "numba", "scikit-learn"))


if __name__ == "__main__":
    main()
