"""The modules of group `poolkit.plugins`: checked at start-up, called when a task is bound or the CLI starts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING

import pluggy
from pydantic import BaseModel

from poolkit.config import PoolerConfig
from poolkit.contract import PROJECT, BindContext, NoSettings
from poolkit.errors import PluginInvalidError, did_you_mean
from poolkit.registry._checking import settings_problem
from poolkit.registry._discovery import EntryPoint, Plugin
from poolkit.registry._importing import import_object, plugin_code
from poolkit.registry._selection import Enabled
from poolkit.registry._signatures import STARTUP_HOOKS, accepted, argument_problem
from poolkit.registry._wrapping import Wrapper, check_wrapper

if TYPE_CHECKING:
    import typer

__all__ = ["HookModule", "load_hook_module"]

WRAP = "poolkit_wrap"
COMMANDS = "poolkit_commands"
SERVES = "serves"


@dataclass(frozen=True, slots=True, eq=False)
class HookModule:
    """What an entry point of an enabled plugin in group `poolkit.plugins` names.

    Attributes:
        name: of the module.
        settings: the model of its settings.
        serves: the fields of `PoolerConfig` that it gives effect to.
        hooks: its functions, by the name of the hook.
    """

    name: str
    settings: type[BaseModel]
    serves: tuple[str, ...]
    hooks: Mapping[str, Callable[..., object]]
    entry_point: EntryPoint
    enabled: Enabled

    @property
    def plugin(self) -> Plugin:
        """The plugin that provides it."""
        return self.enabled.plugin

    def wrap(self, context: BindContext, settings: BaseModel) -> tuple[Wrapper, ...]:
        """Return what the module puts around an operation.

        Raises:
            ConfigError: it serves a field of `PoolerConfig` whose value it cannot follow here.
            PluginLoadError: it raised something else.
            PluginInvalidError: what it returned does not keep the contract.
        """
        if WRAP not in self.hooks:
            return ()
        wrappers = self._call(WRAP, context, settings)
        this = f"{self.plugin}: {self.name}.{WRAP}"
        if not isinstance(wrappers, list | tuple):
            raise PluginInvalidError(
                f"{this} returned {type(wrappers).__name__}, not a list of wrappers.", plugin=self.plugin.name
            )
        return tuple(check_wrapper(wrapper, self.plugin) for wrapper in wrappers)

    def add_commands(self, cli: typer.Typer) -> None:
        """Let the module add its commands.

        Raises:
            PluginLoadError: it raised.
        """
        if COMMANDS in self.hooks:
            self._call(COMMANDS, cli)

    def _call(self, hook: str, *arguments: object) -> object:
        function = self.hooks[hook]
        with plugin_code(self.enabled, f"failed in {hook}", entry_point=str(self.entry_point)):
            return function(*(arguments[position] for position in accepted(function, STARTUP_HOOKS[hook])))


def load_hook_module(entry_point: EntryPoint, enabled: Enabled) -> HookModule:
    """Import a hook module and check it against the contract.

    Raises:
        PluginLoadError: it raised.
        PluginInvalidError: it does not keep the contract.
    """
    module = import_object(entry_point.value, enabled, entry_point=str(entry_point))
    for problem in _problems(module, entry_point):
        raise PluginInvalidError(f"{enabled.plugin}: {problem}", plugin=enabled.plugin.name)
    assert isinstance(module, ModuleType)  # or there was a problem
    hooks = {hook: function for hook, function in vars(module).items() if hook in STARTUP_HOOKS}
    settings = getattr(module, "Settings", NoSettings)
    serves = getattr(module, SERVES, ())
    return HookModule(module.__name__, settings, serves, MappingProxyType(hooks), entry_point, enabled)


def _problems(module: object, entry_point: EntryPoint) -> Iterator[str]:
    if not isinstance(module, ModuleType):
        yield (
            f"entry point {entry_point.name!r} points to an object of type {type(module).__name__}, not to a module "
            "with hooks."
        )
        return
    marks = pluggy.PluginManager(PROJECT)
    marked = [name for name in vars(module) if marks.parse_hookimpl_opts(module, name) is not None]
    listing = ", ".join(f"{hook}({', '.join(provided)})" for hook, provided in STARTUP_HOOKS.items())
    for name in marked:
        if name not in STARTUP_HOOKS:
            hint = did_you_mean(name, STARTUP_HOOKS)
            yield f"{module.__name__}.{name} is marked @hookimpl, but there is no such hook.{hint} Hooks: {listing}."
    for hook, provided in STARTUP_HOOKS.items():
        function = inspect.getattr_static(module, hook, None)
        if hook in marked:
            problem = argument_problem(function, f"{module.__name__}.{hook}", provided, is_method=False)
            if problem is not None:
                yield problem
        elif function is not None:
            yield f"{module.__name__}.{hook} is not marked. Put @hookimpl above it."
    if not marked:
        yield f"{module.__name__} has no hooks. Mark its functions with @hookimpl. Hooks: {listing}."
    yield from _serves_problems(getattr(module, SERVES, ()), f"module {module.__name__}")
    problem = settings_problem(getattr(module, "Settings", NoSettings), f"module {module.__name__}")
    if problem is not None:
        yield problem


def _serves_problems(serves: object, this: str) -> Iterator[str]:
    if not isinstance(serves, tuple):
        yield f"{this} has serves={serves!r}. Give a tuple of the names of PoolerConfig's fields."
        return
    for name in serves:
        if name not in PoolerConfig.model_fields:
            hint = did_you_mean(str(name), PoolerConfig.model_fields)
            yield f"{this} serves {name!r}, which is no field of PoolerConfig.{hint}"
