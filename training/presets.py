"""The training recipes that come with Winnow, by name: without torch, so that pages may list them."""

from importlib.resources import files

PRESETS = files("training") / "recipes"
PURPOSES = {
    "classify": "two small classifiers: a mixture of experts from nothing, and MiniLM adapted with LoRA",
    "classify-small": "one small classifier from nothing, any language",
    "pretrain": "an encoder from texts alone, to start classifiers from",
}
"""What each preset is for, in a few words."""


def preset_names() -> list[str]:
    """Names of the recipes that come with Winnow."""
    return sorted(one.name.removesuffix(".yaml") for one in PRESETS.iterdir() if one.name.endswith(".yaml"))


def preset_text(name: str) -> str:
    """The file of a preset, with its comments."""
    return (PRESETS / f"{name}.yaml").read_text(encoding="utf-8")
