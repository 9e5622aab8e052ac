"""Whether a function can be called as a hook: which arguments the hook provides, and which the function takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from poolkit.contract import PoolingIOProcessor, StartupHooks

__all__ = ["PROCESSOR_HOOKS", "STARTUP_HOOKS", "accepted", "argument_problem"]


def _provided(specification: type, *hooks: str) -> dict[str, tuple[str, ...]]:
    return {hook: tuple(inspect.signature(getattr(specification, hook)).parameters)[1:] for hook in hooks}


PROCESSOR_HOOKS = _provided(PoolingIOProcessor, "pre_process", "post_process")
"""The arguments that each hook of a processor provides."""
STARTUP_HOOKS = _provided(StartupHooks, "poolkit_wrap", "poolkit_commands")
"""The arguments that each start-up hook provides."""


def argument_problem(function: object, this: str, provided: tuple[str, ...], *, is_method: bool) -> str | None:
    """Return what is wrong with a hook's function, or None. `this` is what to call it."""
    listing = ", ".join(provided)
    if not inspect.isfunction(function):
        what, written = ("a method", f"self, {listing}") if is_method else ("a function", listing)
        name = this.rpartition(".")[-1]
        return f"{this} is a {type(function).__name__}. Write it as {what}: def {name}({written})."
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return f"{this} is async; hooks are called from plain threads. Write it with a plain def."
    for parameter in list(inspect.signature(function).parameters.values())[is_method:]:
        is_plain = parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        has_default = parameter.default is not parameter.empty
        if parameter.name in provided:
            if not is_plain or has_default:
                return f"{this} must take {parameter.name!r} as a plain argument: not keyword-only, no default."
        elif not has_default:
            return f"{this} takes {str(parameter).split(':')[0]!r}; the hook provides ({listing})."
    return None


def accepted(function: Callable[..., object], provided: tuple[str, ...]) -> tuple[int, ...]:
    """Return which of the arguments provided a bound function takes, by position, in its own order."""
    return tuple(provided.index(name) for name in inspect.signature(function).parameters if name in provided)
