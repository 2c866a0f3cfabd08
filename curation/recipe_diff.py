"""In what two recipes differ, key by key."""

from collections.abc import Mapping
from typing import Any

from curation.recipe import Recipe

MISSING = "(none)"


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """A canonical recipe as one level of dotted keys; lists are values.

    >>> flat({"rules": {"word_count": {"minimum": 3.0}}, "near": None})
    {'rules.word_count.minimum': 3.0, 'near': None}
    """
    if not isinstance(value, Mapping):
        return {prefix: value}
    if not value:
        return {prefix: {}} if prefix else {}
    return {
        key: one
        for name, inner in value.items()
        for key, one in flat(inner, f"{prefix}.{name}" if prefix else str(name)).items()
    }


def comparable(recipe: Recipe) -> dict[str, Any]:
    """The canonical form with the order of the rules as one value, since one rule more moves all that follow."""
    canonical = recipe.canonical()
    rules = {name: {k: v for k, v in one.items() if k != "position"} for name, one in canonical["rules"].items()}
    return canonical | {"rules": rules, "order of rules": list(canonical["rules"])}


def differences(old: Recipe, new: Recipe) -> list[dict[str, Any]]:
    """What differs, in the order of the keys: dicts of ``key``, ``before``, ``after``.

    A key that one of the two lacks has ``MISSING`` there. The order of rules is compared among those that both have.
    """
    sides = [comparable(old), comparable(new)]
    orders = [one.pop("order of rules") for one in sides]
    common = set(orders[0]) & set(orders[1])
    orders = [[name for name in order if name in common] for order in orders]
    flats = [flat(one) for one in sides]
    keys = [*flats[0], *(key for key in flats[1] if key not in flats[0])]
    found = [
        {"key": key, "before": flats[0].get(key, MISSING), "after": flats[1].get(key, MISSING)}
        for key in keys
        if flats[0].get(key, MISSING) != flats[1].get(key, MISSING)
    ]
    if orders[0] != orders[1]:
        found.append({"key": "order of rules", "before": orders[0], "after": orders[1]})
    return found
