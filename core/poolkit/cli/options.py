"""Command-line options made from the settings themselves, so that no setting is written down twice."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from poolkit.config import ModelConfig
from poolkit.errors import ConfigError
from poolkit.settings.settings import Given, SettingPath, Settings, resolve_settings, setting_paths
from poolkit.validation import nested_model

__all__ = ["MODEL_SETTINGS", "takes_settings", "underscores_too"]

MODEL_SETTINGS = frozenset({*ModelConfig.model_fields, "enable", "disable"})
"""The settings of a command that runs a model and serves nobody."""

FLAGS = {"enable": "--plugin", "disable": "--no-plugin"}
SECOND_FLAGS = {"pooler_config__enable_flash_late_interaction": "--enable-flash-late-interaction"}
"""As users of other servers write them."""
NO_FLAG = {"plugins", "named_api_keys"}
PANELS = {"pooler_config": "Pooling", "enable": "Plugins", "disable": "Plugins"}

underscores_too = {"token_normalize_func": lambda token: token.replace("_", "-")}
"""Lets --max_model_len stand for --max-model-len, as users of other servers write it."""


@dataclass(frozen=True, slots=True)
class _Option:
    """One setting as an option.

    Attributes:
        path: of the setting.
        flag: how it is written; a positional argument has its metavar instead.
        parameter: what typer makes the option from.
    """

    path: SettingPath
    flag: str
    parameter: inspect.Parameter

    def read(self, value: object) -> Given:
        """Return what the command line gave."""
        if _is_table(_field(self.path)):
            try:
                value = json.loads(str(value))
            except ValueError as error:
                raise ConfigError(f"{self.flag} must be a JSON object: {error}.") from error
        return Given(value, f"--no-{self.flag[2:]}" if value is False else self.flag)


def takes_settings(
    *, model_is_positional: bool, only: Collection[str] = frozenset(Settings.model_fields)
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each setting in `only`; it gets the outcome as its first parameter, `resolved`.

    Args:
        model_is_positional: the model is the argument MODEL rather than the option --model.
        only: names of settings, without what is nested in them.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        options = [
            _make_option(path, is_positional=model_is_positional and path == ("model",))
            for path in setting_paths(Settings)
            if path[0] in only and path[0] not in NO_FLAG
        ]
        _, *own = inspect.signature(command, eval_str=True).parameters.values()

        def run(config: Path | None, **values: Any) -> None:  # noqa: ANN401 - typer's own mixture
            given = {option: values.pop(option.parameter.name) for option in options}
            layer = {option.path: option.read(value) for option, value in given.items() if _is_given(value)}
            command(resolve_settings(layer, config_file=config), **values)

        parameters = [*own, *(option.parameter for option in options), CONFIG]
        run.__name__ = command.__name__
        run.__doc__ = command.__doc__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what typer reads
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


CONFIG = inspect.Parameter(
    "config",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        Path | None,
        typer.Option("--config", help="Settings file. Default: ./poolkit.toml, if there is one.", metavar="FILE"),
    ],
)


def _is_given(value: object) -> bool:
    return value is not None and value != []


def _make_option(path: SettingPath, *, is_positional: bool) -> _Option:
    field = _field(path)
    kind = _kind(field)
    name = "__".join(path)
    if is_positional:
        flag = path[-1].upper()
        info: Any = typer.Argument(metavar=flag, help=field.description, show_default=False)
    else:
        flag = FLAGS.get(name) or "--" + ".".join(path).replace("_", "-")
        info = typer.Option(
            *(f"{one}/--no-{one[2:]}" if kind is bool else one for one in (flag, SECOND_FLAGS.get(name)) if one),
            help=_help(field),
            metavar=_metavar(field),
            show_default=False,
            rich_help_panel=PANELS.get(path[0], "Model" if path[0] in ModelConfig.model_fields else "Server"),
        )
    parameter = inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, info]
    )
    return _Option(path, flag, parameter)


def _field(path: SettingPath) -> FieldInfo:
    *outer, last = path
    model: type[BaseModel] = Settings
    for step in outer:
        model = nested_model(model.model_fields[step].annotation) or model
    return model.model_fields[last]


def _plain(field: FieldInfo) -> Any:  # noqa: ANN401 - a type annotation can be anything
    """Return the field's type without its `| None`."""
    is_union = get_origin(field.annotation) in (Union, UnionType)
    arms = get_args(field.annotation) if is_union else (field.annotation,)
    return next(arm for arm in arms if arm is not NoneType)


def _kind(field: FieldInfo) -> Any:  # noqa: ANN401 - ditto
    """Return the type that typer should read; what is finer than that is for the settings to check."""
    plain = _plain(field)
    if plain in (bool, int, float):
        return plain
    return list[str] if get_origin(plain) is tuple else str


def _is_table(field: FieldInfo) -> bool:
    return get_origin(_plain(field)) is dict


def _metavar(field: FieldInfo) -> str | None:
    plain = _plain(field)
    if get_origin(plain) is Literal:
        return "|".join(get_args(plain))
    if get_origin(plain) is tuple:
        return "NAME" if field.annotation == tuple[str, ...] else "KEY"
    return "JSON" if _is_table(field) else None


def _help(field: FieldInfo) -> str:
    description = field.description or ""
    is_told = field.default in (None, (), False) or field.default_factory is not None or "Default:" in description
    return description if is_told else f"{description} Default: {field.default}."
