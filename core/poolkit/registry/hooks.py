"""Modules of group `poolkit.plugins`, and the wrappers that they return: loaded, checked and called."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Self, TypeAlias

import pluggy
from pydantic import BaseModel

from poolkit.config import PoolerConfig
from poolkit.contract import PROJECT, BindContext, EncodedPrompt, NoSettings, Outcome
from poolkit.errors import did_you_mean
from poolkit.registry.check import (
    PROCESSOR_HOOKS,
    STARTUP_HOOKS,
    accepted,
    argument_problem,
    settings_problems,
)
from poolkit.registry.discover import EntryPoint, Plugin
from poolkit.registry.importing import plugin_code
from poolkit.registry.select import Enabled

if TYPE_CHECKING:
    import typer

__all__ = ["HookModule", "Wrapper", "module_problems"]

logger = logging.getLogger(__name__)

WRAP = "poolkit_wrap"
COMMANDS = "poolkit_commands"
SERVES = "serves"
SETTINGS = "Settings"
RUN = "run"
RunGenerator: TypeAlias = Generator[Sequence[EncodedPrompt], Sequence[Outcome], Sequence[Outcome]]
Run: TypeAlias = Callable[[Sequence[EncodedPrompt]], RunGenerator]

OTHER_OPTIONS = ("hookwrapper", "tryfirst", "trylast", "optionalhook", "specname")
"""Options of pluggy's marker that mean nothing here: plugins stand around each other as they were enabled."""


@dataclass(frozen=True, slots=True, eq=False)
class HookModule:
    """A hook module of an enabled plugin.

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

    @classmethod
    def read(cls, module: ModuleType, entry_point: EntryPoint, enabled: Enabled) -> Self:
        """Return a module that has been checked."""
        return cls(
            name=module.__name__,
            settings=getattr(module, SETTINGS, NoSettings),
            serves=getattr(module, SERVES, ()),
            hooks=MappingProxyType({hook: value for hook, value in vars(module).items() if hook in STARTUP_HOOKS}),
            entry_point=entry_point,
            enabled=enabled,
        )

    def wrap(self, context: BindContext, settings: BaseModel) -> tuple[Wrapper, ...]:
        """Return the wrappers that the module puts around an operation.

        Raises:
            ConfigError: it serves a field of `PoolerConfig` whose value it cannot follow here.
            PluginLoadError: it raised something else.
            PluginInvalidError: what it returned breaks the contract.
        """
        if WRAP not in self.hooks:
            return ()
        wrappers = self._call(WRAP, context, settings)
        if not isinstance(wrappers, list | tuple):
            raise self.plugin.invalid(f"{self.name}.{WRAP} returned {type(wrappers).__name__}, not a list of wrappers.")
        return tuple(_check_wrapper(wrapper, self.plugin) for wrapper in wrappers)

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


@dataclass(frozen=True, slots=True, eq=False)
class Wrapper:
    """An object that surrounds hooks of one operation.

    Attributes:
        target: the plugin's object.
        plugin: the plugin that returned it.
        hooks: its bound methods, by the name of the hook.
        run: its generator around the model, if it has one.
        takes_long_prompts: True if `run` is given prompts that are longer than the model's maximum, and splits them.
        never_blocks: True if its methods may run on an event loop.
    """

    target: object
    plugin: Plugin
    hooks: Mapping[str, Callable[..., object]]
    run: Run | None
    takes_long_prompts: bool
    never_blocks: bool

    def close(self) -> None:
        """Call the object's `close`, if it has one. A failure is logged: the others must still be closed."""
        close = getattr(self.target, "close", None)
        if close is None:
            return
        try:
            close()
        except (Exception, SystemExit):
            logger.exception("%s of %s failed in close.", type(self.target).__name__, self.plugin)


def module_problems(module: ModuleType) -> Iterator[str]:
    """Yield each way in which a hook module breaks the contract."""
    name = module.__name__
    marked = _marked(module, list(vars(module)))
    yield from _unknown_hooks(marked, name, STARTUP_HOOKS)
    for hook, provided in STARTUP_HOOKS.items():
        function = inspect.getattr_static(module, hook, None)
        if hook not in marked and function is not None:
            yield f"{name}.{hook} is not marked. Put @hookimpl above it."
        elif hook in marked and (problem := argument_problem(function, f"{name}.{hook}", provided, is_method=False)):
            yield problem
    if not marked:
        yield f"{name} has no hooks. Mark its functions with @hookimpl. {_listing(STARTUP_HOOKS)}"
    yield from _serves_problems(getattr(module, SERVES, ()), f"module {name}")
    yield from settings_problems(getattr(module, SETTINGS, NoSettings), f"module {name}")


def _serves_problems(serves: object, subject: str) -> Iterator[str]:
    if not isinstance(serves, tuple):
        yield f"{subject} has serves={serves!r}. Give a tuple of the names of PoolerConfig's fields."
        return
    for name in serves:
        if name not in PoolerConfig.model_fields:
            hint = did_you_mean(str(name), PoolerConfig.model_fields)
            yield f"{subject} serves {name!r}, which is no field of PoolerConfig.{hint}"


def _check_wrapper(target: object, plugin: Plugin) -> Wrapper:
    """Look at the wrapper's class, whose properties are not run."""
    kind = type(target)
    marked = _marked(kind, [name for name in dir(kind) if not name.startswith("__")])
    for problem in _wrapper_problems(kind, marked):
        raise plugin.invalid(problem)
    hooks = {name: getattr(target, name) for name in marked}
    return Wrapper(
        target,
        plugin,
        MappingProxyType(hooks),
        getattr(target, RUN, None),
        takes_long_prompts=bool(getattr(target, "takes_long_prompts", False)),
        never_blocks=bool(getattr(target, "never_blocks", False)),
    )


def _wrapper_problems(kind: type, marked: Mapping[str, pluggy.HookimplOpts]) -> Iterator[str]:
    run = inspect.getattr_static(kind, RUN, None)
    if run is not None:
        yield from _run_problems(run, f"{kind.__name__}.{RUN}", is_marked=RUN in marked)
    elif not marked:
        yield (
            f"{kind.__name__} surrounds nothing. Mark its methods with @hookimpl(wrapper=True), or define "
            f"{RUN}(self, encoded). {_listing(PROCESSOR_HOOKS)}"
        )
    yield from _unknown_hooks(marked, kind.__name__, PROCESSOR_HOOKS)
    for name, options in marked.items():
        subject = f"{kind.__name__}.{name}"
        meaningless = [option for option in OTHER_OPTIONS if options.get(option)]
        if meaningless:
            yield f"{subject} is marked with {meaningless[0]}. Mark it with @hookimpl(wrapper=True) alone."
        method = inspect.getattr_static(kind, name)
        problem = argument_problem(method, subject, PROCESSOR_HOOKS[name], is_method=True)
        if problem is not None:
            yield problem
        elif not options["wrapper"]:
            yield f"{subject} surrounds a processor: mark it with @hookimpl(wrapper=True)."
        elif not inspect.isgeneratorfunction(method):
            yield f"{subject} has no yield. What it surrounds runs where it yields, once."


def _run_problems(run: object, subject: str, *, is_marked: bool) -> Iterator[str]:
    problem = argument_problem(run, subject, ("encoded",), is_method=True)
    if problem is not None:
        yield problem
    elif is_marked:
        yield f"{subject} is no hook. Leave out @hookimpl."
    elif not inspect.isgeneratorfunction(run):
        yield f"{subject} has no yield. It yields the prompts to run and is sent their outputs, once."
    elif "encoded" not in inspect.signature(run).parameters:
        yield f"{subject} does not take 'encoded'. Write it as a method: def run(self, encoded)."


def _marked(holder: object, names: Iterable[str]) -> dict[str, pluggy.HookimplOpts]:
    """Return pluggy's options of each function that is marked as a hook."""
    marks = pluggy.PluginManager(PROJECT)
    options = {name: marks.parse_hookimpl_opts(holder, name) for name in names}
    return {name: given for name, given in options.items() if given is not None}


def _unknown_hooks(marked: Iterable[str], subject: str, hooks: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    for name in marked:
        if name not in hooks and name != RUN:
            hint = did_you_mean(name, hooks)
            yield f"{subject}.{name} is marked @hookimpl, but there is no such hook.{hint} {_listing(hooks)}"


def _listing(hooks: Mapping[str, tuple[str, ...]]) -> str:
    listing = ", ".join(f"{hook}({', '.join(provided)})" for hook, provided in hooks.items())
    return f"Hooks: {listing}."
