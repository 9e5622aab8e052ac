"""The offline front: a model in this process, through the same pipeline as the server."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, JsonValue

from poolkit.config import DEFAULT_MODEL, ModelConfig, Named, PluginConfig, PoolerConfig
from poolkit.contract import PooledOutput, Prompt
from poolkit.errors import BatchError, ConfigError, RequestError, did_you_mean
from poolkit.models import Decision
from poolkit.operations import EmbeddingsResponse, PoolingResponse
from poolkit.outputs import EmbeddingOutput, EmbeddingRequestOutput, PoolingOutput, PoolingRequestOutput, RequestOutput
from poolkit.progress import progress_bar
from poolkit.served import load_model
from poolkit.validation import validate

__all__ = ["LLM"]

logger = logging.getLogger(__name__)

OutputT = TypeVar("OutputT")
ResponseT = TypeVar("ResponseT", bound=BaseModel)


class LLM:
    """A pooling model, loaded once for one task.

    >>> from poolkit import LLM
    >>> llm = LLM()  # the packaged all-MiniLM-L6-v2; any Hugging Face name or local folder works in its place
    >>> [output] = llm.embed("A cat sat on the mat.", use_tqdm=False)
    >>> output.outputs.embedding.shape
    (384,)
    >>> llm.close()

    Args:
        model: a Hugging Face name or a local folder.
        task: the one task to serve; the model's own preference by default. `PoolerConfig(task=...)` says the same.
        dtype: "auto" is bfloat16 where the hardware runs it fast, else float32, which gives the reference's numbers.
        device: "auto" is cuda where there is one, else cpu.
        max_model_len: longest prompt in tokens; what the model's files allow by default.
        pooler_config: overrides of what the model's files say about pooling.
        hf_overrides: overrides of config.json.
        enable: installed plugins to use beside the built-in tasks, by name; "*" for all of them.
        disable: tasks or plugins not to use.
        plugins: settings of each plugin, by plugin name.
        revision: branch, tag or commit on the hub.
        batching: "auto" packs where the start-up self-check agrees with padded batches.
        max_num_batched_tokens: tokens in one forward pass.
        max_num_seqs: prompts in one forward pass.
        trust_remote_code: run Python code from the model's repository.
        engine: an entry point in group `poolkit.engines`.

    Raises:
        ConfigError: an argument cannot be used.
        ModelError: the model's files are missing or ask for something poolkit does not have.
        PluginError, TaskError, StartupError: an enabled plugin or the chosen task cannot be used.
    """

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        *,
        task: str | None = None,
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        device: str = "auto",
        max_model_len: int | None = None,
        pooler_config: PoolerConfig | None = None,
        hf_overrides: Mapping[str, JsonValue] | None = None,
        enable: Sequence[str] = (),
        disable: Sequence[str] = (),
        plugins: Mapping[str, Mapping[str, JsonValue]] | None = None,
        revision: str | None = None,
        batching: Literal["auto", "packed", "padded"] = "auto",
        max_num_batched_tokens: int = 8192,
        max_num_seqs: int = 512,
        trust_remote_code: bool = False,
        engine: str = "torch",
    ) -> None:
        settings: dict[str, object] = {
            "model": model,
            "task": task,
            "dtype": dtype,
            "device": device,
            "max_model_len": max_model_len,
            "pooler_config": pooler_config or PoolerConfig(),
            "hf_overrides": dict(hf_overrides or {}),
            "revision": revision,
            "batching": batching,
            "max_num_batched_tokens": max_num_batched_tokens,
            "max_num_seqs": max_num_seqs,
            "trust_remote_code": trust_remote_code,
            "engine": engine,
        }
        config = validate(ModelConfig, settings, error_type=ConfigError)
        selection = PluginConfig(
            enable=tuple(Named(name, f"LLM(enable=[{name!r}])") for name in enable),
            disable=tuple(Named(name, f"LLM(disable=[{name!r}])") for name in disable),
            settings={name: dict(values) for name, values in (plugins or {}).items()},
        )
        self._served = load_model(config, selection)
        for decision in self._served.decisions:
            logger.info("%s: %s (%s)", decision.name, decision.value, decision.source)

    @property
    def supported_tasks(self) -> tuple[str, ...]:
        """What can be asked of this model now: the one task it was loaded for."""
        return (self._served.task.name,)

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """The start-up report: what was decided for this model, and where each value came from."""
        return self._served.decisions

    def embed(
        self,
        prompts: Prompt | Sequence[Prompt],
        *,
        dimensions: int | None = None,
        use_activation: bool | None = None,
        truncate_prompt_tokens: int | None = None,
        use_tqdm: bool = True,
    ) -> list[EmbeddingRequestOutput]:
        """Return the vector of each prompt, in order.

        Args:
            prompts: a text, the token ids of one, or a list of either.
            dimensions: length of the vectors, for Matryoshka models.
            use_activation: divide each vector by its L2 norm; yes by default.
            truncate_prompt_tokens: cut longer prompts to so many tokens, special tokens included; -1 is the model's
                maximum. By default a prompt that is too long is an error.
            use_tqdm: show a progress bar.

        Raises:
            RequestError: the input is wrong (it is a ValueError too), or the served task has no embeddings.
            BatchError: some of several prompts failed; `outputs` holds the results of the others.
        """
        fields = _given(
            input=prompts,
            dimensions=dimensions,
            use_activation=use_activation,
            truncate_prompt_tokens=truncate_prompt_tokens,
        )
        response = self._ask("embeddings", fields, EmbeddingsResponse, wrap=EmbeddingOutput, use_tqdm=use_tqdm)
        return _pair(response.embeddings, response.prompt_token_ids, wrap=EmbeddingOutput)

    def encode(
        self,
        prompts: Prompt | Sequence[Prompt],
        *,
        pooling_task: str | None = None,
        dimensions: int | None = None,
        use_activation: bool | None = None,
        truncate_prompt_tokens: int | None = None,
        use_tqdm: bool = True,
    ) -> list[PoolingRequestOutput]:
        """Return what the served task pools for each prompt, in order.

        Args:
            prompts: a text, the token ids of one, or a list of either.
            pooling_task: must be the served task; a check, not a choice.
            dimensions: length of the vectors, for Matryoshka models.
            use_activation: normalise vectors, squash logits; the task's own choice by default.
            truncate_prompt_tokens: cut longer prompts to so many tokens, special tokens included; -1 is the model's
                maximum. By default a prompt that is too long is an error.
            use_tqdm: show a progress bar.

        Raises:
            RequestError: the input is wrong, or `pooling_task` is not the served task (it is a ValueError too).
            BatchError: some of several prompts failed; `outputs` holds the results of the others.
        """
        fields = _given(
            input=prompts,
            task=pooling_task,
            dimensions=dimensions,
            use_activation=use_activation,
            truncate_prompt_tokens=truncate_prompt_tokens,
        )
        response = self._ask("pooling", fields, PoolingResponse, wrap=PoolingOutput, use_tqdm=use_tqdm)
        return _pair(response.data, response.prompt_token_ids, wrap=PoolingOutput)

    def run(self, operation: str, fields: Mapping[str, object] | BaseModel, *, use_tqdm: bool = True) -> BaseModel:
        """Return the response to any operation of the served task: what a plugin's own operations are called with.

        Args:
            operation: its name, as the task declares it.
            fields: the request, or the fields of one.
            use_tqdm: show a progress bar.

        Raises:
            RequestError: the input is wrong, or the served task has no such operation.
            BatchError: some of several prompts failed; `outputs` holds what was pooled for the others.
        """
        bound = self._served.operations.get(operation)
        if bound is None:
            known = self._served.operations
            raise RequestError(
                f"Unsupported operation: {operation!r}.{did_you_mean(operation, known)} The served task "
                f"{self._served.task.name!r} offers: {', '.join(sorted(known))}."
            )
        expected = bound.operation.request
        request = fields if isinstance(fields, BaseModel) else validate(expected, fields, error_type=RequestError)
        if not use_tqdm:
            return self._served.run(operation, request)
        with progress_bar(operation) as on_progress:
            return self._served.run(operation, request, on_progress=on_progress)

    def close(self) -> None:
        """Release the model."""
        self._served.close()

    def __enter__(self) -> Self:
        """Return the model itself; leaving the block closes it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Release the model."""
        self.close()

    def _ask(
        self,
        operation: str,
        fields: Mapping[str, object],
        answer: type[ResponseT],
        *,
        wrap: Callable[[NDArray[np.float32]], OutputT],
        use_tqdm: bool,
    ) -> ResponseT:
        """Run a standard operation; wrap what is left of a batch of which a part failed."""
        try:
            response = self.run(operation, fields, use_tqdm=use_tqdm)
        except BatchError as error:
            outputs = [
                RequestOutput(wrap(output.data), output.prompt_token_ids) if isinstance(output, PooledOutput) else None
                for output in error.outputs
            ]
            raise BatchError(error.errors, outputs) from error
        if not isinstance(response, answer):
            raise RequestError(
                f"The served task {self._served.task.name!r} answers {operation!r} in a way of its own "
                f"({type(response).__name__}): call LLM.run({operation!r}, …)."
            )
        return response


def _given(**fields: object) -> dict[str, object]:
    """Return the fields that are not None, so that the request's own defaults hold for the others."""
    return {name: value for name, value in fields.items() if value is not None}


def _pair(
    arrays: Sequence[NDArray[np.float32]] | NDArray[np.float32],
    prompt_token_ids: Sequence[Sequence[int]],
    *,
    wrap: Callable[[NDArray[np.float32]], OutputT],
) -> list[RequestOutput[OutputT]]:
    return [RequestOutput(wrap(array), ids) for array, ids in zip(arrays, prompt_token_ids, strict=True)]
