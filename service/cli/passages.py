"""``winnow dedup substring``: passages that stand in several records, found, shown, cut out."""

from typing import Annotated, Any

import typer

from catalog.store import Store
from catalog.tables.engine import Run
from curation.dedup.substring import ACTIONS, SubstringConfig
from curation.recipe import Recipe
from service.cli import dedup
from service.cli.output import COMMAND_LINE, AsJson, detached, emit_json, emit_table, run_to_end, say, workspace
from workers.passages import most_repeated

TEXT_CHARS = 100
NUM_EXPLAINED = 20
ID_CHARS = 12


def add(_root: typer.Typer) -> None:
    """Register this module's command, among those of ``winnow dedup``."""
    dedup.app.command("substring")(substring)


def substring(
    dataset: Annotated[str, typer.Argument(help="Name of a dataset.")],
    *,
    min_tokens: Annotated[int, typer.Option(help="Tokens in a row that must be the same, 2 to 10,000.")] = 50,
    action: Annotated[str, typer.Option(help=f"What becomes of the passages: {' or '.join(ACTIONS)}.")] = "report",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Passages shown at most.")] = 10,
    detach: dedup.Detach = False,
    json: AsJson = False,
) -> None:
    """Find passages that stand in several records, word for word, and say what they are or cut them out."""
    from workers.pipelines.deduplicate import submit_dedup

    config = SubstringConfig(min_tokens=min_tokens, action=action)
    catalog = workspace()
    run_id, state = submit_dedup(
        catalog, dataset=dataset, recipe=Recipe(name="passages", substring=config), requested_by=COMMAND_LINE
    )
    if detach:
        detached(catalog, run_id, as_json=json)
        return
    if state == "done":
        say("this version was looked through so before; the same result:", as_json=json)
    elif state == "resumed":
        say("going on from where the last try ended", as_json=json)
    result = run_to_end(catalog, run_id, as_json=json).result or {}
    with catalog.read() as session:
        shown = most_repeated(session, Store.of(catalog.settings), session.get_one(Run, run_id), limit)
    if json:
        emit_json({"run": run_id} | result | {"most_repeated": shown})
        return
    _emit(result, shown)
    if result["exact_duplicates"]:
        say(f"{result['exact_duplicates']:,} exact duplicates had left before")
    say(outcome(result["passages"]))
    if result["passages"]["spans"]:
        say(_remedy(dataset, action))
        say(
            f"a record's own: `winnow explain {dataset} RECORD`; "
            f"every one with its text: `winnow dedup export {dataset} --spans`"
        )


def _emit(result: dict[str, Any], shown: list[dict[str, Any]]) -> None:
    found = result["passages"]
    rows = [
        ("records compared", f"{found['compared']:,}", ""),
        ("of them with repeated passages", f"{found['records']:,}", _share(found["records"], found["compared"])),
        ("repeated passages", f"{found['passages']:,}", ""),
        ("characters in them", f"{found['characters']:,}", _share(found["characters"], found["of_characters"])),
    ]
    emit_table(
        f"{found['min_tokens']} tokens in a row or more, cut at ends of sentences", ("", "number", "share"), rows
    )
    if shown:
        emit_table(
            "most repeated",
            ("repeated by", "tokens", "kept in record", "passage"),
            [(one["records"], one["num_tokens"], short(one["keeper"]), excerpt(one["text"])) for one in shown],
        )


def outcome(found: dict[str, Any]) -> str:
    """What became of a run's passages, in words."""
    if not found["spans"]:
        return f"no {found['min_tokens']} tokens in a row stand twice"
    if found["action"] == "report":
        return "texts are as they were"
    left = f", {found['emptied']:,} had nothing left and leave" if found["emptied"] else ""
    return f"{found['changed']:,} texts were cut{left}; of each passage its best copy stays"


def _remedy(dataset: str, action: str) -> str:
    """How to get what was not asked for."""
    if action == "report":
        return f"cut them out: `winnow dedup substring {dataset} --action remove`"
    return "to label and train on such texts, clean by a recipe with `substring: {action: remove}`"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else ""


def excerpt(text: str) -> str:
    """The beginning of a passage in one line."""
    line = " ".join(text.split())
    return line if len(line) <= TEXT_CHARS else f"{line[:TEXT_CHARS]} …"


def short(record: str) -> str:
    """As much of an id as tells it apart, behind the name of its dataset where it is another's."""
    dataset, colon, own = record.rpartition(":")
    return f"{dataset}{colon}{own[:ID_CHARS]}"


def explain_passages(found: dict[str, Any] | None) -> None:
    """What ``winnow explain`` tells of the passages that a record shares with others."""
    if found is None:
        return
    gone = "cut out of it" if found["action"] == "remove" else "left in it"
    if found["repeats"]:
        rows = [
            (
                one["num_tokens"],
                f"{one['start']:,} to {one['end']:,}",
                "(itself)" if one["keeper_id"] == one["record_id"] else short(one["keeper_id"]),
                f"{one['keeper_start']:,} to {one['keeper_end']:,}",
                excerpt(one["text"]),
            )
            for one in found["repeats"][:NUM_EXPLAINED]
        ]
        header = ("tokens", "characters", "kept in record", "characters there", "passage")
        emit_table(f"what it repeats ({gone}, run {found['run'][:8]})", header, rows)
    if found["repeated_by"]:
        by_others = [
            (one["num_tokens"], short(one["record_id"]), excerpt(one["text"]))
            for one in found["repeated_by"][:NUM_EXPLAINED]
        ]
        emit_table("what is kept here and repeated elsewhere", ("tokens", "by record", "passage"), by_others)
    for name in ("repeats", "repeated_by"):
        if len(found[name]) > NUM_EXPLAINED:
            say(f"{NUM_EXPLAINED} of {len(found[name]):,} shown; all of them with --json")
