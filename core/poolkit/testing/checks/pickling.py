"""The check that a plugin gets to worker processes."""

from __future__ import annotations

import base64
import pickle
from collections.abc import Iterator

from poolkit.testing.checks.check import check
from poolkit.testing.checks.contract import settings_can_be_given
from poolkit.testing.checks.plugin import NotApplicableError, PluginUnderTest, format_error

__all__ = ["descriptors_pickle"]


@check(since="0.1", needs=(settings_can_be_given,))
def descriptors_pickle(plugin: PluginUnderTest) -> Iterator[str]:
    """Descriptors and settings can be pickled, and are the same in another process."""
    if not plugin.parts:
        raise NotApplicableError("the plugin has neither descriptors nor settings")
    if plugin.import_effects["failure"] is not None:
        raise NotApplicableError("it cannot be imported")
    for name, pickled in plugin.import_effects["pickles"].items():
        if pickled["error"]:
            yield f"{name} cannot be pickled: {pickled['error']}."
            continue
        try:
            part = pickle.loads(base64.b64decode(pickled["data"]))  # noqa: S301 - of the plugin that is being run anyway
        except Exception as error:  # noqa: BLE001 - unpickling runs the plugin's own code
            yield f"{name} cannot be unpickled in another process: {format_error(error)}."
        else:
            if part != plugin.parts[name]:
                yield f"{name} comes out of another process as something else."
