"""Fleiss' kappa: several annotators an item, not always the same ones."""

from typing import Any

import numpy as np

from labeling.agreement.figure import NO_PAIRS, ONE_LABEL, Agreement
from labeling.agreement.patterns import find_patterns
from labeling.annotations import Annotations


def fleiss_kappa(annotations: Annotations) -> Agreement:
    """Agreement among many annotators beyond what the labels' shares give by chance.

    Where items have different numbers of answers, every item with at least two counts once in the observed agreement
    and once for each answer in the labels' shares; with equal numbers that is Fleiss' own definition. Prefer
    Krippendorff's alpha: it corrects for small samples.

    References
    ----------
    Fleiss (1971), Measuring Nominal Scale Agreement Among Many Raters, equations 2 to 7.
    """
    patterns = find_patterns(annotations)
    told: dict[str, Any] = {"num_items": patterns.num_items, "num_annotations": patterns.num_annotations}
    if not patterns.num_items:
        return Agreement(measure="fleiss_kappa", value=None, reason=NO_PAIRS, **told)
    size = patterns.size.astype(np.float64)
    alike = patterns.per_pattern((patterns.count * (patterns.count - 1)).astype(np.float64)) / (size * (size - 1))
    observed = float((patterns.multiplicity * alike).sum() / patterns.num_items)
    shares = patterns.label_totals(patterns.multiplicity) / patterns.num_annotations
    if (shares > 0).sum() < 2:
        reason = ONE_LABEL.format(label=annotations.labels[int(shares.argmax())])
        return Agreement(measure="fleiss_kappa", value=None, reason=reason, **told)
    expected = float((shares**2).sum())
    return Agreement(measure="fleiss_kappa", value=(observed - expected) / (1 - expected), **told)
