"""A plugin's own table of settings, `[plugins.<name>]`, which all its tasks and hook modules share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from pydantic import BaseModel, ValidationError

from poolkit.errors import PluginConfigError, did_you_mean
from poolkit.registry._discovery import Plugin
from poolkit.registry._together import raise_together
from poolkit.validation import complaints

__all__ = ["read_settings", "setting_names"]


def setting_names(models: Iterable[type[BaseModel]]) -> set[str]:
    """Return the keys that any of the models knows."""
    return {field.alias or name for model in models for name, field in model.model_fields.items()}


def read_settings(plugin: Plugin, model: type[BaseModel], table: Mapping[str, object], *, known: Set[str]) -> BaseModel:
    """Return a model's part of its plugin's table; `known` are the keys of all parts.

    Raises:
        PluginConfigError: a key is unknown, or a value is wrong.
        StartupError: several of these at once.
    """
    own = setting_names([model])
    values = {name: value for name, value in table.items() if name in own}
    listing = ", ".join(sorted(known)) or "none"
    problems = [
        f"{name}: no such setting.{did_you_mean(name, sorted(known))} Settings: {listing}."
        for name in table
        if name not in known
    ]
    settings: BaseModel | None = None
    try:
        settings = model.model_validate(values)
    except ValidationError as error:
        problems += [f"{complaint}." for complaint in complaints(error, values, model)]
    where = f"[plugins.{plugin.name}]"
    raise_together([PluginConfigError(f"{where} {problem}", plugin=plugin.name) for problem in problems])
    assert settings is not None  # else there was a problem
    return settings
