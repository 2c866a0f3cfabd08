"""Training recipes: YAML in, a frozen plan and its hash out."""

import hashlib
import json
import unicodedata
from collections.abc import Iterator
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Self, get_args

import yaml

from catalog.errors import ConfigError, NotFoundError, nearest
from catalog.registry import Registry
from catalog.yaml_keys import StrictLoader
from training.arm import ArmConfig
from training.backbones import BACKBONES
from training.compression import COMPRESSION
from training.effects import check_compared, check_effects
from training.initial import is_folder
from training.objectives import OBJECTIVES, Reads, objective_of
from training.optimizers import OPTIMIZERS
from training.pacing import PACING
from training.presets import PRESETS, preset_names
from training.remembering import check_retrieval
from training.schedules import SCHEDULES
from training.trackers import TRACKERS

LabelSource = Literal["merged", "given", "annotated"]
Control = Literal["random", "controls", "none"]

_SHARED = ("seed", "max_tokens", "objective", "objective_options")
"""Arm settings that the recipe may set once for all arms."""
_COMPRESSIONS = ("int8",)
_COMPARE_SEEDS = 3
_LONGEST_NAME = 64
"""Letters of an arm's name: controls and seeds add to it, and a folder's name holds 255 bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedArm:
    """An arm to train, whose control it is, and what is made of it.

    Parameters
    ----------
    config : the arm.
    control_of : name of the arm that it is a control of, or None.
    compressions : names in ``COMPRESSION`` to evaluate besides the model as trained.
    replica_of : name of the arm that it repeats under another seed, be it itself a control or not; None for the first.
    """

    config: ArmConfig
    control_of: str | None
    compressions: tuple[str, ...]
    replica_of: str | None = None

    @property
    def remembers(self) -> bool:
        """Whether a memory is made for it: for no control and no repetition, which learn from the same."""
        return self.config.retrieval != "none" and self.control_of is None and self.replica_of is None


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainRecipe:
    """What a training run does.

    Parameters
    ----------
    name : what the run calls it.
    arms : models to train.
    labels : ``given`` with the source, ``annotated`` here, or ``merged`` (annotated where there is one, else given).
    test_share : share of the labelled records held out, in (0, 1).
    max_train_records, max_test_records : at most this many of each, by hash of the id; 0 means all.
    compare : ``random`` trains every arm that has a pacing once more in random order, at equal steps and seed;
        ``controls`` under ``compare_seeds`` seeds, and where the pacing orders by difficulty hardest first and in an
        order that ignores difficulty as well, its pool growing alike.
    compare_seeds : seeds of an arm and of each of its controls, 2 to 20; with ``controls`` alone.
    compressions : made of every arm that is no control.
    difficulty : by which records are ordered: ``combined``, a part of the cleaning recipe, or a measure of
        ``winnow difficulty``, or ``losses of RUN/ARM`` of a training that kept them.
    seed : split, order, weights and dropout of every arm that sets no seed of its own.
    trackers : names in ``TRACKERS`` that are told every update of every arm.
    """

    name: str
    arms: tuple[ArmConfig, ...]
    labels: LabelSource = "merged"
    test_share: float = 0.2
    max_train_records: int = 0
    max_test_records: int = 0
    compare: Control = "random"
    compare_seeds: int = _COMPARE_SEEDS
    compressions: tuple[str, ...] = _COMPRESSIONS
    difficulty: str = "combined"
    seed: int = 0
    trackers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.arms:
            raise ConfigError(f"recipe {self.name!r} has no arms; list at least one under 'arms'")
        for arm in self.arms:
            _check_arm(arm)
        self._check_reads()
        names = [one.config.name for one in self.plan()]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ConfigError(f"arm name {repeated[0]!r} occurs twice in recipe {self.name!r}; rename one")
        if not 0 < self.test_share < 1:
            raise ConfigError(f"test_share={self.test_share} must lie in (0, 1)")
        for name in ("max_train_records", "max_test_records"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}={getattr(self, name)} must be 0 (all) or more")
        for name, legal in (("labels", get_args(LabelSource)), ("compare", get_args(Control))):
            value = getattr(self, name)
            if value not in legal:
                raise ConfigError(f"{name}={value!r} is unknown; {nearest(str(value), legal)}")
        if not 2 <= self.compare_seeds <= 20:
            raise ConfigError(f"compare_seeds={self.compare_seeds} must lie in [2, 20]: one seed gives no interval")
        if self.compare != "controls" and self.compare_seeds != _COMPARE_SEEDS:
            raise ConfigError(
                f"compare_seeds={self.compare_seeds} has no effect with compare={self.compare!r}; say controls"
            )
        for compression in self.compressions:
            _known(COMPRESSION, compression, "compressions")
        for tracker in self.trackers:
            _known(TRACKERS, tracker, "trackers")

    def _check_reads(self) -> None:
        reads = {arm.name: objective_of(arm).reads for arm in self.arms}
        if len(set(reads.values())) > 1:
            kinds = ", ".join(f"{name} from {one}" for name, one in reads.items())
            raise ConfigError(
                f"arms of recipe {self.name!r} learn from different things ({kinds}) and cannot be compared; make a "
                "recipe of each"
            )
        if self.reads == "texts" and self.labels != "merged":
            raise ConfigError(
                f"labels={self.labels!r} has no effect in recipe {self.name!r}: its arms learn from texts alone; leave "
                "it out"
            )
        if self.reads in ("spans", "pairs") and self.labels == "given":
            raise ConfigError(
                f"labels='given' of recipe {self.name!r}: its arms learn from {self.reads}, and a source gives "
                "classes; leave it out, and bring what the source has with `winnow label import`"
            )

    def plan(self) -> tuple[PlannedArm, ...]:
        """Every arm in order, each followed by its controls."""
        return tuple(self._planned())

    def _planned(self) -> Iterator[PlannedArm]:
        made = tuple(name for name in self.compressions if name != "none")
        for arm in self.arms:
            controls = controls_of(arm, every=self.compare == "controls") if self.compare != "none" else ()
            num_seeds = self.compare_seeds if self.compare == "controls" and controls else 1
            for number in range(num_seeds):
                seed = arm.seed + number
                suffix = f"-seed{seed}" if number else ""
                again = replace(arm, name=f"{arm.name}{suffix}", seed=seed)
                yield PlannedArm(
                    config=again,
                    control_of=None,
                    compressions=() if number else made,
                    replica_of=arm.name if number else None,
                )
                for control in controls:
                    yield PlannedArm(
                        config=replace(control, name=f"{control.name}{suffix}", seed=seed),
                        control_of=again.name,
                        compressions=(),
                        replica_of=control.name if number else None,
                    )

    @property
    def reads(self) -> Reads:
        """What its arms learn from."""
        return objective_of(self.arms[0]).reads

    def draws_by_source(self) -> bool:
        """Whether an arm's pacing sets shares of sources."""
        pacings = [(PACING[arm.pacing], arm.pacing_options) for arm in self.arms]
        return any(one.member(0.0, one.configured(options)).shares is not None for one, options in pacings)

    def compared(self, num_seeds: int | None = None) -> Self:
        """The same recipe with every control of every arm, under some seeds.

        Raises
        ------
        ConfigError : no arm has a control.
        """
        recipe = replace(self, compare="controls", compare_seeds=num_seeds or self.compare_seeds)
        check_compared(recipe)
        return recipe

    def canonical(self) -> str:
        """The recipe as JSON with sorted keys and every default written out, but of what came later."""
        document = asdict(self) | {"arms": [arm.settings() for arm in self.arms]}
        if self.compare != "controls":
            del document["compare_seeds"]
        if not self.trackers:
            del document["trackers"]
        return json.dumps(document, sort_keys=True, ensure_ascii=False)

    def digest(self) -> str:
        """SHA-256 (hex) of ``canonical``."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()

    @classmethod
    def from_canonical(cls, document: str) -> Self:
        """Read back what ``canonical`` wrote."""
        return cls._parse(json.loads(document), where="stored recipe")

    @classmethod
    def from_yaml(cls, text: str, *, name: str) -> Self:
        """Read a recipe file; ``name`` is used when the file gives none.

        Raises
        ------
        ConfigError : no YAML, an unknown key or name (with the nearest known one), or a value out of range.
        """
        try:
            document = yaml.load(text, Loader=StrictLoader)  # noqa: S506 - a SafeLoader
        except yaml.YAMLError as error:
            raise ConfigError(f"recipe {name!r} is no YAML: {error}") from error
        except ConfigError as error:
            raise ConfigError(f"recipe {name!r}: {error}") from error
        if not isinstance(document, dict):
            raise ConfigError(f"recipe {name!r} must be a mapping of settings, not {type(document).__name__}")
        return cls.from_document(document, name=name)

    @classmethod
    def from_document(cls, document: dict[str, Any], *, name: str) -> Self:
        """Read settings as a file or a request gives them; ``name`` is used when they give none.

        Raises
        ------
        ConfigError : an unknown key or name (with the nearest known one), a value out of range, or one without effect.
        """
        made = document.get("compressions")
        recipe = cls._parse({"name": name} | document, where=f"recipe {name!r}")
        for arm in recipe.arms:
            _check_name(arm.name)
        if made and recipe.reads != "classes":
            learned = "texts alone" if recipe.reads == "texts" else recipe.reads
            raise ConfigError(
                f"compressions={made!r} has no effect in recipe {recipe.name!r}: its arms learn from {learned}, and "
                "compressed are classifiers; leave it out"
            )
        check_effects(recipe)
        return recipe

    @classmethod
    def _parse(cls, document: dict[str, Any], *, where: str) -> Self:
        shared = {key: document.pop(key) for key in _SHARED if key in document and key != "seed"}
        if "seed" in document:
            shared["seed"] = document["seed"]
        given = document.get("arms", [])
        if not isinstance(given, list):
            raise ConfigError(f"{where}: arms={given!r} must be a list of arms")
        arms = []
        for number, arm in enumerate(given, start=1):
            place = f"{where}, arm {number}"
            if not isinstance(arm, dict):
                raise ConfigError(f"{place}: {arm!r} must be a mapping with at least a name")
            arms.append(_built(ArmConfig, shared | arm, place, also=()))
        lists = {}
        for key, default in (("compressions", _COMPRESSIONS), ("trackers", ())):
            lists[key] = document.get(key, list(default))
            if not isinstance(lists[key], list) or not all(isinstance(one, str) for one in lists[key]):
                raise ConfigError(f"{where}: {key}={lists[key]!r} must be a list of names")
        recipe: Self = _built(
            cls, document | {"arms": tuple(arms)} | {k: tuple(v) for k, v in lists.items()}, where, also=_SHARED
        )
        return recipe


def controls_of(arm: ArmConfig, *, every: bool) -> tuple[ArmConfig, ...]:
    """What an arm is compared with, at equal steps and seed: nothing where it has no order of its own.

    Parameters
    ----------
    every : besides random order, the same growth of the pool hardest first and in an order that ignores difficulty,
        where the pacing orders by difficulty.
    """
    if arm.pacing == "random" or not arm.steps:
        return ()
    controls: dict[str, tuple[str, dict[str, Any]]] = {"random": ("random", {})}
    pacing = PACING[arm.pacing]
    if every and pacing.member(0.0, pacing.configured(arm.pacing_options)).first == "easiest":
        grown: dict[str, Any] = {"of": arm.pacing, "options": arm.pacing_options}
        controls |= {"anti": ("anti", grown), "same-pacing": ("same_pacing_random", grown)}
    return tuple(
        replace(arm, name=f"{arm.name}-{name}", pacing=pacing_name, pacing_options=options)
        for name, (pacing_name, options) in controls.items()
    )


def load_recipe(name_or_path: str) -> TrainRecipe:
    """Read a preset by name, or a YAML file by path.

    Raises
    ------
    NotFoundError : neither exists (with the nearest preset).
    ConfigError : the recipe is refused.
    """
    if name_or_path in preset_names():
        text = (PRESETS / f"{name_or_path}.yaml").read_text(encoding="utf-8")
        return TrainRecipe.from_yaml(text, name=name_or_path)
    path = Path(name_or_path)
    if path.is_dir():
        raise NotFoundError(f"recipe {name_or_path!r} is a folder; name the YAML file in it")
    if not path.is_file():
        raise NotFoundError(f"no training recipe or file {name_or_path!r}; {nearest(name_or_path, preset_names())}")
    try:
        return _located(TrainRecipe.from_yaml(path.read_text(encoding="utf-8"), name=path.stem), path.parent)
    except UnicodeDecodeError as error:
        raise ConfigError(f"recipe file {path.name!r} is not UTF-8: {error}") from error


def _located(recipe: TrainRecipe, folder: Path) -> TrainRecipe:
    """The same recipe, its folders seen from where the file lies and not from where the command runs."""
    arms = tuple(
        replace(arm, init_from=str((folder / arm.init_from).resolve())) if is_folder(arm.init_from) else arm
        for arm in recipe.arms
    )
    return replace(recipe, arms=arms)


def _built(kind: type[Any], given: dict[str, Any], where: str, *, also: tuple[str, ...]) -> Any:
    """Make a dataclass of YAML values: unknown keys, missing keys and wrong types are refused by name."""
    known = {one.name: one for one in fields(kind)}
    for key, value in given.items():
        if key not in known:
            raise ConfigError(
                f"{where}: unknown key {key!r}; {_elsewhere(kind, key) or nearest(str(key), {*known, *also})}"
            )
        wanted = known[key].type
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            given[key] = value = float(value)
        plain = wanted in (str, int, float)
        if plain and (not isinstance(value, wanted) or isinstance(value, bool)):  # type: ignore[arg-type]
            raise ConfigError(f"{where}: {key}={value!r} must be of type {wanted.__name__}")  # type: ignore[union-attr]
        if key.endswith("_options") and not isinstance(value, dict):
            raise ConfigError(f"{where}: {key}={value!r} must be a mapping of options")
    missing = [
        name
        for name, one in known.items()
        if one.default is MISSING and one.default_factory is MISSING and name not in given
    ]
    if missing:
        raise ConfigError(f"{where}: {', '.join(missing)} must be given")
    try:
        return kind(**given)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error


def _elsewhere(kind: type[Any], key: str) -> str:
    """Where a key belongs that is right but in the wrong place; empty for one that is right nowhere."""
    if kind is TrainRecipe and key in {one.name for one in fields(ArmConfig)}:
        return (
            f"it belongs to an arm: write it under 'arms', beside the arm's name (only {', '.join(_SHARED)} go for all)"
        )
    if kind is ArmConfig and key in {one.name for one in fields(TrainRecipe)}:
        return "it is a setting of the whole recipe: write it beside 'arms', not in one"
    return ""


def _check_name(name: str) -> None:
    """Refuse names that cannot be a folder's, and the second half of RUN/ARM."""
    if not 1 <= len(name) <= _LONGEST_NAME or name[0] in ".-" or not all(_plain(letter) for letter in name):
        raise ConfigError(
            f"arm name {name!r} must be 1 to {_LONGEST_NAME} letters, digits, '.', '_' or '-', not beginning with "
            "'.' or '-': folders and RUN/ARM are made of it"
        )


def _plain(letter: str) -> bool:
    return letter.isalnum() or letter in "._-" or unicodedata.category(letter).startswith("M")


def _check_arm(arm: ArmConfig) -> None:
    registries: dict[str, Registry[Any]] = {
        "backbone": BACKBONES,
        "pacing": PACING,
        "schedule": SCHEDULES,
        "optimizer": OPTIMIZERS,
        "objective": OBJECTIVES,
    }
    for kind, registry in registries.items():
        name = getattr(arm, kind)
        _known(registry, name, f"arm {arm.name!r}: {kind}")
        try:
            registry[name].configured(getattr(arm, f"{kind}_options"))
        except NotFoundError as error:
            raise ConfigError(f"arm {arm.name!r}: {error}") from error
        except ConfigError as error:
            raise ConfigError(f"arm {arm.name!r}: {kind} {error}") from error
    backbone = BACKBONES[arm.backbone]
    try:
        # Two classes stand for however many there will be.
        backbone.member.check(arm, objective_of(arm).heads(2), backbone.configured(arm.backbone_options))
    except ConfigError as error:
        raise ConfigError(f"arm {arm.name!r}: objective {arm.objective!r}: {error}") from error
    check_retrieval(arm)


def _known(registry: Registry[Any], name: str, where: str) -> None:
    if name not in registry.load():
        raise ConfigError(f"{where}={name!r} is unknown; {nearest(name, registry.load())}")
