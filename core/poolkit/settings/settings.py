"""Every setting of `poolkit`, and where each value came from: command line over environment over poolkit.toml.

    [plugins.poolkit-gliner]      POOLKIT_PLUGINS__POOLKIT_GLINER__THRESHOLD=0.4
    threshold = 0.4

Names in `enable` and `disable` add up over the sources; where two sources disagree about a name, the stronger wins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from packaging.utils import canonicalize_name
from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from poolkit.config import BODY_TIMEOUT_S, MAX_BODY_BYTES, MAX_WAITING_PROMPTS, ModelConfig, PluginConfig, Reference
from poolkit.errors import ConfigError
from poolkit.settings.sources import (
    ENV_DELIMITER,
    ENV_PREFIX,
    Given,
    Layer,
    SettingPath,
    as_tables,
    read_environment,
    read_file,
    setting_paths,
)
from poolkit.validation import field_errors

__all__ = ["Given", "Resolved", "Setting", "SettingPath", "Settings", "resolve_settings", "setting_paths"]

DEFAULT_FILE = "poolkit.toml"


def _names(value: object) -> list[str]:
    """Accept "a,b" for ["a", "b"]: what environment variables and single names look like."""
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ValueError("must be a string or a list of strings")
    return [name.strip() for name in names if name.strip()]


def _secrets(value: object) -> list[str]:
    """Read names; refuse "", so that a key that got lost on its way does not leave the server open."""
    secrets = _names(value)
    if not secrets and value not in ([], ()):
        raise ValueError("is empty")
    return secrets


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)]
Secrets = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_secrets)]


class Settings(ModelConfig, BaseSettings):
    """One served model, the plugins it may use, and the server around it."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter=ENV_DELIMITER, extra="forbid", frozen=True, protected_namespaces=()
    )

    enable: Names = Field(default=(), description='Plugins to use besides the built-in ones; "*" for all installed.')
    disable: Names = Field(default=(), description="Tasks or plugins not to use.")
    plugins: dict[str, dict[str, Any]] = Field(default_factory=dict, description="Each plugin's own settings.")
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    uds: Path | None = Field(default=None, description="Unix socket to listen on, in place of host and port.")
    ssl_certfile: Path | None = Field(default=None, description="Certificate chain in PEM: clients then use HTTPS.")
    ssl_keyfile: Path | None = Field(default=None, description="The certificate's key, where it has a file of its own.")
    workers: int = Field(default=1, ge=1, description="Processes that share the port, each with the model.")
    api_key: Secrets = Field(default=(), description="Keys that clients must send as Bearer tokens.")
    named_api_keys: dict[str, SecretStr] = Field(
        default_factory=dict, description="The same by name; plugins are told the name of the key that was sent."
    )
    plugin_headers: Names = Field(
        default=(), description="Headers of a request that plugins may read. Never one that carries a key."
    )
    insecure: bool = Field(default=False, description="Listen beyond this machine without a key.")
    served_model_name: str | None = Field(
        default=None, description="The model's name in requests and answers. Default: as given."
    )
    max_body_bytes: int = Field(default=MAX_BODY_BYTES, ge=1, description="Longest request body.")
    head_timeout_s: float = Field(
        default=10.0, gt=0, description="Seconds in which a request's line and headers must come; then 408."
    )
    body_timeout_s: float = Field(
        default=BODY_TIMEOUT_S,
        gt=0,
        description="Seconds in which a request's body must come; one that comes at 16 kB/s or faster has more.",
    )
    dialects: Names = Field(
        default=(),
        description="Dialects that are asked before the others on a path they share: entry points in group "
        "poolkit.dialects.",
    )
    max_waiting_prompts: int = Field(
        default=MAX_WAITING_PROMPTS, ge=1, description="Prompts that may wait for the model; more are answered 429."
    )
    drain_timeout_s: float = Field(default=30.0, ge=0, description="Seconds for accepted requests at shut-down.")

    @property
    def models(self) -> Mapping[str | None, ModelConfig]:
        """The models to serve, by the names that clients call them; None is the model's own."""
        return {self.served_model_name: self}

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if self.ssl_keyfile is not None and self.ssl_certfile is None:
            raise ValueError("ssl_keyfile needs ssl_certfile: the certificate that it is the key of")
        return self

    @field_validator("plugins", mode="before")
    @classmethod
    def _tables_not_names(cls, value: object) -> object:
        if isinstance(value, list):
            raise ValueError("is for tables such as [plugins.poolkit-gliner]; name the plugins to use in 'enable'")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic-settings' signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read nothing implicitly: `resolve_settings` merges the sources and remembers which gave what."""
        return (init_settings,)


@dataclass(frozen=True, slots=True)
class Setting:
    """One line of `poolkit config`."""

    name: str
    value: object
    origin: str | Path


@dataclass(frozen=True, slots=True)
class Resolved:
    """The effective settings and where each came from.

    Attributes:
        settings: validated.
        plugins: what the registry is told: the names with their places, and each plugin's own settings.
        origins: by path, for what was given somewhere.
    """

    settings: Settings
    plugins: PluginConfig
    origins: Mapping[SettingPath, str | Path]

    def rows(self) -> Iterator[Setting]:
        """Yield every setting with its effective value; keys are counted, never shown."""
        for path in setting_paths(Settings):
            value: object = self.settings
            for step in path:
                value = getattr(value, step)
            if path == ("api_key",):
                value = f"<{len(self.settings.api_key)} hidden>" if self.settings.api_key else ()
            if path == ("named_api_keys",):
                value = dict.fromkeys(self.settings.named_api_keys, "<hidden>")
            if path == ("plugins",):
                for name, table in self.settings.plugins.items():
                    for key, plugin_value in table.items():
                        yield self._row((*path, name, key), plugin_value)
            else:
                yield self._row(path, value)

    def _row(self, path: SettingPath, value: object) -> Setting:
        return Setting(".".join(path), value, self.origins.get(path, "default"))


def resolve_settings(options: Layer, *, config_file: Path | None = None) -> Resolved:
    """Merge the command line's options, the environment and poolkit.toml.

    Args:
        options: what the command line gave, by path.
        config_file: None reads ./poolkit.toml if there is one.

    Raises:
        ConfigError: a key is unknown or a value cannot be used; all such are reported together.
    """
    problems: list[str] = []
    default = Path(DEFAULT_FILE)
    if config_file is None and default.is_file():
        config_file = default
    from_file = read_file(config_file, Settings, problems) if config_file is not None else {}
    layers = [from_file, read_environment(Settings, problems), options]
    merged = {path: given for layer in layers for path, given in layer.items()}
    names = _add_up_names(layers, problems)
    for key, chosen in names.items():
        if chosen:
            merged[key,] = Given([reference.name for reference in chosen], _origin_of_all(chosen))
        else:
            merged.pop((key,), None)
    tables = as_tables(merged)
    try:
        settings = Settings(**tables)  # type: ignore[arg-type]  # whether they fit is what it finds out
    except ValidationError as error:
        for field_error in field_errors(error, tables, Settings):
            origin = next(given.origin for path, given in merged.items() if _overlap(path, field_error.path))
            problems.append(f"{field_error}. It comes from {origin}.")
    if problems:
        raise ConfigError("\n".join(problems))
    plugins = PluginConfig(**names, settings=settings.plugins)
    return Resolved(settings, plugins, {path: given.origin for path, given in merged.items()})


def _add_up_names(layers: Sequence[Layer], problems: list[str]) -> dict[str, tuple[Reference, ...]]:
    """Return what is named under `enable` and under `disable`: a name counts where it was given last."""
    switches: dict[str, tuple[str, Reference]] = {}
    for layer in layers:
        for key in ("enable", "disable"):
            given = layer.get((key,))
            if given is None:
                continue
            try:
                names = _names(given.value)
            except ValueError as error:
                problems.append(f"{key} {error}. It comes from {given.origin}.")
                continue
            for name in names:
                is_option = str(given.origin).startswith("--")
                origin = f"{given.origin} {name}" if is_option else given.origin
                switches[canonicalize_name(name)] = (key, Reference(name, origin))
    return {
        key: tuple(reference for chosen_key, reference in switches.values() if chosen_key == key)
        for key in ("enable", "disable")
    }


def _origin_of_all(names: Sequence[Reference]) -> str | Path:
    origins = list(dict.fromkeys(reference.origin for reference in names))
    return origins[0] if len(origins) == 1 else ", ".join(str(origin) for origin in origins)


def _overlap(path: SettingPath, other: tuple[str | int, ...]) -> bool:
    length = min(len(path), len(other))
    return path[:length] == other[:length]
