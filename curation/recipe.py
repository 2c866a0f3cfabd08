"""Recipes: everything a cleaning run decides by, in one named, versioned, hashable value."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from catalog.errors import ConfigError, NotFoundError, nearest
from catalog.registry import Registry
from catalog.yaml_keys import StrictLoader
from curation.balance import IDENTITY, Balance
from curation.bias.identity import BUILT_IN_VERSION, IdentityTerms, category_of
from curation.dedup.config import NearConfig
from curation.dedup.semantic_step import SemanticStep
from curation.dedup.substring import SubstringConfig
from curation.difficulty import DIFFICULTY
from curation.edits import EDITS
from curation.encoders import ENCODERS, advised_encoders
from curation.pii import KINDS
from curation.pii.step import PiiStep
from curation.quality import SCORERS
from curation.quality.step import QualityStep, quality_steps
from curation.rules import RULES
from curation.rules.bounds import Bounds
from curation.rules.listed_words import ListedWords
from curation.rules.word_lists import list_names, read_words

_SUFFIXES = (".yaml", ".yml")
PURPOSES = {
    "short-text": "tweets, messages, tickets in any language",
    "web-text": "English web pages",
    "korean-web": "Korean web pages",
    "pretraining-fineweb": "English web pages as FineWeb had them",
    "instruction": "conversations and prompts with answers, in any language",
    "classification": "labelled texts to train a classifier on, in any language",
}
"""What each preset is for, in a few words."""
ADVISED = ("short-text", "web-text", "korean-web")
"""Those that are offered to somebody who has to choose one."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a dataset is cleaned.

    Parameters
    ----------
    name, version : of the recipe; raise the version when a threshold changes.
    edit : registered edits, which change texts in this order before anything is measured.
    rules : rule name to bounds, in the order in which failures are reported.
    languages : ISO 639 codes that are kept; empty keeps all.
    min_language_confidence : probability from which another language counts as identified, in [0, 1].
    exact : whether exact duplicates leave.
    near : how near-duplicates are found, or None to keep them.
    substring : which repeated passages are found and what becomes of them, or None to look for none.
    pii : which personal data is looked for and what becomes of it, or None to look for none.
    semantic : how semantic duplicates are found and what is done with them, or None; it needs an encoder of meaning.
    quality : scores by models, judged after the rules and stored with their values.
    balance : how those that stay at last are brought to another mix, or None.
    identity : words that name groups of people, whose mentions are stored; None stores none. A recipe file that says
        nothing has the built-in ones.
    encoder : registered encoder of the embeddings.
    difficulty : registered difficulty parts, at least one.
    """

    name: str
    version: int = 1
    edit: tuple[str, ...] = ()
    rules: Mapping[str, Bounds] = field(default_factory=dict)
    languages: tuple[str, ...] = ()
    min_language_confidence: float = 0.0
    exact: bool = True
    near: NearConfig | None = None
    substring: SubstringConfig | None = None
    pii: PiiStep | None = None
    semantic: SemanticStep | None = None
    quality: tuple[QualityStep, ...] = ()
    balance: Balance | None = None
    identity: IdentityTerms | None = None
    encoder: str = "hashing"
    difficulty: tuple[str, ...] = ("length", "compression_ratio", "rarity")

    def __post_init__(self) -> None:
        """Refuse values outside their range and names that are not registered."""
        if not isinstance(self.name, str) or not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", self.name):
            raise ConfigError(f"name={self.name!r} must be 1 to 64 of a-z, 0-9, '.', '_', '-'")
        if isinstance(self.version, bool) or not isinstance(self.version, int) or self.version < 1:
            raise ConfigError(f"version={self.version!r} must be a whole number from 1")
        for language in self.languages:
            if not isinstance(language, str) or not re.fullmatch(r"[a-z]{2,3}", language):
                raise ConfigError(f"languages: {language!r} is no ISO 639-1 code such as en or ko; quote 'no' in YAML")
        confidence = self.min_language_confidence
        if isinstance(confidence, bool) or not isinstance(confidence, int | float) or not 0 <= confidence <= 1:
            raise ConfigError(f"min_language_confidence={confidence!r} must lie in [0, 1]")
        if not isinstance(self.exact, bool):
            raise ConfigError(f"exact={self.exact!r} must be true or false")
        for name in self.rules:
            _known(RULES, name)
        if len(set(self.edit)) < len(self.edit):
            raise ConfigError(f"edit={list(self.edit)!r} must name each edit once")
        for name in self.edit:
            _known(EDITS, name)
        quality_steps(self.quality)
        _known(ENCODERS, self.encoder)
        if self.semantic is not None and not ENCODERS[self.encoder].config().knows_meaning:
            raise ConfigError(
                f"semantic compares meanings, of which encoder {self.encoder!r} knows nothing; {advised_encoders()}"
            )
        if self.balance is not None and self.balance.by.startswith(IDENTITY):
            self._check_category(self.balance.by.removeprefix(IDENTITY))
        if not self.difficulty or len(set(self.difficulty)) < len(self.difficulty):
            raise ConfigError(f"difficulty={list(self.difficulty)!r} must name at least one part, each once")
        for name in self.difficulty:
            _known(DIFFICULTY, name)

    def _check_category(self, category: str) -> None:
        known = {category_of(group) for group in self.identity.terms} if self.identity is not None else set()
        if category not in known:
            raise ConfigError(f"balance: by='{IDENTITY}{category}': {nearest(category, known)}")

    def canonical(self) -> dict[str, Any]:
        """The recipe as plain JSON values, complete: defaults filled in, versions of all members.

        Rules carry their position: a JSON database does not keep the order of keys. Quality scores stand among them, so
        that whoever reads measured values and bounds need not know of models.
        """
        rules = {
            name: {"position": position, "version": RULES[name].version, **options_of(bounds)}
            for position, (name, bounds) in enumerate(self.rules.items())
        }
        for position, step in enumerate(self.quality, len(rules)):
            rules[step.column] = {
                "position": position,
                "version": SCORERS[step.scorer].version,
                **options_of(step.bounds),
            }
        versions = {name: DIFFICULTY[name].version for name in self.difficulty}
        return {
            "name": self.name,
            "version": self.version,
            "edit": list(self.edit),
            "rules": rules,
            "languages": list(self.languages),
            "min_language_confidence": float(self.min_language_confidence),
            "exact": self.exact,
            "near": None if self.near is None else {**asdict(self.near), "threshold": float(self.near.threshold)},
            "substring": None if self.substring is None else asdict(self.substring),
            "pii": None if self.pii is None else self.pii.canonical(),
            "semantic": None if self.semantic is None else self.semantic.canonical(),
            "quality": [step.canonical() for step in self.quality],
            "balance": None if self.balance is None else self.balance.canonical(),
            "identity": None if self.identity is None else self.identity.canonical(),
            "encoder": self.encoder,
            "difficulty": list(self.difficulty),
            "versions": {
                "encoder": ENCODERS[self.encoder].version,
                "difficulty": versions,
                "edit": {name: EDITS[name].version for name in self.edit},
            },
        }

    def digest(self) -> str:
        """SHA-256 of the canonical form: equal for recipes that decide alike."""
        text = json.dumps(self.canonical(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()


def preset_names() -> list[str]:
    """Names of the recipes that come with the package, sorted."""
    return sorted(path.name.removesuffix(".yaml") for path in _presets().iterdir() if path.name.endswith(".yaml"))


def preset_text(name: str) -> str:
    """The file of a preset, with its comments."""
    text: str = (_presets() / f"{name}.yaml").read_text("utf-8")
    return text


def advised_presets(dataset: str, *, but: str | None = None) -> str:
    """The commands that clean a dataset by a preset, with what each is for, as the end of an advice.

    Parameters
    ----------
    but : a preset to leave out.

    Examples
    --------
    >>> advised_presets("tickets", but="web-text").split(" or ")[0]
    '`winnow clean tickets --recipe short-text` (tweets, messages, tickets in any language)'
    """
    return " or ".join(
        f"`winnow clean {dataset} --recipe {name}` ({PURPOSES[name]})" for name in ADVISED if name != but
    )


def load_recipe(name_or_path: str) -> Recipe:
    """Load a preset by its name, or a YAML file by its path.

    Raises
    ------
    NotFoundError : neither a preset nor a file.
    ConfigError : not YAML, an unknown key, rule, encoder or part (with the nearest known), or a value out of range.
    """
    if name_or_path in preset_names():
        text, origin = preset_text(name_or_path), name_or_path
    elif name_or_path.endswith(_SUFFIXES) and Path(name_or_path).is_file():
        text, origin = _read(Path(name_or_path)), name_or_path
    else:
        raise NotFoundError(
            f"no recipe {name_or_path!r}; {nearest(name_or_path, preset_names())}, or the path of a .yaml file"
        )
    try:
        return parse_recipe(yaml.load(text, Loader=StrictLoader), Path(origin).parent)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise ConfigError(f"recipe {origin}: not YAML ({error})") from error
    except ConfigError as error:
        raise ConfigError(f"recipe {origin}: {error}") from error


def recipe_from_canonical(canonical: dict[str, Any]) -> Recipe:
    """Rebuild a recipe from its stored canonical form.

    Raises
    ------
    ConfigError : it was written with other versions of its members than this release has: what it would decide now
        differs from what it decided then.
    """
    quality = tuple(QualityStep.from_canonical(one, canonical["rules"]) for one in canonical.get("quality", ()))
    scored = {step.column: step for step in quality}
    ordered = sorted(canonical["rules"].items(), key=lambda item: item[1]["position"])
    rules = {name: one for name, one in ordered if name not in scored}
    versions = canonical["versions"]
    members: list[tuple[Registry[Any], str, int]] = [(RULES, name, one["version"]) for name, one in rules.items()]
    members += [(SCORERS, step.scorer, canonical["rules"][name]["version"]) for name, step in scored.items()]
    members += [(ENCODERS, canonical["encoder"], versions["encoder"])]
    # Stored before there were edits: none.
    members += [(EDITS, name, version) for name, version in versions.get("edit", {}).items()]
    members += [(DIFFICULTY, name, version) for name, version in versions["difficulty"].items()]
    pii = canonical.get("pii")
    members += [(KINDS, name, one["version"]) for name, one in (pii or {"kinds": {}})["kinds"].items()]
    for registry, name, version in members:
        if _known(registry, name).version != version:
            raise ConfigError(
                f"{registry.kind} {name!r} was recorded at version {version} and is at {registry[name].version} now; "
                "start a new run"
            )
    plain = {key: value for key, value in canonical.items() if key not in ("versions", "quality")}
    identity = plain.get("identity")
    if identity is not None:
        if identity["built_in"] != BUILT_IN_VERSION:
            raise ConfigError(
                f"identity terms were recorded at version {identity['built_in']} and are at {BUILT_IN_VERSION} now; "
                "start a new run"
            )
        plain["identity"] = identity["added"]
    else:
        # Stored before there were identity terms, or without them.
        plain["identity"] = None
    bounds = {
        name: {key: value for key, value in one.items() if key not in ("position", "version")}
        for name, one in rules.items()
    }
    parsed = parse_recipe({**plain, "rules": bounds, "pii": pii and PiiStep.of_canonical(pii)})
    return replace(parsed, quality=quality)


def _presets() -> Any:
    return resources.files("curation") / "recipes"


def options_of(bounds: Bounds) -> dict[str, Any]:
    """A rule's config as plain values; bounds as floats, so that 50 and 50.0 have one digest."""
    return {
        key: float(value) if key in ("minimum", "maximum") and value is not None else value
        for key, value in asdict(bounds).items()
    }


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe {path} cannot be read: {error}") from error


def _known(registry: Registry[Any], name: Any) -> Any:
    if not isinstance(name, str):
        raise ConfigError(f"{registry.kind} {name!r} must be a name; {nearest(str(name), registry)}")
    try:
        return registry[name]
    except NotFoundError as error:
        raise ConfigError(str(error)) from error


def parse_recipe(given: Any, folder: Path = Path()) -> Recipe:
    """A recipe from what YAML gave.

    Parameters
    ----------
    folder : that the paths in it are relative to.

    Raises
    ------
    ConfigError : see ``load_recipe``.
    """
    if not isinstance(given, dict):
        raise ConfigError(f"a recipe is a mapping of keys to values, not {type(given).__name__}")
    known = {one.name for one in fields(Recipe)}
    for key in given:
        if key not in known:
            raise ConfigError(f"unknown key {key!r}; {nearest(str(key), known)}")
    if "name" not in given:
        raise ConfigError("the key 'name' is missing; give the recipe a name")
    values = dict(given)
    values["rules"] = _rules(given.get("rules"), folder)
    values["near"] = _near(given.get("near"))
    values["substring"] = _substring(given.get("substring"))
    values["pii"] = _pii(given.get("pii"))
    values["semantic"] = _semantic(given.get("semantic"))
    values["quality"] = quality_steps(given.get("quality"))
    values["balance"] = _balance(given.get("balance"))
    values["identity"] = _identity(given.get("identity", {}))
    for key in ("edit", "languages", "difficulty"):
        if key in given:
            values[key] = _names(key, given[key])
    return Recipe(**values)


def _rules(given: Any, folder: Path) -> dict[str, Bounds]:
    """Bounds by rule. A side that is left out is the published one; null opens it. Word lists are read in."""
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise ConfigError(f"rules must map rule names to bounds, not {type(given).__name__}")
    rules: dict[str, Bounds] = {}
    for name, bounds in given.items():
        member = _known(RULES, name)
        if not (bounds is None or isinstance(bounds, dict)):
            raise ConfigError(f"{name}={bounds!r} must be bounds such as {{minimum: 1, maximum: 2}}")
        options = {str(key): value for key, value in (bounds or {}).items()}
        lists = issubclass(member.config, ListedWords)
        if lists and "files" in options:
            options["words"] = [*options.get("words", ()), *_read_lists(name, options.pop("files"), folder)]
        rules[name] = member.configured(options)
        if lists and not getattr(rules[name], "words", ()):
            raise ConfigError(f"{name} has no words; give words, lists ({', '.join(list_names())}) or files")
    return rules


def _read_lists(rule: str, given: Any, folder: Path) -> list[str]:
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise ConfigError(f"{rule}: files={given!r} must be a list of paths, seen from the recipe's folder")
    found = []
    for path in (folder / one for one in given):
        try:
            found += read_words(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{rule}: the word list {path} cannot be read as UTF-8: {error}") from error
    return found


def _near(given: Any) -> NearConfig | None:
    if given is None:
        return None
    if not isinstance(given, dict):
        raise ConfigError(f"near={given!r} must map options to values, or be null to keep near-duplicates")
    try:
        return NearConfig.configured({str(key): value for key, value in given.items()})
    except ConfigError as error:
        raise ConfigError(f"near: {error}") from error


def _substring(given: Any) -> SubstringConfig | None:
    if given is None:
        return None
    if not isinstance(given, dict):
        raise ConfigError(f"substring={given!r} must map options to values, or be null to look for no passages")
    try:
        return SubstringConfig.configured({str(key): value for key, value in given.items()})
    except ConfigError as error:
        raise ConfigError(f"substring: {error}") from error


def _pii(given: Any) -> PiiStep | None:
    if given is None or isinstance(given, PiiStep):
        return given
    if not isinstance(given, dict):
        raise ConfigError(f"pii={given!r} must map options to values, or be null to look for no personal data")
    try:
        return PiiStep.configured(given)
    except ConfigError as error:
        raise ConfigError(f"pii: {error}") from error


def _semantic(given: Any) -> SemanticStep | None:
    if given is None:
        return None
    if not isinstance(given, dict):
        raise ConfigError(f"semantic={given!r} must map options to values, or be null to leave the step out")
    try:
        return SemanticStep.configured({str(key): value for key, value in given.items()})
    except ConfigError as error:
        raise ConfigError(f"semantic: {error}") from error


def _balance(given: Any) -> Balance | None:
    if given is None:
        return None
    if not isinstance(given, dict):
        raise ConfigError(f"balance={given!r} must map options to values, or be null to leave the mix as it is")
    try:
        return Balance.configured({str(key): value for key, value in given.items()})
    except ConfigError as error:
        raise ConfigError(f"balance: {error}") from error


def _identity(given: Any) -> IdentityTerms | None:
    if given is None:
        return None
    if not isinstance(given, dict):
        raise ConfigError(f"identity={given!r} must map categories to groups of terms, or be null to store no mentions")
    return IdentityTerms.configured(given)


def _names(key: str, given: Any) -> tuple[Any, ...]:
    if not isinstance(given, list | tuple):
        raise ConfigError(f"{key}={given!r} must be a list; write [] for none")
    return tuple(given)
