"""Every exception poolkit raises on purpose, in one tree.

    PoolkitError
    ├── ConfigError              a key or value in poolkit.toml, the environment or the command line
    ├── PluginError              carries `plugin`
    │   ├── PluginNotFoundError
    │   ├── PluginLoadError
    │   ├── PluginIncompatibleError
    │   ├── PluginInvalidError
    │   ├── PluginConfigError
    │   └── HookError            a plugin's hook failed while it served a request
    ├── TaskError                carries `task`
    │   ├── UnknownTaskError
    │   ├── TaskConflictError
    │   └── UnsupportedTaskError
    ├── StartupError             several independent failures, reported together
    ├── ModelError               a model's files are missing, unreadable or of an unknown kind
    ├── EngineError              the forward pass failed: ours, never the client's
    └── RequestError             the caller's input; also a ValueError
        ├── BatchError           some prompts of a batch failed; carries the rest
        ├── OverloadedError      too much is waiting; carries `retry_after_s`
        ├── CancelledRequestError
        └── ClosedError          the model is shutting down

A message says what happened, to whose thing, what was expected and what to do now.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

__all__ = [
    "BatchError",
    "CancelledRequestError",
    "ClosedError",
    "ConfigError",
    "EngineError",
    "HookError",
    "ModelError",
    "OverloadedError",
    "PluginConfigError",
    "PluginError",
    "PluginIncompatibleError",
    "PluginInvalidError",
    "PluginLoadError",
    "PluginNotFoundError",
    "PoolkitError",
    "RequestError",
    "StartupError",
    "TaskConflictError",
    "TaskError",
    "UnknownTaskError",
    "UnsupportedTaskError",
    "did_you_mean",
]


class PoolkitError(Exception):
    """Base of every error poolkit raises on purpose. It pickles whole, to come back from a worker process."""

    def __reduce__(self) -> tuple[object, ...]:
        """Rebuild the error without its `__init__`, whose arguments are not what it keeps."""
        return _rebuild, (type(self), self.args, self.__dict__)


class ConfigError(PoolkitError):
    """A setting is unknown or has a value that cannot be used."""


class PluginError(PoolkitError):
    """Something is wrong with a plugin, named by `plugin` (its distribution name)."""

    def __init__(self, message: str, *, plugin: str) -> None:
        super().__init__(message)
        self.plugin = plugin


class PluginNotFoundError(PluginError):
    """A plugin was named but no such distribution is installed."""


class PluginLoadError(PluginError):
    """A plugin raised while it was imported."""


class PluginIncompatibleError(PluginError):
    """A plugin was written for another plugin API or another poolkit."""


class PluginInvalidError(PluginError):
    """A plugin does not keep the contract."""


class PluginConfigError(PluginError):
    """A plugin's settings are wrong."""


class HookError(PluginError):
    """A plugin's hook failed while it served a request; `hook` and `task` say where."""

    def __init__(self, message: str, *, plugin: str, task: str, hook: str) -> None:
        super().__init__(message, plugin=plugin)
        self.task = task
        self.hook = hook


class TaskError(PoolkitError):
    """Something is wrong with the choice of a task, named by `task`."""

    def __init__(self, message: str, *, task: str) -> None:
        super().__init__(message)
        self.task = task


class UnknownTaskError(TaskError):
    """No enabled plugin provides the task."""


class TaskConflictError(TaskError):
    """More than one enabled plugin provides the task."""


class UnsupportedTaskError(TaskError):
    """The model cannot serve the task."""


class StartupError(PoolkitError):
    """Several independent failures at start-up, reported together in `errors`."""

    def __init__(self, errors: Sequence[PoolkitError]) -> None:
        super().__init__("\n".join(f"{type(error).__name__}: {error}" for error in errors))
        self.errors = tuple(errors)


class ModelError(PoolkitError):
    """A model's files are missing, unreadable or ask for something poolkit does not have."""


class EngineError(PoolkitError):
    """The forward pass failed for a prompt: the server's fault, never the client's."""


class RequestError(PoolkitError, ValueError):
    """The caller's input is wrong; `param` names the field where one is to blame."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class BatchError(RequestError):
    """Some prompts of a batch failed and the others did not.

    Attributes:
        errors: what went wrong, by the prompt's index.
        outputs: what `LLM` would have returned, with None where a prompt failed. Nothing else is lost.
    """

    def __init__(self, errors: Mapping[int, Exception], outputs: Sequence[object]) -> None:
        first = min(errors)
        more = f" ({len(errors) - 1} more failed)" if len(errors) > 1 else ""
        super().__init__(f"{len(errors)} of {len(outputs)} prompts failed: {errors[first]}{more}")
        self.errors = dict(errors)
        self.outputs = list(outputs)


class OverloadedError(RequestError):
    """Too much is waiting already; try again after `retry_after_s` seconds."""

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class CancelledRequestError(RequestError):
    """The caller went away before the answer was ready."""


class ClosedError(RequestError):
    """The model is shutting down and accepts nothing more."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the closest known name, or an empty string."""
    close = get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _rebuild(error_type: type[PoolkitError], args: tuple[object, ...], attributes: dict[str, object]) -> PoolkitError:
    error = error_type.__new__(error_type, *args)
    error.__dict__.update(attributes)
    return error
