"""What the benchmark of objectives compares on, and how it reads a network."""

from collections import Counter
from itertools import pairwise

import numpy as np

from benchmarks.objectives import NUM_PROBE, probe
from benchmarks.probe_texts import GRAMMARS, LETTERS, WORD, WORDS, planted


def test_grammars_differ_in_what_follows_what_and_not_in_how_often() -> None:
    rows = planted(5, 6000 + 2 * NUM_PROBE)
    followers: list[set[tuple[str, str]]] = []
    for label in map(str, range(GRAMMARS)):
        texts = [one.replace(" ", "") for one in rows.filter(label=label)["text"]]
        assert {len(one) for one in texts} == {WORD * WORDS}
        shares = np.array(list(Counter("".join(texts)).values())) / (len(texts) * WORD * WORDS)
        assert len(shares) == LETTERS
        assert np.allclose(shares, 1 / LETTERS, atol=0.006)
        pairs = Counter(pair for text in texts for pair in pairwise(text))
        followers.append({pair for pair, _ in pairs.most_common(2 * LETTERS)})
    alike = [len(one & other) for at, one in enumerate(followers) for other in followers[at + 1 :]]
    # Two of 24 followers each: one pair in twelve is shared by chance.
    assert np.mean(alike) < 2 * LETTERS / 6


def test_the_probe_is_measured_on_other_texts_than_its_layer_is_chosen_on() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2, 600)
    told = codes[:, None] + 0.1 * rng.standard_normal((600, 3))
    # One layer tells the classes where it is chosen, the other where it is measured alone.
    chosen, measured = rng.standard_normal((2, 600, 3))
    chosen[:300], measured[:200], measured[300:] = told[:300], told[:200], told[300:]
    points, layer = probe([measured, chosen], codes)
    assert layer == 1
    assert 40 < points < 60
    assert probe([measured, told], codes) == (100, 1)
    # Enough noise to learn by heart whatever it is trained on.
    weak = told + 0.8 * rng.standard_normal((600, 3))
    assert probe([rng.standard_normal((600, 900)), weak], codes)[1] == 1
