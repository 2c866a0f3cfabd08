"""Words that name groups of people: the built-in ones, and what a recipe adds to them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from typing import Any

import yaml

from catalog.errors import ConfigError
from catalog.yaml_keys import StrictLoader
from curation.terms import TermIndex

BUILT_IN_VERSION = 1
"""Raise it when ``identity.yaml`` changes: values stored under another version are not comparable."""
SWAP = "swap"

Terms = dict[str, dict[str, tuple[str, ...]]]
"""Group (``category/group``) to language to terms."""


@dataclass(frozen=True)
class IdentityTerms:
    """Groups of people and the words that name them.

    Parameters
    ----------
    terms : ``category/group`` to language (ISO 639) to words.
    swaps : ``category/group`` to language to the forms that stand for those of the category's other groups at the same
        place, for counterfactual pairs.
    added : what was added to the built-in terms, as a recipe gave it.
    """

    terms: Mapping[str, Mapping[str, tuple[str, ...]]]
    swaps: Mapping[str, Mapping[str, tuple[str, ...]]]
    added: Mapping[str, Any]

    @classmethod
    def configured(cls, added: Mapping[str, Any] | None = None) -> "IdentityTerms":
        """The built-in terms and further ones, given as ``{category: {group: {language: [words]}}}``.

        A group that exists already gets the words besides its own. ``swap`` in the place of a language gives forms to
        swap.

        Raises
        ------
        ConfigError : not of that form, a word without a letter, or forms to swap that are not equally many.
        """
        terms, swaps = _read(_built_in(), "identity.yaml")
        more_terms, more_swaps = _read(dict(added or {}), "identity")
        for whole, more in ((terms, more_terms), (swaps, more_swaps)):
            for group, by_language in more.items():
                for language, words in by_language.items():
                    own = whole.setdefault(group, {})
                    own[language] = tuple(dict.fromkeys((*own.get(language, ()), *words)))
        _check_swaps(swaps)
        return cls(terms, swaps, dict(added or {}))

    @cached_property
    def index(self) -> TermIndex:
        """All words of all languages: one pass finds them."""
        return TermIndex(
            {group: [word for words in own.values() for word in words] for group, own in self.terms.items()}
        )

    def canonical(self) -> dict[str, Any]:
        """Plain JSON values, equal for equal terms."""
        return {"built_in": BUILT_IN_VERSION, "added": json.loads(json.dumps(self.added, sort_keys=True))}


def category_of(group: str) -> str:
    """``gender`` of ``gender/women``."""
    return group.partition("/")[0]


@cache
def _built_in() -> dict[str, Any]:
    text = (resources.files("curation.bias") / "identity.yaml").read_text("utf-8")
    found: dict[str, Any] = yaml.load(text, Loader=StrictLoader)  # noqa: S506 - a SafeLoader
    return found


def _read(given: Mapping[str, Any], where: str) -> tuple[Terms, Terms]:
    terms: Terms = {}
    swaps: Terms = {}
    for category, groups in given.items():
        for name, languages in _mapping(groups, f"{where}: {category}").items():
            group = f"{category}/{name}"
            for language, words in _mapping(languages, f"{where}: {group}").items():
                if language == SWAP:
                    forms = _mapping(words, f"{where}: {group}: swap")
                    swaps[group] = {key: _words(one, f"{where}: {group}: swap: {key}") for key, one in forms.items()}
                else:
                    terms.setdefault(group, {})[language] = _words(words, f"{where}: {group}: {language}")
    return terms, swaps


def _mapping(given: Any, where: str) -> dict[str, Any]:
    if not isinstance(given, dict) or not all(isinstance(key, str) and key for key in given):
        raise ConfigError(f"{where}={given!r} must map names to values: category, group, language, [words]")
    return given


def _words(given: Any, where: str) -> tuple[str, ...]:
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise ConfigError(f"{where}={given!r} must be a list of words; quote what YAML takes for something else")
    for one in given:
        if not any(character.isalnum() for character in one):
            raise ConfigError(f"{where}: {one!r} has no letter or digit to look for; remove it")
    return tuple(given)


def _check_swaps(swaps: Terms) -> None:
    sizes: dict[tuple[str, str], tuple[int, str]] = {}
    for group, by_language in swaps.items():
        for language, words in by_language.items():
            key = (category_of(group), language)
            number, other = sizes.setdefault(key, (len(words), group))
            if number != len(words):
                raise ConfigError(
                    f"identity: {group} has {len(words)} forms to swap in {language!r} and {other} has {number}; "
                    "give equally many, in the same order"
                )
