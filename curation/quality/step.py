"""The recipe's quality scores: which model, of what version, and the bounds of what it measures."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalog.errors import ConfigError, nearest
from curation.quality import SCORERS
from curation.rules.bounds import Bounds

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_OPTIONS = ("label", "version", "minimum", "maximum")


@dataclass(frozen=True, kw_only=True)
class QualityStep:
    """One score that a recipe asks for.

    Parameters
    ----------
    scorer : registered kind: ``classifier``, ``perplexity`` or ``model``.
    model : name of a trained model, or the path of a folder.
    version : of the trained model; None is the newest when the run is asked for.
    label : of a folder's model, whose score it is.
    bounds : within which a record is kept; both open measures only.
    pin : the file behind the name, or the digest of the folder, once the run is asked for.
    """

    scorer: str
    model: str
    version: int | None = None
    label: str | None = None
    bounds: Bounds = Bounds()  # noqa: RUF009 - frozen
    pin: Mapping[str, Any] | None = None

    @property
    def column(self) -> str:
        """The measured value's name, among those of the rules."""
        name = self.model if self.is_trained else Path(self.model).name
        parts = (self.scorer, name, self.label if self.label is not None else "")
        return "_".join(re.sub(r"\W+", "_", part).strip("_").lower() for part in parts if part)

    @property
    def is_trained(self) -> bool:
        """Whether the model is stored under a name, rather than a folder."""
        found: bool = SCORERS[self.scorer].config().is_trained
        return found

    @classmethod
    def configured(cls, given: Any) -> "QualityStep":
        """From a recipe's keys, e.g. ``{classifier: good, minimum: 0.5}``.

        Raises
        ------
        ConfigError : no scorer or several, an unknown key (with the nearest), or a value out of range.
        """
        if not isinstance(given, Mapping):
            raise ConfigError(f"{given!r} must map a scorer to a model, e.g. {{classifier: NAME, minimum: 0.5}}")
        known = [*SCORERS, *_OPTIONS]
        for key in given:
            if key not in known:
                raise ConfigError(f"unknown option {key!r}; {nearest(str(key), known)}")
        named = [key for key in given if key in SCORERS]
        if len(named) != 1:
            raise ConfigError(f"{dict(given)!r} must name one scorer of {', '.join(SCORERS)}, not {len(named)}")
        (scorer,) = named
        try:
            bounds = Bounds(minimum=given.get("minimum"), maximum=given.get("maximum"))
        except ValueError as error:
            raise ConfigError(str(error)) from error
        step = cls(
            scorer=scorer,
            model=given[scorer],
            version=given.get("version"),
            label=given.get("label"),
            bounds=bounds,
        )
        step._check()
        return step

    def _check(self) -> None:
        if not isinstance(self.model, str) or not self.model:
            raise ConfigError(f"{self.scorer}={self.model!r} must be the name of a model, or a folder of one")
        if self.label is not None and not isinstance(self.label, str):
            raise ConfigError(f"label={self.label!r} must be text; quote it in YAML")
        if not self.is_trained and self.version is not None:
            raise ConfigError("version is of trained models; a folder is known by its content")
        if self.is_trained:
            check_name(self.model)
            if self.label is not None:
                raise ConfigError(f"label={self.label!r} is of a folder's model; {self.scorer} has none")
        if self.version is not None and (
            isinstance(self.version, bool) or not isinstance(self.version, int) or self.version < 1
        ):
            raise ConfigError(f"version={self.version!r} must be a whole number from 1")

    def canonical(self) -> dict[str, Any]:
        """Plain JSON values, without the bounds, which stand among those of the rules."""
        return {
            "scorer": self.scorer,
            "model": self.model,
            "version": self.version,
            "label": self.label,
            "pin": None if self.pin is None else dict(self.pin),
        }

    @classmethod
    def from_canonical(cls, stored: Mapping[str, Any], rules: Mapping[str, Any]) -> "QualityStep":
        """The step of ``canonical``, with its bounds from the stored rules."""
        step = cls(**stored)
        bounds = rules[step.column]
        return cls(**stored, bounds=Bounds(minimum=bounds["minimum"], maximum=bounds["maximum"]))


def check_name(name: str) -> str:
    """The name of a trained model, if it is one.

    Raises
    ------
    ConfigError : it is not.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ConfigError(f"model name {name!r} must be 1 to 40 of a-z, 0-9, '_', '-'")
    return name


def quality_steps(given: Any) -> tuple[QualityStep, ...]:
    """A recipe's ``quality``: one score, a list of them, or null.

    Raises
    ------
    ConfigError : see ``QualityStep.configured``; or one score stands twice.
    """
    if given is None:
        return ()
    listed = list(given) if isinstance(given, list | tuple) else [given]
    try:
        steps = tuple(one if isinstance(one, QualityStep) else QualityStep.configured(one) for one in listed)
    except ConfigError as error:
        raise ConfigError(f"quality: {error}") from error
    columns = [one.column for one in steps]
    for column in columns:
        if columns.count(column) > 1:
            raise ConfigError(f"quality: {column} stands twice; give each score once, with both bounds")
    return steps
