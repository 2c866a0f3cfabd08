"""Everything that is wrong with a recipe at once, and what a right one would do."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from catalog.errors import ConfigError
from catalog.yaml_keys import StrictLoader
from curation.encoders import installed_encoders
from curation.pii.step import PiiStep
from curation.quality.step import QualityStep
from curation.recipe import Recipe, parse_recipe
from curation.recipe_diff import flat
from curation.rules import RULES

MAX_PROBLEMS = 50


def problems(text: str, folder: Path = Path()) -> list[str]:
    """Every reason for which a recipe is refused, each as ``load_recipe`` would give it if it were the only one.

    Parameters
    ----------
    text : YAML.
    folder : that the paths in it are relative to.
    """
    try:
        given = yaml.load(text, Loader=StrictLoader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ConfigError) as error:
        return [f"not YAML: {error}" if isinstance(error, yaml.YAMLError) else str(error)]
    found: list[str] = []
    while len(found) < MAX_PROBLEMS:
        problem = _problem(given, folder)
        if problem is None:
            return found
        # A recipe without a name gets one first, which lets no other problem go.
        if problem not in found:
            found.append(problem)
        repaired = _without_cause(given, problem, folder)
        if repaired is None:
            return found
        given = repaired
    return found


def _problem(given: Any, folder: Path) -> str | None:
    try:
        parse_recipe(given, folder)
    except ConfigError as error:
        return str(error)
    except (TypeError, AttributeError) as error:
        return f"a value is of the wrong type ({error})"
    return None


def _without_cause(given: Any, problem: str, folder: Path) -> Any:
    """The recipe without the smallest part that lets the problem go; None where there is no such part."""
    if not isinstance(given, dict):
        return None
    if "name" not in given:
        return given | {"name": "unnamed"}
    for path in sorted(_paths(given), key=len, reverse=True):
        candidate = copy.deepcopy(given)
        inner = candidate
        for key in path[:-1]:
            inner = inner[key]
        del inner[path[-1]]
        if path == ("name",):
            candidate["name"] = "unnamed"
        if _problem(candidate, folder) != problem:
            return candidate
    return None


def _paths(given: dict[Any, Any], prefix: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, value in given.items():
        yield (*prefix, key)
        if isinstance(value, dict):
            yield from _paths(value, (*prefix, key))


def missing(recipe: Recipe) -> list[str]:
    """What a right recipe needs and this machine lacks, each with the remedy."""
    if recipe.encoder in installed_encoders():
        return []
    return [
        f"encoder {recipe.encoder!r} is not installed: pip install 'winnow[models]', or set encoder to one of: "
        f"{', '.join(installed_encoders()) or 'none is installed'}"
    ]


def rule_rows(recipe: Recipe) -> list[dict[str, Any]]:
    """The rules in the order in which failures are reported: bounds, the published ones, and what is measured."""
    rows = []
    for name, bounds in recipe.rules.items():
        member = RULES[name]
        published = member.config()
        rows.append(
            {
                "rule": name,
                "version": member.version,
                "minimum": bounds.minimum,
                "maximum": bounds.maximum,
                "published": [published.minimum, published.maximum],
                "measures": (member.member.__doc__ or "").split("\n", 1)[0].strip(),
            }
        )
    return rows


def steps(recipe: Recipe) -> dict[str, Any]:
    """Everything else that the recipe would do, as dotted keys and values."""
    canonical = recipe.canonical()
    return flat({key: value for key, value in canonical.items() if key not in ("name", "version", "rules", "versions")})


def to_yaml(canonical: dict[str, Any]) -> str:
    """A canonical recipe as YAML that ``load_recipe`` reads, with every default written out."""
    scored = {QualityStep.from_canonical(one, canonical["rules"]).column: one for one in canonical.get("quality", ())}
    rules = sorted(canonical["rules"].items(), key=lambda item: item[1]["position"])
    bounds = {
        name: {key: value for key, value in one.items() if key not in ("position", "version")} for name, one in rules
    }
    plain = {key: value for key, value in canonical.items() if key != "versions"}
    plain["rules"] = {name: one for name, one in bounds.items() if name not in scored}
    if "quality" in plain:
        plain["quality"] = [
            {one["scorer"]: one["model"]}
            | {key: one[key] for key in ("version", "label") if one[key] is not None}
            | bounds[name]
            for name, one in scored.items()
        ]
    if plain.get("identity") is not None:
        plain["identity"] = plain["identity"]["added"]
    if plain.get("pii") is not None:
        plain["pii"] = PiiStep.of_canonical(plain["pii"]).written()
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
