"""The step of a recipe that looks for personal data: what is looked for, and what becomes of each kind."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from catalog.errors import ConfigError, NotFoundError, nearest
from curation.pii import KINDS
from curation.pii.finding import MIN_CONFIDENCE
from curation.rules.bounds import Bounds

REPLACING = ("tag", "mask", "hash")
ACTIONS = ("report", *REPLACING, "drop")
IGNORE = "ignore"
"""What a recipe may say of a kind instead, so that it is not looked for."""


@dataclass(frozen=True, kw_only=True)
class KindStep:
    """What becomes of one kind.

    Parameters
    ----------
    action : ``report`` counts and leaves the text; ``tag`` writes the kind's name, ``mask`` stars, ``hash`` a
        pseudonym made with the key of the settings; ``drop`` lets the record leave.
    maximum : values of the kind up to which a record stays; None is any number, and 0 for ``drop``.
    """

    action: str = "report"
    maximum: int | None = None

    def __post_init__(self) -> None:
        """Refuse an unknown action, and bounds that are none."""
        if self.action not in ACTIONS:
            raise ConfigError(f"action={self.action!r} is none; {nearest(str(self.action), ACTIONS)}")
        if self.maximum is not None and (
            isinstance(self.maximum, bool) or not isinstance(self.maximum, int) or self.maximum < 0
        ):
            raise ConfigError(f"maximum={self.maximum!r} must be a whole number from 0, or null for any number")
        if self.action == "drop" and self.maximum:
            raise ConfigError(
                f"maximum={self.maximum} contradicts action drop, by which one value is enough; leave it out"
            )

    @property
    def most(self) -> int | None:
        """Values up to which a record stays."""
        return 0 if self.action == "drop" else self.maximum


@dataclass(frozen=True, kw_only=True)
class PiiStep:
    """Which kinds are looked for, and what becomes of them.

    Parameters
    ----------
    kinds : name to action, at least one.
    min_confidence : a value below it is not one, in (0, 1]. From 0.5 the shape or a word beside it makes the case.
    """

    kinds: Mapping[str, KindStep] = field(default_factory=dict)
    min_confidence: float = MIN_CONFIDENCE

    def __post_init__(self) -> None:
        """Refuse unknown kinds and values out of their range."""
        if not self.kinds:
            raise ConfigError("kinds is empty: nothing would be looked for; leave 'pii' out of the recipe instead")
        for name in self.kinds:
            _known(name)
        confidence = self.min_confidence
        if isinstance(confidence, bool) or not isinstance(confidence, int | float) or not 0 < confidence <= 1:
            raise ConfigError(f"min_confidence={confidence!r} must lie in (0, 1]")

    @classmethod
    def configured(cls, given: Mapping[str, Any]) -> "PiiStep":
        """Build the step from the keys ``action`` (of all kinds that are not named), ``kinds`` and ``min_confidence``.

        A kind's value is an action, ``ignore``, or ``{action: …, maximum: …}``. Kinds that need a model are looked for
        only where they are named.

        Raises
        ------
        ConfigError : an unknown key, kind or action, with the nearest known one; a value out of its range.
        """
        known = ("action", "kinds", "min_confidence")
        for key in given:
            if key not in known:
                raise ConfigError(f"unknown option {key!r}; {nearest(str(key), known)}")
        common = given.get("action", "report")
        if common not in (*ACTIONS, IGNORE):
            raise ConfigError(f"action={common!r} is none; {nearest(str(common), (*ACTIONS, IGNORE))}")
        named = given.get("kinds") or {}
        if not isinstance(named, Mapping):
            raise ConfigError(f"kinds={named!r} must map kinds to actions, e.g. {{phone: mask}}")
        kinds = {name: common for name, one in KINDS.load().items() if one.member.default} | {
            _known(name): value for name, value in named.items()
        }
        steps = {name: _kind_step(name, value, common) for name, value in sorted(kinds.items()) if value != IGNORE}
        return cls(kinds=steps, min_confidence=given.get("min_confidence", MIN_CONFIDENCE))

    def canonical(self) -> dict[str, Any]:
        """The step as plain JSON values, complete, with the version of each kind."""
        kinds = {
            name: {"version": KINDS[name].version, "action": one.action, "maximum": one.maximum}
            for name, one in sorted(self.kinds.items())
        }
        return {"min_confidence": float(self.min_confidence), "kinds": kinds}

    @classmethod
    def of_canonical(cls, canonical: Mapping[str, Any]) -> "PiiStep":
        """The step again."""
        kinds = {name: {"action": one["action"], "maximum": one["maximum"]} for name, one in canonical["kinds"].items()}
        return cls.configured({"action": IGNORE, "min_confidence": canonical["min_confidence"], "kinds": kinds})

    def written(self) -> dict[str, Any]:
        """The step as a recipe file has it, every kind named."""
        kinds = {name: {"action": one.action, "maximum": one.maximum} for name, one in sorted(self.kinds.items())}
        return {"action": IGNORE, "min_confidence": float(self.min_confidence), "kinds": kinds}

    @property
    def replaces(self) -> bool:
        """Whether texts change."""
        return any(one.action in REPLACING for one in self.kinds.values())

    @property
    def needs_key(self) -> bool:
        """Whether pseudonyms are written."""
        return any(one.action == "hash" for one in self.kinds.values())

    def bounds(self) -> dict[str, Bounds]:
        """Bounds of the counts by which a record leaves, by the name of their column."""
        return {
            column(name): Bounds(maximum=float(one.most)) for name, one in self.kinds.items() if one.most is not None
        }

    def require(self) -> None:
        """Refuse what cannot run here.

        Raises
        ------
        ConfigError : a kind needs a package that is not installed, and how to install it.
        """
        for name in self.kinds:
            require = KINDS[name].member.require
            if require is not None:
                require()


def column(kind: str) -> str:
    """Under which name the count of a kind is stored, and by which a record leaves.

    >>> column("email")
    'pii_email'
    """
    return f"pii_{kind}"


def _known(name: Any) -> str:
    try:
        return KINDS[name].name if isinstance(name, str) else KINDS[str(name)].name
    except NotFoundError as error:
        raise ConfigError(str(error)) from error


def _kind_step(name: str, given: Any, common: str) -> KindStep:
    if isinstance(given, Mapping):
        known = [one.name for one in fields(KindStep)]
        for key in given:
            if key not in known:
                raise ConfigError(f"{name}: unknown option {key!r}; {nearest(str(key), known)}")
        values = {"action": common, **given}
        if values["action"] == IGNORE:
            raise ConfigError(f"{name}: ignore takes no further options; write `{name}: ignore`")
    else:
        values = {"action": given}
    try:
        return KindStep(**values)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error
