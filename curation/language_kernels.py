"""Compiled: the walk and the sums by which py3langid names a language, without an object a byte."""

import math
from typing import Any

import numba
import numpy as np

compiled: Any = numba.njit(nogil=True, cache=True, boundscheck=False)


@compiled
def score_rows(data, offsets, first, last, moves, bases, features, weights, unit, priors, aliases, best, shares):
    """Number and probability of each row's most probable class.

    A byte leads from one state of an automaton to the next; some states are features. A class has the sum of its
    weights by the logarithm of how often a feature occurs; probabilities are those sums at a temperature of the root of
    the number of bytes. Sums are in 64 bits and in the order in which features first occur.
    """
    seen = np.zeros(len(weights), np.int32)
    found = np.empty(len(weights), np.int32)
    classes = len(priors)
    scores = np.empty(classes, np.float64)
    for row in range(first, last):
        number = 0
        state = np.int64(0)
        for at in range(offsets[row], offsets[row + 1]):
            state = np.int64(moves[bases[state] + np.int64(data[at])])
            feature = features[state]
            if feature >= 0:
                if seen[feature] == 0:
                    found[number] = feature
                    number += 1
                seen[feature] += 1
        if number:
            scores[:] = priors
        else:
            scores[:] = 0.0
        for place in range(number):
            feature = found[place]
            count = math.log1p(float(seen[feature])) * unit
            seen[feature] = 0
            weight = weights[feature]
            for one in range(classes):
                scores[one] += count * weight[one]
        scores /= math.sqrt(float(max(1, offsets[row + 1] - offsets[row])))
        top = scores.max()
        total = 0.0
        for one in range(classes):
            behind = scores[one] - top
            # What is so far behind is lost in the last bit of the sum.
            scores[one] = math.exp(behind) if behind > -40.0 else 0.0
            total += scores[one]
        # Classes that share a name count as the first of them.
        for place in range(len(aliases)):
            scores[aliases[place, 0]] += scores[aliases[place, 1]]
            scores[aliases[place, 1]] = 0.0
        chosen = np.argmax(scores)
        best[row] = chosen
        shares[row] = scores[chosen] / total
