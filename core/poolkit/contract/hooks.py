"""Hooks: the two that give an operation its behaviour, and the start-up hooks around them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

import pluggy
from pydantic import BaseModel

from poolkit.contract.encoder import PromptEncoder
from poolkit.contract.model_info import ModelInfo
from poolkit.contract.outputs import PooledOutput
from poolkit.contract.params import PoolingParams
from poolkit.contract.prompts import Prompt
from poolkit.contract.task import Operation, PoolingTask
from poolkit.errors import RequestError

if TYPE_CHECKING:
    import typer

__all__ = ["PROJECT", "BindContext", "PoolingIOProcessor", "Prepared", "StartupHooks", "hookimpl", "hookspec"]

PROJECT = "poolkit"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@dataclass(frozen=True, slots=True)
class Prepared:
    """The prompts that `pre_process` makes of a request, and the state that `post_process` gets back.

    Attributes:
        prompts: the prompts to run, in the order in which the outputs will come back. Where there are none, the model
            is not asked: `post_process` answers by itself, however busy the model is.
        params: how each is pooled: one for all of them, or one per prompt.
        state: whatever belongs to this request. It travels here and never on the processor, which serves many
            requests at a time.
        outputs_map_to_inputs: True if each prompt is one of the caller's inputs, in their order. False if prompts were
            cut, joined, added or left out: a failed prompt then fails the request, because its index means nothing to
            the caller.
        with_text_tokens: return the tokens of each text with their offsets, in `PooledOutput.text_tokens`.
        groups: of each prompt, the group that it belongs to, or None. The prompts of a group run in one batch and fail
            as one; a head reads them from `Batch.groups`.
        refused: prompts that are not run, by index, each with why. Without `per_item` that fails the request, or is
            told by the prompt's index offline.
        origin: of each prompt, the index of the caller's input that it belongs to, for `ItemError.index`; None where
            they have the same. Prompts of a later round are no inputs of the caller's, so it needs one there.
    """

    prompts: Sequence[Prompt]
    params: PoolingParams | Sequence[PoolingParams] = field(default_factory=PoolingParams)
    state: object = None
    outputs_map_to_inputs: bool = True
    with_text_tokens: bool = False
    groups: Sequence[Hashable | None] | None = None
    refused: Mapping[int, RequestError] = field(default_factory=dict)
    origin: Sequence[int] | None = None

    @property
    def params_of_each(self) -> tuple[PoolingParams, ...]:
        """The parameters of each prompt."""
        if isinstance(self.params, PoolingParams):
            return (self.params,) * len(self.prompts)
        return tuple(self.params)


@dataclass(frozen=True, slots=True)
class BindContext:
    """The task, its operation and the model: given to a processor and its wrappers when they are bound.

    Attributes:
        task: the task that is bound.
        operation: the one of its operations that the processor serves.
        settings: the task's own, validated.
        model: what the model's files say.
        encoder: makes token ids of prompts, as the pipeline does after `pre_process`.
    """

    task: PoolingTask
    operation: Operation
    settings: BaseModel
    model: ModelInfo
    encoder: PromptEncoder


RequestT = TypeVar("RequestT", bound=BaseModel)
ResponseT = TypeVar("ResponseT", bound=BaseModel)


class PoolingIOProcessor(Generic[RequestT, ResponseT]):
    """Turns a request into prompts, and their pooled outputs into a response.

    At once the hook specification, the base class and the static type of the call site: a plain override of the two
    methods is an implementation. One instance serves every request of its operation, from many threads at a time and
    both online and offline, so what belongs to a request goes into `Prepared.state`.

    Raise `poolkit.errors.RequestError` for input that is the caller's fault: it is answered with its message, and so is
    what pydantic says of the operation's own request model. Anything else, a `ValueError` included, is answered as the
    plugin's own failure.

    Attributes:
        never_blocks: True if the two methods only compute, and little: they neither wait nor read or write a file. The
            server then runs them on its event loop for small requests, which saves two changes of thread. A class says
            so for itself, not for those that derive from it.
    """

    never_blocks: ClassVar[bool] = False

    def __init__(self, context: BindContext) -> None:
        self.context = context

    @hookspec(firstresult=True)
    def pre_process(self, request: RequestT) -> Prepared:
        """Return the prompts of a validated request. Runs once a request, in a worker thread unless it never blocks."""
        raise NotImplementedError(f"{type(self).__name__} does not implement pre_process(self, request)")

    @hookspec(firstresult=True)
    def post_process(self, prepared: Prepared, outputs: Sequence[PooledOutput]) -> ResponseT | Prepared:
        """Return the response. `outputs` has one item per prompt, in prompt order. Runs where `pre_process` does.

        An operation with `max_rounds` may return another `Prepared`, whose prompts are then run; one with `per_item`
        gets an `ItemError` in place of the output of each prompt that failed.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement post_process(self, prepared, outputs)")

    def close(self) -> None:
        """Release what `__init__` took. Called once, at shut-down."""


class StartupHooks:
    """The functions that a module named in group `poolkit.plugins` can define, each marked `@hookimpl`.

    A module-level `Settings`, a pydantic model that forbids extra keys, validates the plugin's table in poolkit.toml;
    without one the plugin has no settings. A module-level `serves`, a tuple of field names of `PoolerConfig`, names the
    settings of the operator that the module gives effect to: poolkit finds it by these, not by its name.
    """

    @hookspec
    def poolkit_wrap(self, context: BindContext, settings: BaseModel) -> list[object]:
        """Return objects that surround the hooks of one operation; called once each time an operation is bound.

        Such an object has `pre_process` or `post_process` or both, each a generator with one `yield`:

            @hookimpl(wrapper=True)
            def post_process(self, prepared, outputs):
                response = yield  # what the processor and the wrappers inside return; what they raise is raised here
                return response

        It may change the text of prompts (`dataclasses.replace(prepared, prompts=…)`) but neither their number nor
        `Prepared.state`, which is the processor's. Prompts are added, left out and answered around the model, by a
        method `run`, which is no hook and has no mark: a generator that is given tokenized prompts, yields those that
        shall run, is sent one outcome for each of them, and returns one for each that it was given:

            def run(self, encoded):
                return (yield encoded)

        With a class attribute `takes_long_prompts = True` it is also given prompts that are longer than the model's
        maximum, which it splits. Of a group (`EncodedPrompt.group`) it yields all prompts, each once, or none. With
        `never_blocks = True` it promises what a processor does by that name; without, no hook of the operation runs on
        the server's event loop.

        Wrappers stand around each other in the order in which their plugins were enabled, the first one outermost;
        those of one plugin in the order of the list. The processor's rules hold for them too: many threads,
        `RequestError` for the caller's fault, and an optional `close()`, called once.

        Args:
            context: the operation, its task with its settings, and the model.
            settings: this plugin's own.

        Raises:
            ConfigError: the module `serves` a field of `PoolerConfig`, whose value it cannot follow for this task.
        """
        raise NotImplementedError

    @hookspec
    def poolkit_commands(self, cli: typer.Typer) -> None:
        """Add commands to `poolkit`, when the plugin is enabled in poolkit.toml or the environment.

        They never replace a command of poolkit's own.
        """
        raise NotImplementedError
