"""What ``winnow clean`` and ``winnow explain`` tell of the edits of a recipe."""

from typing import Any

from service.cli.output import emit_table, say

TEXT_CHARS = 60
NUM_SHOWN = 20


def tell_edits(found: dict[str, Any] | None) -> None:
    """What a run's edits changed, by edit and reason."""
    if found is None:
        return
    rows = [(one["edit"], one["reason"], one["changes"], one["records"], one["characters"]) for one in found["counts"]]
    if rows:
        header = ("edit", "reason", "changes", "records", "characters")
        emit_table("edits, before anything was measured", header, rows[:NUM_SHOWN])
    left = f", {found['emptied']:,} had nothing left and leave" if found["emptied"] else ""
    say(f"edits changed {found['changed']:,} texts{left}")


def explain_edits(changes: list[dict[str, Any]]) -> None:
    """What was changed in a record before it was measured."""
    if not changes:
        return
    rows = [
        (one["edit"], one["reason"], f"{one['start']:,} to {one['end']:,}", _short(one["before"]), _short(one["after"]))
        for one in changes[:NUM_SHOWN]
    ]
    emit_table("edits, before it was measured", ("edit", "reason", "characters", "before", "after"), rows)
    if len(changes) > NUM_SHOWN:
        say(f"{NUM_SHOWN} of {len(changes):,} shown; all of them with --json")


def _short(text: str | None) -> str:
    line = " ".join((text or "(removed)").split()) if text != "" else "(nothing)"
    return line if len(line) <= TEXT_CHARS else f"{line[:TEXT_CHARS]} …"
