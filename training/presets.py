"""The training recipes that come with Winnow, by name: without torch, so that pages may list them."""

from importlib.resources import files

PRESETS = files("training") / "recipes"


def preset_names() -> list[str]:
    """Names of the recipes that come with Winnow."""
    return sorted(one.name.removesuffix(".yaml") for one in PRESETS.iterdir() if one.name.endswith(".yaml"))
