"""What surrounds a processor: the objects that `poolkit_wrap` returns, checked."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import pluggy

from poolkit.contract import PROJECT, EncodedPrompt, PooledOutput
from poolkit.errors import PluginInvalidError, did_you_mean
from poolkit.registry._discovery import Plugin
from poolkit.registry._signatures import PROCESSOR_HOOKS, argument_problem

__all__ = ["Wrapper", "check_wrapper"]

logger = logging.getLogger(__name__)

Run = Callable[
    [Sequence[EncodedPrompt]],
    Generator[Sequence[EncodedPrompt], Sequence[PooledOutput | Exception], Sequence[PooledOutput | Exception]],
]
RUN = "run"

OTHER_OPTIONS = ("hookwrapper", "tryfirst", "trylast", "optionalhook", "specname")
"""Options of pluggy's marker that mean nothing here: plugins stand around each other as they were enabled."""


@dataclass(frozen=True, slots=True, eq=False)
class Wrapper:
    """An object that surrounds hooks of one operation.

    Attributes:
        target: the plugin's object.
        plugin: whose it is.
        hooks: its bound methods, by the name of the hook.
        run: its generator around the model, if it has one.
    """

    target: object
    plugin: Plugin
    hooks: Mapping[str, Callable[..., object]]
    run: Run | None

    def close(self) -> None:
        """Release what the object took, if it has a `close`. A failure is logged: the others must still be closed."""
        close = getattr(self.target, "close", None)
        if close is None:
            return
        try:
            close()
        except (Exception, SystemExit):
            logger.exception("%s of %s failed in close.", type(self.target).__name__, self.plugin)


def check_wrapper(target: object, plugin: Plugin) -> Wrapper:
    """Return the object with its hooks.

    Raises:
        PluginInvalidError: it does not keep the contract.
    """
    for problem in _problems(target):
        raise PluginInvalidError(f"{plugin}: {problem}", plugin=plugin.name)
    hooks = {name: getattr(target, name) for name in _marked(type(target))}
    return Wrapper(target, plugin, MappingProxyType(hooks), getattr(target, RUN, None))


def _marked(kind: type) -> dict[str, pluggy.HookimplOpts]:
    """Return pluggy's options of each marked method. Looks at the class, whose properties are not run."""
    marks = pluggy.PluginManager(PROJECT)
    options = {name: marks.parse_hookimpl_opts(kind, name) for name in dir(kind) if not name.startswith("__")}
    return {name: given for name, given in options.items() if given is not None}


def _problems(target: object) -> Iterator[str]:
    kind = type(target)
    marked = _marked(kind)
    listing = ", ".join(f"{hook}({', '.join(provided)})" for hook, provided in PROCESSOR_HOOKS.items())
    run = inspect.getattr_static(kind, RUN, None)
    if run is not None:
        yield from _run_problems(run, f"{kind.__name__}.{RUN}", is_marked=RUN in marked)
    elif not marked:
        yield (
            f"{kind.__name__} surrounds nothing. Mark its methods with @hookimpl(wrapper=True), or define "
            f"{RUN}(self, encoded). Hooks: {listing}."
        )
    for name, options in marked.items():
        this = f"{kind.__name__}.{name}"
        if name == RUN:
            continue
        if name not in PROCESSOR_HOOKS:
            hint = did_you_mean(name, PROCESSOR_HOOKS)
            yield f"{this} is marked @hookimpl, but there is no such hook.{hint} Hooks: {listing}."
            continue
        meaningless = [option for option in OTHER_OPTIONS if options.get(option)]
        if meaningless:
            yield f"{this} is marked with {meaningless[0]}. Mark it with @hookimpl(wrapper=True) alone."
        method = inspect.getattr_static(kind, name)
        problem = argument_problem(method, this, PROCESSOR_HOOKS[name], is_method=True)
        if problem is not None:
            yield problem
        elif not options["wrapper"]:
            yield f"{this} surrounds a processor: mark it with @hookimpl(wrapper=True)."
        elif not inspect.isgeneratorfunction(method):
            yield f"{this} has no yield. What it surrounds runs where it yields, once."


def _run_problems(run: object, this: str, *, is_marked: bool) -> Iterator[str]:
    problem = argument_problem(run, this, ("encoded",), is_method=True)
    if problem is not None:
        yield problem
    elif is_marked:
        yield f"{this} is no hook. Leave out @hookimpl."
    elif not inspect.isgeneratorfunction(run):
        yield f"{this} has no yield. It yields the prompts to run and is sent their outputs, once."
    elif "encoded" not in inspect.signature(run).parameters:
        yield f"{this} does not take 'encoded'. Write it as a method: def run(self, encoded)."
