"""The laws of every consensus method."""

import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labeling.annotations import Annotations
from labeling.consensus import Consensus, Evidence
from labeling.truth import TRUTH

LABELS = ("긍정", "부정", "중립 😐")


def crowd(seed: int, num_items: int = 60, num_annotators: int = 8) -> Evidence:
    """Annotators of different skill; a classifier that is right more often than not."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, len(LABELS), num_items)
    skill = rng.uniform(0.4, 0.95, num_annotators)
    rows = []
    for item in range(num_items):
        for annotator in rng.choice(num_annotators, 3, replace=False):
            said = truth[item] if rng.random() < skill[annotator] else rng.integers(len(LABELS))
            rows.append((f"{item:04}", f"사람 {annotator}", LABELS[said]))
    frame = pl.DataFrame(rows, schema=["item", "annotator", "label"], orient="row")
    proba = rng.dirichlet([0.5] * len(LABELS), num_items) + np.eye(len(LABELS))[truth]
    return Evidence(annotations=Annotations.from_frame(frame, LABELS), proba=proba / 2)


def decide(name: str, evidence: Evidence) -> Consensus:
    return TRUTH[name].member(evidence, TRUTH[name].configured())


def one_label(label: str, num_annotators: int, proba: np.ndarray) -> Evidence:
    rows = [(str(item), f"a{who}", label) for item in range(6) for who in range(num_annotators)]
    frame = pl.DataFrame(rows, schema=["item", "annotator", "label"], orient="row")
    return Evidence(annotations=Annotations.from_frame(frame, LABELS), proba=proba)


@pytest.mark.parametrize("name", sorted(TRUTH.load()))
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=15)
def test_consensus_is_of_every_item_repeats_and_changes_nothing(name: str, seed: int) -> None:
    evidence = crowd(seed)
    given = evidence.annotations
    before = [one.tobytes() for one in (given.item, given.annotator, given.label, evidence.probabilities())]
    found = decide(name, evidence)
    assert found.label.dtype == np.int32
    assert found.label.shape == found.confidence.shape == (given.num_items,)
    assert ((found.label >= 0) & (found.label < len(LABELS))).all()
    assert ((found.confidence > 0) & (found.confidence <= 1 + 1e-12)).all()
    assert found.quality.shape == (given.num_annotators,)
    assert ((found.quality >= 0) & (found.quality <= 1 + 1e-12)).all()
    again = decide(name, evidence)
    assert [one.tobytes() for one in (again.label, again.confidence, again.quality)] == [
        one.tobytes() for one in (found.label, found.confidence, found.quality)
    ]
    assert [one.tobytes() for one in (given.item, given.annotator, given.label, evidence.probabilities())] == before


@pytest.mark.parametrize("name", sorted(TRUTH.load()))
def test_numbers_of_items_annotators_and_labels_do_not_matter(name: str) -> None:
    evidence = crowd(11)
    found, given = decide(name, evidence), evidence.annotations
    rng = np.random.default_rng(0)
    items, annotators, labels = (rng.permutation(num) for num in (given.num_items, given.num_annotators, len(LABELS)))
    turned = Annotations.from_codes(
        item=items[given.item],
        annotator=annotators[given.annotator],
        label=labels[given.label],
        items=given.items,
        annotators=given.annotators,
        labels=given.labels,
    )
    proba = np.zeros_like(evidence.probabilities())
    proba[np.ix_(items, labels)] = evidence.probabilities()
    other = decide(name, Evidence(annotations=turned, proba=proba))
    assert other.confidence[items] == pytest.approx(found.confidence, abs=1e-9)
    assert other.quality[annotators] == pytest.approx(found.quality, abs=1e-9)
    # What is as likely as another label may go to either.
    sure = found.confidence > 0.51
    assert sure.sum() > 40
    assert (other.label[items][sure] == labels[found.label[sure]]).all()


@pytest.mark.parametrize("name", sorted(TRUTH.load()))
def test_what_everybody_says_is_the_consensus(name: str) -> None:
    rows = [(str(item), f"a{who}", LABELS[item % 3]) for item in range(30) for who in range(3)]
    frame = pl.DataFrame(rows, schema=["item", "annotator", "label"], orient="row")
    given = Annotations.from_frame(frame, LABELS)
    found = decide(name, Evidence(annotations=given, proba=np.full((30, 3), 1 / 3)))
    assert [LABELS[one] for one in found.label] == [LABELS[int(item) % 3] for item in given.items]
    assert (found.confidence > 0.5).all()
    assert (found.quality > 0.75).all()


@pytest.mark.parametrize("name", sorted(TRUTH.load()))
def test_one_label_only_is_the_consensus(name: str) -> None:
    found = decide(name, one_label("부정", 3, np.full((6, 3), 1 / 3)))
    assert found.label.tolist() == [1] * 6
    assert np.isfinite(found.confidence).all()
    assert np.isfinite(found.quality).all()


# CROWDLAB weighs annotators by what others say: alone nobody can be weighed.
@pytest.mark.parametrize("name", sorted(set(TRUTH.load()) - {"crowdlab"}))
def test_one_annotator_alone_is_believed(name: str) -> None:
    rows = [(str(item), "혼자", LABELS[item % 3]) for item in range(9)]
    given = Annotations.from_frame(pl.DataFrame(rows, schema=["item", "annotator", "label"], orient="row"), LABELS)
    found = decide(name, Evidence(annotations=given, proba=np.full((9, 3), 1 / 3)))
    assert [LABELS[one] for one in found.label] == [LABELS[item % 3] for item in range(9)]


@pytest.mark.parametrize("name", sorted(TRUTH.load()))
def test_items_without_an_answer_have_no_label(name: str) -> None:
    one = crowd(5).annotations
    given = Annotations.from_codes(
        item=one.item + 1,
        annotator=one.annotator,
        label=one.label,
        items=pl.Series([str(item) for item in range(one.num_items + 2)]),
        annotators=(*one.annotators, "사람 9"),
        labels=LABELS,
    )
    found = decide(name, Evidence(annotations=given, proba=np.full((given.num_items, 3), 1 / 3)))
    assert found.label[[0, -1]].tolist() == [-1, -1]
    assert found.confidence[[0, -1]].tolist() == [0.0, 0.0]
    assert (found.label[1:-1] >= 0).all()
    assert np.isnan(found.quality[-1])
    assert np.isfinite(found.quality[:-1]).all()


@pytest.mark.parametrize("name", sorted(TRUTH.load()))
def test_the_last_of_several_answers_counts(name: str) -> None:
    evidence = crowd(8)
    one = evidence.annotations
    doubled = Annotations.from_codes(
        item=np.concatenate([one.item, one.item]),
        annotator=np.concatenate([one.annotator, one.annotator]),
        label=np.concatenate([(one.label + 1) % 3, one.label]),
        items=one.items,
        annotators=one.annotators,
        labels=LABELS,
    )
    assert doubled.num_repeated == len(one)
    found = decide(name, Evidence(annotations=doubled, proba=evidence.proba))
    assert found.label.tolist() == decide(name, evidence).label.tolist()


def test_registering_a_method_loads_nothing_heavy() -> None:
    code = (
        "import sys; from labeling.truth import TRUTH; TRUTH.load(); "
        "print([name for name in ('sklearn', 'scipy', 'torch', 'cleanlab') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
