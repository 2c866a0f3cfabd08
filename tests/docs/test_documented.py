"""Docs name every command, option, setting and registered name, and mention none that does not exist."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from catalog.registry import Registry
from catalog.settings import Settings
from curation.difficulty import DIFFICULTY
from curation.dynamics import DYNAMICS
from curation.edits import EDITS
from curation.encoders import ENCODERS
from curation.export import WRITERS
from curation.pii import KINDS
from curation.quality import SCORERS
from curation.rules import RULES
from curation.sources import READERS
from labeling.exchange import FORMATS
from labeling.strategies import STRATEGIES
from labeling.tasks import TASKS
from labeling.truth import TRUTH
from service.cli.app import app
from training.attention import ATTENTION
from training.backbones import BACKBONES
from training.caches import CACHES
from training.compression import COMPRESSION
from training.feedforward import FEEDFORWARD
from training.masking import MASKING
from training.objectives import OBJECTIVES
from training.optimizers import OPTIMIZERS
from training.pacing import PACING
from training.positions import POSITIONS
from training.retrieval import RETRIEVAL
from training.schedules import SCHEDULES
from training.trackers import TRACKERS
from workers.pipelines import PIPELINES

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
REGISTRIES: list[Registry[Any]] = [
    RULES, EDITS, SCORERS, KINDS, READERS, WRITERS, ENCODERS, DIFFICULTY, DYNAMICS, STRATEGIES, TASKS,
    FORMATS, TRUTH, PACING, ATTENTION, FEEDFORWARD, OBJECTIVES, BACKBONES,
    COMPRESSION, SCHEDULES, PIPELINES, POSITIONS, CACHES, RETRIEVAL, MASKING, OPTIMIZERS, TRACKERS,
]  # fmt: skip

OF_BENCHMARKS = ("benchmark", "cost")
"""Job kinds that benchmarks register where their tests import them; no part of the product."""


def commands() -> dict[str, Any]:
    """Every command by its full name."""
    found: dict[str, Any] = {}
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        nested = getattr(command, "commands", None)
        found |= {f"{name} {inner}": one for inner, one in nested.items()} if nested else {name: command}
    return found


def section(page: str, heading: str) -> str:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert f"## {heading}\n" in text, f"docs/{page} has no section {heading!r}"
    return text.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_command_and_option_is_documented(name: str) -> None:
    described = section("commands.md", f"`winnow {name}`")
    for parameter in commands()[name].params:
        if parameter.name in ("help", "json"):
            continue
        shown = parameter.opts[0] if parameter.param_type_name == "option" else parameter.name.upper()
        assert shown in described, f"docs/commands.md: {name} lacks {shown}"


@pytest.mark.parametrize("name", ["", *sorted(commands())])
def test_every_option_and_argument_has_help(name: str) -> None:
    asked = commands()[name] if name else typer.main.get_command(app)
    silent = [parameter.name for parameter in asked.params if not (getattr(parameter, "help", None) or "").strip()]
    assert silent == [], f"winnow {name}: no help for {silent}"


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_documented(name: str) -> None:
    assert f"| `{name}` | `WINNOW_{name.upper()}` |" in (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda one: one.kind)
def test_every_registered_name_is_documented(registry: Registry[Any]) -> None:
    page = "rules.md" if registry is RULES else "registries.md"
    described = (ROOT / "docs" / page).read_text(encoding="utf-8")
    missing = [name for name in registry if f"| `{name}` |" not in described and name not in OF_BENCHMARKS]
    assert not missing, f"docs/{page} lacks {registry.kind} {missing}"


def test_documented_bounds_of_rules_are_their_defaults() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| .* \| (\S*) \| (\S*) \| [^|]* \| [^|]* \|$", section("rules.md", "The rules"), re.M
    )
    told = {name: tuple(float(one) if one else None for one in bounds) for name, *bounds in rows}
    defaults = {name: RULES[name].configured() for name in RULES}
    assert told == {name: (one.minimum, one.maximum) for name, one in defaults.items()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_mention_only_commands_and_files_that_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    code = re.findall(r"`([^`\n]+)`", text) + re.findall(r"^    (.+)$", text, flags=re.MULTILINE)
    known = {name.split()[0] for name in commands()}
    for one in code:
        for word in re.findall(r"(?:^|\s|/)winnow ([a-z][a-z-]*)", one):
            assert word in known, f"{page.name} mentions `winnow {word}`"
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"
    for path in re.findall(r"`((?:docs|benchmarks|tests|workers|service)/[\w/.-]+\.\w+)`", text):
        assert "NAME" in path or (ROOT / path).exists(), f"{page.name} names {path}, which is not there"


def test_pre_commit_runs_exactly_what_make_check_runs() -> None:
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").split("\ncheck:", 1)[1].split("\n\n", 1)[0]
    made = [line.strip().replace("$(BIN)", ".venv/bin") for line in recipe.splitlines()[1:]]
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    assert [one["entry"] for one in hooks] == made
    assert all(one["always_run"] and not one["pass_filenames"] for one in hooks)
