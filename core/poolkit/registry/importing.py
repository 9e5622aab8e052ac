"""Run a plugin's own code at start-up; tell every failure as an error that says whose, what and where."""

from __future__ import annotations

import importlib
import pkgutil
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from packaging.specifiers import SpecifierSet

from poolkit.errors import ConfigError, PluginIncompatibleError, PluginLoadError, PoolkitError, StartupError
from poolkit.registry.discover import Plugin
from poolkit.registry.select import Enabled

__all__ = ["check_requirement", "collected", "import_object", "plugin_code", "raise_grouped"]

OURS = Path(__file__).parent
IMPORT_MACHINERY = (importlib.__file__, pkgutil.__file__)


@contextmanager
def plugin_code(enabled: Enabled, failure: str, **source: str) -> Iterator[None]:
    """Raise PluginLoadError for anything the block raises, `sys.exit` included, but for ConfigError.

    Args:
        enabled: whose code the block runs.
        failure: what it failed to do: "failed to import".
        source: one line that says where the code was named, as `label="text"`.
    """
    try:
        yield
    except ConfigError:
        raise  # about a setting of the operator's, not the plugin's failure
    except (Exception, SystemExit) as error:
        lines = {label.replace("_", " "): text for label, text in source.items()}
        if site := _raised_at(error):
            lines["raised at"] = site
        if enabled.reference is not None:
            preposition, origin = enabled.reference.where.split(" ", 1)
            lines[f"enabled {preposition}"] = origin
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        table = "".join(f"\n  {label:<11}  {text}" for label, text in lines.items())
        raise PluginLoadError(f"{enabled.plugin} {failure}: {reason}{table}", plugin=enabled.plugin.name) from error


def import_object(path: str, enabled: Enabled, **source: str) -> object:
    """Import what "module:attribute" names.

    Raises:
        PluginLoadError: the plugin raised, or there is no such module or attribute.
    """
    with plugin_code(enabled, "failed to import", **source):
        return pkgutil.resolve_name(path)


def check_requirement(plugin: Plugin, core: Plugin) -> None:
    """Raise PluginIncompatibleError if the plugin was written for another poolkit: its import may fail in odd ways."""
    if not SpecifierSet(plugin.requires_poolkit).contains(core.version, prereleases=True):
        raise PluginIncompatibleError(
            f"{plugin} needs poolkit {plugin.requires_poolkit}; {core} is running. Install versions that fit.",
            plugin=plugin.name,
        )


@contextmanager
def collected(errors: list[PoolkitError]) -> Iterator[None]:
    """Add what the block raises to `errors`, which are raised together once everything has been tried."""
    try:
        yield
    except StartupError as error:
        errors += error.errors
    except PoolkitError as error:
        errors.append(error)


def raise_grouped(errors: Sequence[PoolkitError]) -> None:
    """Raise the only error as it is, several as one StartupError, and nothing if there are none.

    Equal ones are told once: what is wrong with a wrapper is found again at each operation that it wraps.
    """
    distinct = list({(type(error), str(error)): error for error in errors}.values())
    if len(distinct) == 1:
        raise distinct[0]
    if distinct:
        raise StartupError(distinct)


def _raised_at(error: BaseException) -> str | None:
    """Return file and line of the deepest frame that is neither ours nor Python's import machinery."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    site = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        if not file.startswith("<frozen ") and file not in IMPORT_MACHINERY and Path(file).parent != OURS:
            site = f"{file}:{line}"
    return site
