"""What a training measured, in words: a table of held-out rows, and whether orders and memories paid."""

from dataclasses import dataclass
from typing import Any

HEADER = ("arm", "variant", "accuracy", "macro F1", "latency ms", "MFLOP", "MB", "mJ/text", "agrees")


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The table of a training and the remarks below it.

    Parameters
    ----------
    title, header, rows : of the table, a row an arm or what was made of it; a cell of None has no figure.
    lines : what was found, in sentences; none of the commands that come next.
    """

    title: str
    header: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    lines: list[str]


def outcome_of(result: dict[str, Any], *, asked: bool) -> Outcome:
    """The outcome of a training that is done.

    Parameters
    ----------
    result : of the run.
    asked : whether every control was asked for, and so whether each arm's order paid is told.
    """
    found = _held_out(result) if "held_out" in result else _variants(result)
    curricula = result.get("curricula", []) if asked else []
    found.lines.extend(f"curriculum of {one['arm']}: {one['verdict']}" for one in curricula)
    return found


def _variants(result: dict[str, Any]) -> Outcome:
    """Of classifiers and what was made of them."""
    return Outcome(
        title="variants",
        header=HEADER,
        rows=[variant_row(one) for one in result["variants"]],
        lines=[
            f"measured on {result['test']:,} held-out records; energy: {result['energy_method']}",
            *(line for one in result["variants"] for line in exit_lines(one)),
            *(recall_line(one) for one in result.get("memories", [])),
            *(comparison(one) for one in result["comparisons"]),
        ],
    )


def variant_row(one: dict[str, Any]) -> tuple[Any, ...]:
    """One line of the variant table."""
    return (
        one["arm"],
        "as trained" if one["variant"] == "none" else one["variant"],
        round(one["accuracy"], 4),
        round(one["macro_f1"], 4),
        round(one["latency_ms"], 2),
        round(one["flops"] / 1e6, 2),
        round(one["size_bytes"] / 1e6, 2),
        None if one["energy_joules"] is None else round(1000 * one["energy_joules"], 2),
        None if one["agreement"] is None else round(one["agreement"], 4),
    )


def exit_lines(one: dict[str, Any]) -> list[str]:
    """What a variant gains by leaving early, a line a threshold; none where it has no heads behind earlier layers."""
    if "exits" not in one:
        return []
    name = f"{one['arm']}, {'as trained' if one['variant'] == 'none' else one['variant']}"
    return [
        f"{name}: leaving once {at['threshold']:g} sure takes {100 * at['layers_share']:.0f} % of the layers, accuracy "
        f"{at['accuracy']:.4f}"
        for at in one["exits"]["thresholds"]
    ]


def _held_out(result: dict[str, Any]) -> Outcome:
    """Of models that are no classifiers: what held-out records cost them, and what those of people's answers find."""
    rows: list[tuple[Any, ...]] = [
        (
            f"{one['arm']} + {one['retrieval']}" if "retrieval" in one else one["arm"],
            one["objective"],
            round(one["loss"], 4),
            *(None if value is None else round(value, 4) for value in _measures(one).values()),
            round(one["size_bytes"] / 1e6, 2),
        )
        for one in result["held_out"]
    ]
    left_out = {reason: count for reason, count in result.get("left_out", {}).items() if count}
    return Outcome(
        title="held out",
        header=("arm", "objective", "loss", *_measures(result["held_out"][0]), "MB"),
        rows=rows,
        lines=[
            f"measured on {result['test']:,} held-out records; another training starts from an arm by init_from: "
            "RUN/ARM",
            *(f"{count:,} answers were left out: {reason}" for reason, count in left_out.items()),
            *(recall_line(one) for one in result.get("memories", [])),
            *(_loss_comparison(one) for one in result["loss_comparisons"]),
        ],
    )


def _loss_comparison(one: dict[str, Any]) -> str:
    return (
        f"{one['arm']} against {one['control']} at {one['steps']} equal steps{_seeds(one)}: "
        f"{one['loss_saved']:+.4f} nats saved ({one['low']:+.4f} to {one['high']:+.4f}): {one['verdict']}"
    )


def _measures(one: dict[str, Any]) -> dict[str, float | None]:
    """What says most about an arm beside its loss, by its names for people."""
    if spans := one.get("spans"):
        return {"span F1": spans["f1"], "low": spans["f1_low"], "high": spans["f1_high"], "token F1": spans["token_f1"]}
    if pairs := one.get("pairs"):
        return {"accuracy": pairs["accuracy"], "low": pairs["accuracy_low"], "high": pairs["accuracy_high"]}
    return {"perplexity": one["perplexity"]}


def recall_line(one: dict[str, Any]) -> str:
    """What an arm's memory was worth, with its interval."""
    of = f" of {one['memory_of']}" if one["memory_of"] else ""
    scale, unit = (100, "points of accuracy") if one["measure"] == "accuracy" else (1, "nats saved")
    found = [f"{scale * one[name]:+.{1 if scale > 1 else 4}f}" for name in ("difference", "low", "high")]
    trust = "" if one["weight"] is None else f", weight {one['weight']:.3f}, temperature {one['temperature']:.3g}"
    return (
        f"{one['arm']} with {one['retrieval']}, {one['num_entries']:,} entries{of} by {one['vectors']}{trust}: "
        f"{found[0]} {unit} ({found[1]} to {found[2]}): {one['verdict']}"
    )


def comparison(one: dict[str, Any]) -> str:
    """Whether a curriculum paid, with its interval."""
    return (
        f"{one['arm']} against {one.get('order', 'random order')} at {one['steps']} equal steps{_seeds(one)}: accuracy "
        f"{100 * one['difference']:+.1f} points ({100 * one['low']:+.1f} to {100 * one['high']:+.1f}): {one['verdict']}"
    )


def _seeds(one: dict[str, Any]) -> str:
    return f" and {one['seeds']} seeds" if one.get("seeds", 1) > 1 else ""
