"""YAML in which every key is given once: of two equal keys the libraries keep the last without a word.

Numbers are those of YAML 1.2 too: in 1.1, which the library reads, 1e-3 without a point and a sign is a text.
"""

import re
from typing import Any

import yaml

from catalog.errors import ConfigError


class UniqueKeys(yaml.constructor.BaseConstructor):
    """To be put before a loader of ``yaml``: a mapping with a repeated key is refused."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        """Make a mapping of its node.

        Raises
        ------
        ConfigError : a key is given twice, with both lines.
        """
        lines: dict[Any, int] = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue  # Refused by the loader itself, as it can be no key of a dict.
            key, line = self.construct_object(key_node), key_node.start_mark.line + 1
            if key in lines:
                raise ConfigError(f"key {key!r} is given twice, in lines {lines[key]} and {line}; keep one of them")
            lines[key] = line
        return super().construct_mapping(node, deep=deep)


class StrictLoader(UniqueKeys, yaml.SafeLoader):
    """What ``yaml.safe_load`` reads, but every key once, and numbers like 1e-3 as numbers (YAML 1.2.2, section 10.3.2).

    Examples
    --------
    >>> yaml.load("[1e-3, 2E5, -1.5e3, 1e-3x]", Loader=StrictLoader)
    [0.001, 200000.0, -1500.0, '1e-3x']
    >>> yaml.load("a: 1\\nb: 2\\na: 3", Loader=StrictLoader)
    Traceback (most recent call last):
    catalog.errors.ConfigError: key 'a' is given twice, in lines 1 and 3; keep one of them
    """


StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)[eE][-+]?[0-9]+\Z"),
    list("-+.0123456789"),
)
