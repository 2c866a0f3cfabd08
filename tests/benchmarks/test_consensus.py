"""The benchmark of consensus: the same answers for everybody, and differences that mean what they say."""

import numpy as np
import pytest

from benchmarks import consensus

# crowd-kit 1.4.2 does what the newest pandas warns of.
pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")


def test_a_few_answers_are_drawn_for_every_item_and_repeat_under_one_seed() -> None:
    crowd = consensus.simulated_crowd(0, num_labels=3, num_items=50)
    assert set(np.diff(consensus.drawn(crowd, consensus.ALL, 0).starts)) == {5}
    few = consensus.drawn(crowd, 2, 1)
    assert set(np.diff(few.starts)) == {2}
    assert few.annotator.tobytes() == consensus.drawn(crowd, 2, 1).annotator.tobytes()
    assert few.annotator.tobytes() != consensus.drawn(crowd, 2, 2).annotator.tobytes()


def test_everybody_decides_and_is_measured_against_the_truth() -> None:
    crowd = consensus.simulated_crowd(1, num_labels=2, num_items=120)
    scores = consensus.compared(crowd, consensus.ALL, 0, quick=True)
    assert set(scores) == {
        *consensus.WITHOUT,
        *consensus.WITH,
        "classifier alone",
        "cleanlab majority",
        "cleanlab CROWDLAB",
        "crowd-kit MajorityVote",
        "crowd-kit DawidSkene",
    }
    assert scores["crowdlab"][0] == scores["cleanlab CROWDLAB"][0]
    assert all(0.7 < accuracy <= 1.0 for name, (accuracy, _) in scores.items() if name != "classifier alone")


def test_figures_are_ours_less_theirs() -> None:
    row = {
        "dawid_skene": [0.90, 1.0],
        "pooled_dawid_skene": [0.95, 1.0],
        "classifier_dawid_skene": [0.97, 1.0],
        "cleanlab majority": [0.85, 1.0],
        "cleanlab CROWDLAB": [0.94, 1.0],
        "crowd-kit DawidSkene": [0.91, 20.0],
        "crowd-kit GLAD": [0.93, 1.0],
    }
    without = {name: one for name, one in row.items() if name not in ("classifier_dawid_skene", "cleanlab CROWDLAB")}
    figures = consensus._figures({"a, all": row, "b, all": without, "a, 2": row | {"crowd-kit GLAD": [0.99, 1.0]}})
    assert figures == {
        "accuracy_vs_cleanlab": 0.03,
        "accuracy_vs_crowdkit": 0.04,
        "accuracy_vs_crowdkit_any": 0.02,
        "accuracy_vs_cleanlab_few": 0.03,
        "accuracy_vs_crowdkit_few": 0.04,
        "accuracy_vs_crowdkit_any_few": -0.04,
        "dawid_skene_vs_crowdkit": -0.01,
        "speedup_dawid_skene_vs_crowdkit": 20.0,
    }
