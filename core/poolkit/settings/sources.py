"""Reads poolkit.toml and the environment into layers: flat records of who gave which value."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeAlias

import importlib_metadata
from packaging.utils import canonicalize_name
from pydantic import BaseModel
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsError

from poolkit.errors import ConfigError, did_you_mean
from poolkit.validation import nested_model

__all__ = [
    "ENV_DELIMITER",
    "ENV_PREFIX",
    "Given",
    "Layer",
    "SettingPath",
    "as_tables",
    "read_environment",
    "read_file",
    "setting_paths",
]

ENV_PREFIX = "POOLKIT_"
ENV_DELIMITER = "__"
FREE_TABLES = ("plugins", "hf_overrides", "named_api_keys")
"""Tables whose keys are not poolkit's."""
SEE_ALL = " Run  poolkit config  to see every setting."

SettingPath: TypeAlias = tuple[str, ...]
"""`("pooler_config", "task")`: the keys that lead to a setting."""


@dataclass(frozen=True, slots=True)
class Given:
    """A value somebody gave, and where: a file, an environment variable or an option."""

    value: object
    origin: str | Path


Layer: TypeAlias = Mapping[SettingPath, Given]
"""The settings of one source."""


def read_file(path: Path, model: type[BaseModel], problems: list[str]) -> Layer:
    """Return what a TOML file gives; keys that `model` does not have go to `problems`."""
    origin = path.resolve()
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"The settings file {origin} cannot be read: {error.strerror}.") from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise ConfigError(f"The settings file {origin} is not valid TOML: {error}.") from error
    layer = {}
    for path_, value in _leaves(data, model):
        known = _known_instead(path_, model)
        if known is None:
            layer[_normalised(path_)] = Given(value, origin)
        else:
            hint = did_you_mean(path_[-1], known) or SEE_ALL
            problems.append(f"{origin}: there is no setting {'.'.join(path_)!r}.{hint}")
    return layer


def read_environment(model: type[BaseSettings], problems: list[str]) -> Layer:
    """Return what the environment gives; variables that `model` does not have go to `problems`.

    One that is named as an installed distribution, POOLKIT_CPU_KERNELS as poolkit-cpu-kernels, is that one's.
    """
    variables = {name.lower(): name for name in os.environ if name.upper().startswith(ENV_PREFIX)}
    for lower, name in variables.items():
        path = tuple(lower.removeprefix(ENV_PREFIX.lower()).split(ENV_DELIMITER))
        known = _known_instead(path, model)
        if known is not None and not _names_distribution(name):
            close = get_close_matches(path[-1], known, n=1)
            hint = f" Did you mean {_variable((*path[:-1], close[0]))!r}?" if close else SEE_ALL
            problems.append(f"Environment variable {name}: there is no such setting.{hint}")
    try:
        data = EnvSettingsSource(model)()
    except SettingsError as error:  # names the field and nothing else
        field = next(field for field in model.model_fields if f'"{field}"' in str(error))
        raise ConfigError(
            f"Environment variable {_variable((field,))} is not valid JSON: {error.__cause__}."
        ) from error
    layer = {}
    for path, value in _leaves(data, model):
        if _known_instead(path, model) is not None:
            continue  # told above
        candidates = (_variable(path[:length]).lower() for length in range(len(path), 0, -1))
        origin = next(variables[candidate] for candidate in candidates if candidate in variables)
        layer[_normalised(path)] = Given(value, origin)
    return layer


def _names_distribution(variable: str) -> bool:
    try:
        importlib_metadata.distribution(canonicalize_name(variable))
    except importlib_metadata.PackageNotFoundError:
        return False
    return True


def setting_paths(model: type[BaseModel]) -> Iterator[SettingPath]:
    """Yield the path of every setting that `model` holds, nested models included."""
    for name, field in model.model_fields.items():
        nested = nested_model(field.annotation)
        if nested is None:
            yield (name,)
        else:
            yield from ((name, *path) for path in setting_paths(nested))


def as_tables(layer: Layer) -> dict[str, object]:
    """Return the values of a layer as the nested tables they stand for."""
    tables: dict[str, Any] = {}
    for path, given in layer.items():
        table = tables
        for step in path[:-1]:
            table = table.setdefault(step, {})
        table[path[-1]] = given.value
    return tables


def _leaves(
    data: Mapping[str, Any], model: type[BaseModel] | None, prefix: SettingPath = ()
) -> Iterator[tuple[SettingPath, object]]:
    """Yield the settings in nested tables; a table that is itself a value (hf_overrides) stays whole."""
    for key, value in data.items():
        path = (*prefix, key)
        field = model.model_fields.get(key) if model else None
        nested = nested_model(field.annotation) if field else None
        holds_settings = nested is not None or (path[0] == "plugins" and len(path) <= len(("plugins", "<name>")))
        if isinstance(value, Mapping) and holds_settings:
            yield from _leaves(value, nested, path)
        else:
            yield path, value


def _known_instead(path: SettingPath, model: type[BaseModel]) -> list[str] | None:
    """Return the keys that would be right where one of `path` is not, or None if all are right."""
    table: type[BaseModel] | None = model
    for step in path:
        if table is None:
            return []
        if step not in table.model_fields:
            return list(table.model_fields)
        if step in FREE_TABLES:
            return None
        table = nested_model(table.model_fields[step].annotation)
    return None


def _normalised(path: SettingPath) -> SettingPath:
    is_plugin = path[0] == "plugins" and len(path) > 1
    return ("plugins", canonicalize_name(path[1]), *path[2:]) if is_plugin else path


def _variable(path: SettingPath) -> str:
    return ENV_PREFIX + ENV_DELIMITER.join(path).upper()
