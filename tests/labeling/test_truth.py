"""Consensus: published data, independent implementations, memory, and what cannot be decided."""

import tracemalloc

import numpy as np
import pandas as pd
import polars as pl
import pytest
from cleanlab.multiannotator import get_label_quality_multiannotator, get_majority_vote_label
from crowdkit.aggregation import DawidSkene as CrowdKitDawidSkene
from crowdkit.aggregation import MajorityVote

from catalog.errors import ConfigError, DataError
from labeling import expectation
from labeling.annotations import Annotations
from labeling.consensus import Consensus, Evidence, NoClassifierError
from labeling.expectation import fit
from labeling.truth import TRUTH
from labeling.truth.dawid_skene import normalized
from tests.contracts.test_truth import crowd

# crowd-kit 1.4.2 does what the newest pandas warns of.
pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")

# Dawid and Skene (1979), table 1: patients; three answers of the first anaesthetist, then one each of four others.
ANAESTHETISTS = """
1111111 3334343 1122122 2223121 2223222 2223322 1222111 3333433 2222223 2322223 4444444 2223343 1111111 2223212 1211111
1112111 1111111 1111111 2222221 2221322 2222222 2222221 2223222 2212222 1111111 1111111 2322222 1111111 1111111 1121121
1111111 3333233 1111111 2222222 2223232 4334343 2212232 2323233 3333432 1111111 1111111 1212111 2322222 1211111 2222222
"""


def anaesthetists() -> Annotations:
    rows = [
        (f"{patient:02}", f"observer {max(1, place - 1)}", grade)
        for patient, grades in enumerate(ANAESTHETISTS.split())
        for place, grade in enumerate(grades)
    ]
    return Annotations.from_frame(pl.DataFrame(rows, schema=["item", "annotator", "label"], orient="row"))


def decide(name: str, evidence: Evidence, **options: float) -> Consensus:
    return TRUTH[name].member(evidence, TRUTH[name].configured(options))


def dense_em(counts: np.ndarray, passes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Equations 2.3 to 2.5 as they are printed, on (items, annotators, labels) counts of answers."""
    posterior = counts.sum(axis=1) / counts.sum(axis=(1, 2))[:, None]
    for _ in range(passes):
        shares = posterior.mean(axis=0)
        confusion = np.einsum("ij,ikl->kjl", posterior, counts)
        confusion /= confusion.sum(axis=2, keepdims=True)
        likelihood = np.prod(confusion[None] ** counts[:, :, None, :], axis=(1, 3)) * shares
        posterior = likelihood / likelihood.sum(axis=1, keepdims=True)
    return posterior, shares, confusion


def test_anaesthetists_as_by_the_printed_equations() -> None:
    given = anaesthetists()
    assert (given.num_items, given.num_annotators, len(given)) == (45, 5, 315)
    counts = np.zeros((45, 5, 4))
    np.add.at(counts, (given.item, given.annotator, given.label), 1)
    posterior, shares, confusion = dense_em(counts, 50)
    model = fit(given, normalized, max_iterations=50, tolerance=0.0)
    assert len(model.log_likelihood) == 50
    assert model.shares == pytest.approx(shares, abs=1e-9)
    assert model.confusion == pytest.approx(confusion, abs=1e-9)
    ((_, proba),) = model.proba(given)
    assert proba == pytest.approx(posterior, abs=1e-9)
    # The first patient got nothing but ones; the eleventh nothing but fours.
    assert proba.argmax(axis=1)[[0, 10]].tolist() == [0, 3]


def test_likelihood_never_falls() -> None:
    model = fit(anaesthetists(), normalized, max_iterations=100, tolerance=0.0)
    assert (np.diff(model.log_likelihood) >= -1e-9).all()


def frame_of(given: Annotations) -> pd.DataFrame:
    names = [given.labels[one] for one in given.label]
    return pd.DataFrame({"task": given.item, "worker": given.annotator, "label": names})


# Where an error rate goes to 0, crowd-kit holds it above and may end elsewhere: not so with these.
@pytest.mark.parametrize("seed", [2, 3])
def test_dawid_skene_is_that_of_crowd_kit(seed: int) -> None:
    evidence = crowd(seed, num_items=300, num_annotators=6)
    given = evidence.annotations
    theirs = CrowdKitDawidSkene(n_iter=60, tol=0).fit(frame_of(given))
    # Their first step takes the labels' shares from the votes, as ours does.
    model = fit(given, normalized, max_iterations=61, tolerance=0.0)
    ours = np.concatenate([proba for _, proba in model.proba(given)])
    assert ours == pytest.approx(theirs.probas_[list(given.labels)].to_numpy(), abs=2e-3)
    assert (decide("dawid_skene", evidence).label == ours.argmax(axis=1)).mean() > 0.99


def test_majority_is_that_of_crowd_kit_and_cleanlab_where_there_is_one() -> None:
    evidence = crowd(3, num_items=200)
    given = evidence.annotations
    found = decide("majority", evidence)
    clear = found.confidence > 0.5
    assert clear.sum() > 150
    theirs = MajorityVote().fit_predict(frame_of(given)).to_numpy()
    assert ([given.labels[one] for one in found.label[clear]] == theirs[clear]).all()
    assert (get_majority_vote_label(wide(given))[clear] == found.label[clear]).all()


def test_ties_go_to_whoever_agrees_more_with_all_others() -> None:
    rows = [(f"{item}", who, "x" if item % 2 else "y") for item in range(10) for who in ("good", "fine")]
    rows += [(f"{item}", "bad", "x") for item in range(10)]
    rows += [("tie", "good", "y"), ("tie", "bad", "x"), ("other", "bad", "y"), ("other", "fine", "x")]
    given = Annotations.from_frame(pl.DataFrame(rows, schema=["item", "annotator", "label"], orient="row"))
    found = decide("majority", Evidence(annotations=given))
    by_item = dict(zip(given.items, found.label, strict=True))
    assert (given.labels[by_item["tie"]], given.labels[by_item["other"]]) == ("y", "x")


def wide(given: Annotations) -> np.ndarray:
    table = np.full((given.num_items, given.num_annotators), np.nan)
    table[given.item, given.annotator] = given.label
    return table


@pytest.mark.parametrize("seed", [4, 5])
def test_crowdlab_is_that_of_its_authors(seed: int) -> None:
    evidence = crowd(seed, num_items=200)
    given = evidence.annotations
    theirs = get_label_quality_multiannotator(wide(given), evidence.probabilities(), verbose=False)
    found = decide("crowdlab", evidence)
    assert found.label.tolist() == theirs["label_quality"]["consensus_label"].tolist()
    assert found.confidence == pytest.approx(theirs["label_quality"]["consensus_quality_score"].to_numpy(), abs=1e-12)
    stats = theirs["annotator_stats"].sort_index()
    assert found.quality == pytest.approx(stats["annotator_quality"].to_numpy(), abs=1e-12)


def sparse_crowd(seed: int, num_items: int, answers: int) -> tuple[Evidence, np.ndarray]:
    """Two labels, a hundred annotators, a fifth of whom guess."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, num_items)
    skill = np.where(rng.random(100) < 0.2, 0.5, rng.uniform(0.75, 0.95, 100))
    item = np.repeat(np.arange(num_items), answers)
    annotator = np.concatenate([rng.choice(100, answers, replace=False) for _ in range(num_items)])
    label = np.where(rng.random(len(item)) < skill[annotator], truth[item], 1 - truth[item])
    given = Annotations.from_codes(
        item=item,
        annotator=annotator,
        label=label,
        items=pl.Series([str(one) for one in range(num_items)]),
        annotators=tuple(str(one) for one in range(100)),
        labels=("아니요", "예"),
    )
    good = 0.5 + 0.35 * (2 * truth - 1) * np.where(rng.random(num_items) < 0.9, 1, -1)
    return Evidence(annotations=given, proba=np.stack([1 - good, good], axis=1)), truth


def measured(name: str, num_items: int) -> tuple[float, float]:
    """Accuracy, and by how much the confidence exceeds it; means of eight crowds."""
    found = [sparse_crowd(seed, num_items, 3) for seed in range(8)]
    decided = [(decide(name, evidence), truth) for evidence, truth in found]
    accuracy = float(np.mean([(one.label == truth).mean() for one, truth in decided]))
    return accuracy, float(np.mean([one.confidence.mean() for one, _ in decided])) - accuracy


def test_whoever_knows_more_is_right_more_often() -> None:
    accuracy = {name: measured(name, 2000)[0] for name in TRUTH}
    assert accuracy["dawid_skene"] > accuracy["majority"] + 0.01
    assert accuracy["pooled_dawid_skene"] > accuracy["dawid_skene"] - 0.001
    assert accuracy["crowdlab"] > accuracy["majority"] + 0.02
    assert accuracy["classifier_dawid_skene"] > accuracy["crowdlab"]
    assert accuracy["classifier_dawid_skene"] > accuracy["pooled_dawid_skene"] + 0.02
    # Eighteen answers an annotator: what maximum likelihood makes of chance.
    assert measured("pooled_dawid_skene", 600)[0] > measured("dawid_skene", 600)[0] + 0.005


def test_confidence_means_what_it_says() -> None:
    assert abs(measured("pooled_dawid_skene", 2000)[1]) < 0.03
    assert measured("pooled_dawid_skene", 600)[1] < measured("dawid_skene", 600)[1] - 0.01


def test_a_useless_classifier_is_not_heard() -> None:
    evidence, _ = sparse_crowd(0, 600, 3)
    noise = np.random.default_rng(1).dirichlet([0.2, 0.2], 600)
    heard = decide("classifier_dawid_skene", Evidence(annotations=evidence.annotations, proba=noise))
    alone = decide("pooled_dawid_skene", evidence)
    assert (heard.label == alone.label).mean() > 0.98


def test_quality_finds_who_guesses() -> None:
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 2, 500)
    rows = [
        (f"{item:03}", who, "xy"[truth[item] if rng.random() < skill else rng.integers(2)])
        for item in range(500)
        for who, skill in (("good", 0.9), ("fine", 0.8), ("guesses", 0.0), ("also good", 0.9))
    ]
    given = Annotations.from_frame(pl.DataFrame(rows, schema=["item", "annotator", "label"], orient="row"))
    for name in ("majority", "dawid_skene", "pooled_dawid_skene"):
        quality = dict(zip(given.annotators, decide(name, Evidence(annotations=given)).quality, strict=True))
        assert quality["guesses"] < 0.62
        assert min(quality["good"], quality["also good"]) > 0.9
        assert quality["good"] == pytest.approx(0.95, abs=0.04) or name == "majority"


def test_without_a_classifier_methods_that_weigh_one_say_so() -> None:
    evidence = Evidence(annotations=crowd(1).annotations)
    for name in ("crowdlab", "classifier_dawid_skene"):
        with pytest.raises(NoClassifierError, match="there is no classifier; use"):
            decide(name, evidence)


def test_crowdlab_says_when_nobody_can_be_weighed() -> None:
    given = Annotations.from_frame(pl.DataFrame({"item": ["1", "2"], "annotator": ["a", "b"], "label": ["x", "y"]}))
    with pytest.raises(DataError, match="nobody can be weighed; use majority"):
        decide("crowdlab", Evidence(annotations=given, proba=np.full((2, 2), 0.5)))
    one = Annotations.from_frame(pl.DataFrame({"item": ["1"], "annotator": ["a"], "label": ["x"]}))
    with pytest.raises(DataError, match="only the label 'x' exists"):
        decide("crowdlab", Evidence(annotations=one, proba=np.ones((1, 1))))


def test_evidence_that_is_none_is_refused() -> None:
    given = crowd(1).annotations
    with pytest.raises(DataError, match=r"proba of shape \(2, 2\) must be \(60, 3\)"):
        Evidence(annotations=given, proba=np.full((2, 2), 0.5))
    with pytest.raises(DataError, match="sum to 1 within 1e-6"):
        Evidence(annotations=given, proba=np.full((60, 3), 0.5))
    empty = Annotations.from_frame(pl.DataFrame(schema={"item": pl.String, "annotator": pl.String, "label": pl.String}))
    with pytest.raises(DataError, match="there are no answers"):
        Evidence(annotations=empty)


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="max_iterations=0 must be at least 1"):
        TRUTH["dawid_skene"].configured({"max_iterations": 0})
    with pytest.raises(ConfigError, match="pooled=0 must be above 0"):
        TRUTH["pooled_dawid_skene"].configured({"pooled": 0})


def test_passes_that_did_not_suffice_are_told() -> None:
    evidence = crowd(6, num_items=300)
    assert not decide("dawid_skene", evidence, max_iterations=2).converged
    found = decide("dawid_skene", evidence)
    assert found.converged
    assert 2 < found.num_iterations < 300


def test_too_many_labels_for_confusion_matrices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expectation, "MAX_CONFUSION_CELLS", 71)
    with pytest.raises(
        DataError, match="8 annotators with 3 labels need 72 numbers; at most 71 are held: use majority"
    ):
        decide("dawid_skene", crowd(1))


@pytest.mark.parametrize("name", ["majority", "dawid_skene", "pooled_dawid_skene"])
def test_memory_is_by_annotation_and_not_by_items_times_annotators(name: str) -> None:
    num, rng = 600_000, np.random.default_rng(0)
    truth = rng.integers(0, 5, num // 3)
    item = np.repeat(np.arange(num // 3, dtype=np.int32), 3)
    label = np.where(rng.random(num) < 0.7, truth[item], rng.integers(0, 5, num)).astype(np.int32)
    given = Annotations.from_codes(
        item=item,
        annotator=rng.integers(0, 2_000, num).astype(np.int32),
        label=label,
        items=pl.Series(np.arange(num // 3)),
        annotators=tuple(str(one) for one in range(2_000)),
        labels=tuple("abcde"),
    )
    options = {} if name == "majority" else {"max_iterations": 3}
    decide(name, crowd(1), **options)
    tracemalloc.start()
    try:
        found = decide(name, Evidence(annotations=given), **options)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A dense table would take 5,300 bytes an annotation.
    assert peak / num < 250
    assert (found.label == truth).mean() > 0.8
