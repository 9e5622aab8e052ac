"""Tasks, as data: what a plugin declares, its operations, and where it is said that a task was renamed or removed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from pydantic import BaseModel, ConfigDict

from poolkit.contract.model_info import ModelInfo
from poolkit.contract.output_kinds import OUTPUT_KINDS, OutputKind
from poolkit.contract.outputs import Activation, Output

__all__ = ["API_OLDEST", "API_VERSION", "TASK_NAME", "NoSettings", "Operation", "PoolingTask", "Removed", "Renamed"]

API_VERSION = 1
"""The version of this contract. A task says which one it was written for."""
API_OLDEST = 1
"""The oldest contract version that this poolkit still accepts."""

TASK_NAME = re.compile(r"[a-z][a-z0-9_]*")


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
        per_prompt: fields of the response that hold one item for each prompt, of the last round; any other number is a
            failure of the processor.
        routes: extra POST paths that take the request as JSON and answer the response as JSON.
        max_rounds: how often prompts of one request may run: `post_process` may return another `Prepared` before the
            last round. All rounds are one request: admitted once, cancelled together.
        per_item: give `post_process` an `ItemError` in place of the output of a prompt that failed. Otherwise the
            request fails.
    """

    name: str
    request: type[BaseModel]
    response: type[BaseModel]
    io_processor: str
    per_prompt: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    max_rounds: int = 1
    per_item: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolingTask:
    """A task, as data: importing one runs no behaviour.

    Attributes:
        name: `[a-z][a-z0-9_]*`, equal to the name of its entry point.
        api: the `API_VERSION` it was written for.
        summary: one line for people.
        output: what the model must produce for each prompt.
        or_outputs: what it may produce instead, best first, if it does not give `output`.
        operations: what it can be asked; the first is what `/pooling` reaches when none is named `pooling`.
        head: dotted path "module:function" of a `HeadFactory`, imported when the model is loaded. Its head turns the
            model's hidden states into this task's outputs. None for the model's own head.
        activation: applied to what the head gives unless a request turns it off.
        activates: whether that happens where neither the request nor the operator says so.
        parameters: which of the `PoolingParams` about pooling its prompts may set; those about tokenization (and
            `parts`) hold for every task.
        requires: says why a model cannot serve this task, or None if it can.
        preference: says how well a model suits this task, to choose the one that it serves if none is named: it counts
            before what the model produces. 0 for most; more for a model that was made for the task.
        extra: pydantic model, frozen and hashable, of the parameters that its own head takes per prompt
            (`PoolingParams.extra`); None if it takes none.
        settings: pydantic model of `[plugins.<plugin>]` in poolkit.toml; unknown keys must be forbidden.
        taps: layers whose hidden states the head reads beside the last one's: 0 is the embeddings, n the output of the
            n-th layer, as in transformers' `output_hidden_states`.
        kind: what the head makes, if that is no kind of `output`; None for the kind of `output`.
        label_tokens: for `Output.LABEL_LOGITS`, the tokens whose logits are the output, as the vocabulary writes them.
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
    or_outputs: tuple[Output, ...] = ()
    requires: Callable[[ModelInfo], str | None] | None = None
    preference: Callable[[ModelInfo], int] | None = None
    extra: type[BaseModel] | None = None
    settings: type[BaseModel] = NoSettings
    taps: tuple[int, ...] = ()
    kind: OutputKind | None = None
    label_tokens: tuple[str, ...] = ()

    def for_model(self, model: ModelInfo) -> PoolingTask:
        """Return the task with the one kind of output that the model gives for it; unchanged if it gives none."""
        found = next((output for output in (self.output, *self.or_outputs) if output in model.outputs), self.output)
        return self if found is self.output else replace(self, output=found)

    @property
    def output_kind(self) -> OutputKind:
        """The kind of its outputs: its own, or that of what the model produces."""
        return self.kind or OUTPUT_KINDS[self.output]


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
