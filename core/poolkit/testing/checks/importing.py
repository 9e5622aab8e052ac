"""Checks of the effects of importing a plugin. A fresh interpreter tries it first: they cannot be undone here."""

from __future__ import annotations

from collections.abc import Iterator

from poolkit.testing.checks.check import check
from poolkit.testing.checks.plugin import NotApplicableError, PluginUnderTest
from poolkit.testing.child import DiedError

__all__ = ["import_is_light", "import_is_quiet", "import_is_survived"]


@check(since="0.1")
def import_is_survived(plugin: PluginUnderTest) -> Iterator[str]:
    """Importing descriptors, processors and hook modules does not end the interpreter."""
    try:
        _ = plugin.import_effects
    except DiedError as error:
        yield f"{error}."


@check(since="0.1", needs=(import_is_survived,))
def import_is_light(plugin: PluginUnderTest) -> Iterator[str]:
    """Importing the plugin imports none of torch, transformers and uvicorn."""
    _must_import(plugin)
    for heavy in plugin.import_effects["heavy"]:
        yield f"it imports {heavy}. Import that where it is used, in a function."


@check(since="0.1", needs=(import_is_survived,))
def import_is_quiet(plugin: PluginUnderTest) -> Iterator[str]:
    """Importing the plugin starts, prints, writes and changes nothing."""
    _must_import(plugin)
    for effect in plugin.import_effects["effects"]:
        yield f"importing it {effect}."


def _must_import(plugin: PluginUnderTest) -> None:
    failure = plugin.import_effects["failure"]
    if failure is not None:
        raise NotApplicableError(f"importing it raises {failure}; another check says more")
