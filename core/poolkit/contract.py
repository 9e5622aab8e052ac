"""The plugin contract: what a task declares, the two hooks that give it behaviour, and the start-up hooks around them.

Tasks are data, behaviour is hooks. A plugin's entry point in group `poolkit.tasks` names a `PoolingTask`; each of
its operations names a `PoolingIOProcessor`, which turns a validated request into prompts and pooled outputs into a
response. An entry point in group `poolkit.plugins` names a module with `StartupHooks`, for what cuts across tasks.
Everything here is public and kept stable within one `API_VERSION`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Generic, TypeVar

import pluggy
from pydantic import BaseModel, ConfigDict

from poolkit.prompts import (
    FramedText,
    ImagePrompt,
    KeepQuery,
    PoolingParams,
    Prompt,
    ScoreDocument,
    TextPair,
    TypedTokens,
)

if TYPE_CHECKING:
    import numpy as np
    import typer
    from numpy.typing import NDArray

    from poolkit.encoding import Encoder
    from poolkit.models import ModelInfo

__all__ = [
    "API_OLDEST",
    "API_VERSION",
    "Activation",
    "BindContext",
    "FramedText",
    "ImagePrompt",
    "KeepQuery",
    "NoSettings",
    "Operation",
    "Output",
    "PooledOutput",
    "PoolingIOProcessor",
    "PoolingParams",
    "PoolingTask",
    "Prepared",
    "Prompt",
    "Removed",
    "Renamed",
    "ScoreDocument",
    "StartupHooks",
    "TextPair",
    "TypedTokens",
    "hookimpl",
    "hookspec",
]

API_VERSION = 1
"""The version of this contract. A task says which one it was written for."""
API_OLDEST = 1
"""The oldest contract version that this poolkit still accepts."""

PROJECT = "poolkit"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

TASK_NAME = re.compile(r"[a-z][a-z0-9_]*")


class Output(StrEnum):
    """What a model produces for each prompt."""

    VECTOR = "vector"
    LOGITS = "logits"
    TOKEN_VECTORS = "token_vectors"  # noqa: S105 - a kind of output, not a secret
    TOKEN_LOGITS = "token_logits"  # noqa: S105 - a kind of output, not a secret
    HIDDEN = "hidden"
    REWARDS = "rewards"
    """A classifier's logits as scores: of a text, of each token, or of each step, as the model and `PoolerConfig` say.
    """


class Activation(StrEnum):
    """What is applied to a head's output, in float32, unless a request turns it off."""

    IDENTITY = "identity"
    NORMALIZE = "normalize"
    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"
    LOG1P_RELU = "log1p_relu"
    MODEL = "model"
    """What the model's files say of its labels (`ModelInfo.label_activation`)."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What `pre_process` hands to the engine, and what it wants back in `post_process`.

    Attributes:
        prompts: the prompts to run, in the order in which the outputs will come back.
        params: how each is pooled: one for all of them, or one per prompt.
        state: whatever belongs to this request. It travels here and never on the processor, which serves many
            requests at a time.
        is_rearranged: whether a wrapper has cut, joined or left out prompts, so that they no longer are the request's
            own, one for one: a failure among them then fails the request instead of being told by its index.
    """

    prompts: Sequence[Prompt]
    params: PoolingParams | Sequence[PoolingParams] = field(default_factory=PoolingParams)
    state: object = None
    is_rearranged: bool = False

    @property
    def params_of_each(self) -> tuple[PoolingParams, ...]:
        """The parameters of each prompt."""
        if isinstance(self.params, PoolingParams):
            return (self.params,) * len(self.prompts)
        return tuple(self.params)


@dataclass(frozen=True, slots=True)
class PooledOutput:
    """What the model produced for one prompt.

    Attributes:
        data: float32. Shape (dim,) for a vector, (labels,) for logits, (tokens, dim) or (tokens, labels) for
            outputs per token.
        prompt_token_ids: the token ids that ran through the model, special tokens included.
        parts: what else the task's head gave in the same forward pass, by name. float32.
    """

    data: NDArray[np.float32]
    prompt_token_ids: Sequence[int]
    parts: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


class NoSettings(BaseModel):
    """The settings of a task that has none."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One thing a task can be asked to do, with its request and response.

    Attributes:
        name: `[a-z][a-z0-9_]*`. Served at `/tasks/<task>/<name>`; a standard name (`embeddings`, `pooling`) is also
            reached through the routes of that name's dialects.
        request: pydantic model with at least one example in its JSON schema.
        response: pydantic model.
        io_processor: dotted path "module:Class" of a `PoolingIOProcessor`, imported when the task is bound.
        per_prompt: fields of the response that hold one item for each prompt; any other number is a failure of the
            processor.
        routes: extra POST paths that take the request as JSON and answer the response as JSON.
    """

    name: str
    request: type[BaseModel]
    response: type[BaseModel]
    io_processor: str
    per_prompt: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolingTask:
    """A task, as data: importing one runs no behaviour.

    Attributes:
        name: `[a-z][a-z0-9_]*`, equal to the name of its entry point.
        api: the `API_VERSION` it was written for.
        summary: one line for people.
        output: what the model must produce for each prompt.
        operations: what it can be asked; the first is what `/pooling` reaches when none is named `pooling`.
        head: dotted path "module:function" of a `HeadFactory`, imported when the model is loaded. Its head turns the
            model's hidden states into this task's outputs. None for the model's own head.
        activation: applied to what the head gives unless a request turns it off.
        activates: whether that happens where neither the request nor the operator says so.
        parameters: which of the `PoolingParams` about pooling its prompts may set; those about tokenization (and
            `parts`) hold for every task.
        requires: says why a model cannot serve this task, or None if it can.
        settings: pydantic model of `[plugins.<plugin>]` in poolkit.toml; unknown keys must be forbidden.
    """

    name: str
    api: int
    summary: str
    output: Output
    operations: tuple[Operation, ...]
    head: str | None = None
    activation: Activation = Activation.IDENTITY
    activates: bool = True
    parameters: tuple[str, ...] = ("dimensions", "use_activation")
    requires: Callable[[ModelInfo], str | None] | None = None
    settings: type[BaseModel] = NoSettings

    def is_activated(self, params: PoolingParams, *, operator: bool | None) -> bool:
        """Return whether the outputs of a prompt are activated.

        Args:
            params: the prompt's, whose wish comes first.
            operator: the `use_activation` of `PoolerConfig`, which comes next.
        """
        for wish in (params.use_activation, operator):
            if wish is not None:
                return wish
        return self.activates


@dataclass(frozen=True, slots=True)
class Renamed:
    """Stands at a task's old entry point: warns, then follows to `to`."""

    to: str
    since: str


@dataclass(frozen=True, slots=True)
class Removed:
    """Stands at the entry point of a task that is gone and says what to use instead."""

    instead: str
    since: str


@dataclass(frozen=True, slots=True)
class BindContext:
    """What a processor, and whatever surrounds it, is given when its task is bound to a model.

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
    encoder: Encoder

    def is_activated(self, params: PoolingParams) -> bool:
        """Return whether the outputs of a prompt are activated: as its parameters say, else the operator, the task."""
        return self.task.is_activated(params, operator=self.model.config.pooler_config.use_activation)


RequestT = TypeVar("RequestT", bound=BaseModel)
ResponseT = TypeVar("ResponseT", bound=BaseModel)


class PoolingIOProcessor(Generic[RequestT, ResponseT]):
    """Turns a request into prompts, and their pooled outputs into a response.

    At once the hook specification, the base class and the static type of the call site: a plain override of the two
    methods is an implementation. One instance serves every request of its operation, from many threads at a time and
    both online and offline, so what belongs to a request goes into `Prepared.state`.

    Raise `ValueError` (or `poolkit.errors.RequestError`) for input that is the caller's fault: it is answered with
    its message. Anything else is answered as the plugin's own failure.
    """

    def __init__(self, context: BindContext) -> None:
        self.context = context

    @hookspec(firstresult=True)
    def pre_process(self, request: RequestT) -> Prepared:
        """Return the prompts of a validated request. Runs once a request, in a worker thread."""
        raise NotImplementedError(f"{type(self).__name__} does not implement pre_process(self, request)")

    @hookspec(firstresult=True)
    def post_process(self, prepared: Prepared, outputs: Sequence[PooledOutput]) -> ResponseT:
        """Return the response. `outputs` has one item per prompt, in prompt order. Runs in a worker thread."""
        raise NotImplementedError(f"{type(self).__name__} does not implement post_process(self, prepared, outputs)")

    def close(self) -> None:
        """Release what `__init__` took. Called once, at shut-down."""


class StartupHooks:
    """The functions that a module named in group `poolkit.plugins` can define, each marked `@hookimpl`.

    A module-level `Settings`, a pydantic model that forbids extra keys, validates the plugin's table in poolkit.toml;
    without one the plugin has no settings.
    """

    @hookspec
    def poolkit_wrap(self, context: BindContext, settings: BaseModel) -> list[object]:
        """Return objects that surround the hooks of one operation; called once each time an operation is bound.

        Such an object has `pre_process` or `post_process` or both, each a generator with one `yield`:

            @hookimpl(wrapper=True)
            def post_process(self, prepared, outputs):
                response = yield  # what the processor and the wrappers inside return; what they raise is raised here
                return response

        A bare `yield` leaves what it surrounds as it is. To give that something else, yield its arguments:
        `prepared = yield (request,)` in `pre_process`, `response = yield (prepared, outputs)` in `post_process`. So a
        wrapper that changes the prompts keeps what it surrounds whole: it puts the `Prepared` that it was given into
        the state of the one that it returns, and yields it back with one output for each of its prompts.

        Wrappers stand around each other in the order in which their plugins were enabled, the first one outermost;
        those of one plugin in the order of the list. The processor's rules hold for them too: many threads,
        `ValueError` for the caller's fault, and an optional `close()`, called once.

        Args:
            context: the operation, its task with its settings, and the model.
            settings: this plugin's own.
        """
        raise NotImplementedError

    @hookspec
    def poolkit_commands(self, cli: typer.Typer) -> None:
        """Add commands to `poolkit`, when the plugin is enabled in poolkit.toml or the environment.

        They never replace a command of poolkit's own.
        """
        raise NotImplementedError
