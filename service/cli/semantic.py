"""``winnow dedup semantic``: records that say the same in other words, and what other epsilons would find."""

from typing import Annotated, Any

import typer

from curation.dedup.config import NearConfig
from curation.dedup.semantic_step import SemanticStep
from curation.recipe import Recipe
from service.cli.output import COMMAND_LINE, AsJson, detached, emit_json, emit_table, run_to_end, say, workspace

DEFAULT = SemanticStep()


def semantic(
    dataset: Annotated[str, typer.Argument(help="Name of a dataset.")],
    *,
    epsilon: Annotated[
        float, typer.Option(help="A record leaves where its cosine to a better one is at least 1 - this, in [0, 1).")
    ] = DEFAULT.epsilon,
    encoder: Annotated[str, typer.Option(help="Whose vectors: static is fast, minilm finer; both English.")] = "static",
    action: Annotated[str, typer.Option(help="remove, or report: measure and show, remove nothing.")] = DEFAULT.action,
    probes: Annotated[
        int, typer.Option(help="Cells in which each record is compared; more find more and take longer.")
    ] = DEFAULT.probes,
    detach: Annotated[bool, typer.Option("--detach", help="Return at once; the workers go on.")] = False,
    json: AsJson = False,
) -> None:
    """Find exact and near duplicates, then records that say the same in other words, and publish what stays."""
    from workers.pipelines.deduplicate import submit_dedup

    step = SemanticStep.configured({"epsilon": epsilon, "action": action, "probes": probes})
    recipe = Recipe(name="dedup", near=NearConfig(), encoder=encoder, semantic=step)
    catalog = workspace()
    run_id, state = submit_dedup(catalog, dataset=dataset, recipe=recipe, requested_by=COMMAND_LINE)
    if detach:
        detached(catalog, run_id, as_json=json)
        return
    if state == "done":
        say("this version was deduplicated so before; the same result:", as_json=json)
    elif state == "resumed":
        say("going on from where the last try ended", as_json=json)
    result = run_to_end(catalog, run_id, as_json=json).result or {}
    if json:
        emit_json({"run": run_id} | result)
        return
    tell_funnel(result)
    tell_semantic(result["semantic"])
    say(f"look at them: `winnow dedup clusters {dataset}`; take them away: `winnow dedup export {dataset}`")


def tell_funnel(result: dict[str, Any]) -> None:
    """How many left as which kind of duplicate, and the biggest cluster."""
    left = result["records"]
    table: list[tuple[str, int, int]] = [("(in)", 0, left)]
    for kind in ("exact_duplicates", "near_duplicates", "semantic_duplicates"):
        if kind == "semantic_duplicates" and not result.get("semantic"):
            continue
        left -= result[kind]
        table.append((kind.replace("_", " "), result[kind], left))
    emit_table("funnel", ("stage", "dropped", "left"), table)
    say(f"{result['clusters']:,} clusters, {result['biggest_cluster']:,} records behind the biggest keeper")


def tell_semantic(found: dict[str, Any] | None) -> None:
    """What each epsilon would do, which one was chosen, and how far the encoder can be trusted."""
    if found is None:
        return
    emit_table(
        f"semantic duplicates among {found['records']:,} records, by epsilon",
        ("epsilon", "near pairs", "would leave", "random pairs as near", ""),
        [
            (
                f"{one['epsilon']:g}",
                one["pairs"],
                one["would_leave"],
                "" if one["random_ratio"] is None else f"{100 * one['random_ratio']:.3g} %",
                "<- chosen" if one["epsilon"] == found["epsilon"] else "",
            )
            for one in found["sweep"]
        ],
    )
    cells = "one cell" if found["cells"] == 1 else f"{found['cells']:,} cells"
    say(
        f"{found['compared']:,} pairs compared in {cells} by encoder {found['encoder']!r}; records may leave where at "
        f"most {100 * found['random_ratio_limit']:.3g} % of random pairs are as near"
    )
    if found["unknown"]:
        say(f"{found['unknown']:,} records hold nothing that the encoder knows; they were compared with nothing")
    if found["action"] == "report":
        say("only reported: none of them left; with action remove they do")
    if found["warning"]:
        say(f"warning: {found['warning']}")
