"""Runs a plugin's own code at start-up and turns whatever it raises into one error that says whose, what and where."""

from __future__ import annotations

import importlib
import pkgutil
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from poolkit.errors import ConfigError, PluginLoadError
from poolkit.registry._selection import Enabled

__all__ = ["import_object", "plugin_code"]

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
        if enabled.named is not None:
            preposition, origin = enabled.named.where.split(" ", 1)
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
