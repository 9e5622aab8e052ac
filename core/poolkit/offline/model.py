"""A model in this process, through the same pipeline as the server: what `LLM` is built on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, JsonValue

from poolkit.config import DEFAULT_MODEL, ModelConfig, PluginConfig, PoolerConfig, Reference
from poolkit.contract import Decision, PooledOutput
from poolkit.errors import BatchError, ConfigError, RequestError, did_you_mean
from poolkit.offline.outputs import RequestOutput
from poolkit.offline.progress import progress_bar
from poolkit.operations.modalities import request_context
from poolkit.pipeline.served import ServedModel, load_model
from poolkit.validation import validate

__all__ = ["OfflineModel"]

logger = logging.getLogger(__name__)

OutputT = TypeVar("OutputT")
ResponseT = TypeVar("ResponseT", bound=BaseModel)


class OfflineModel:
    """A pooling model, loaded once for one task, that can be asked any operation of that task."""

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        *,
        task: str | None = None,
        dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = "auto",
        device: str = "auto",
        max_model_len: int | None = None,
        auto_truncate: bool = False,
        pooler_config: PoolerConfig | None = None,
        hf_overrides: Mapping[str, JsonValue] | None = None,
        score_template: str | Path | None = None,
        enable: Sequence[str] = (),
        disable: Sequence[str] = (),
        plugins: Mapping[str, Mapping[str, JsonValue]] | None = None,
        revision: str | None = None,
        batching: Literal["auto", "packed", "padded"] = "auto",
        max_num_batched_tokens: int = 8192,
        max_num_seqs: int = 512,
        num_streams: int | None = None,
        threads_per_stream: int | None = None,
        trust_remote_code: bool = False,
        engine: str = "auto",
    ) -> None:
        settings: dict[str, object] = {
            "model": model,
            "task": task,
            "dtype": dtype,
            "device": device,
            "max_model_len": max_model_len,
            "auto_truncate": auto_truncate,
            "pooler_config": pooler_config or PoolerConfig(),
            "hf_overrides": dict(hf_overrides or {}),
            "score_template": score_template,
            "revision": revision,
            "batching": batching,
            "max_num_batched_tokens": max_num_batched_tokens,
            "max_num_seqs": max_num_seqs,
            "num_streams": num_streams,
            "threads_per_stream": threads_per_stream,
            "trust_remote_code": trust_remote_code,
            "engine": engine,
        }
        config = validate(ModelConfig, settings, error_type=ConfigError)
        selection = PluginConfig(
            enable=tuple(Reference(name, f"LLM(enable=[{name!r}])") for name in enable),
            disable=tuple(Reference(name, f"LLM(disable=[{name!r}])") for name in disable),
            settings={name: dict(values) for name, values in (plugins or {}).items()},
        )
        self._served = load_model(config, selection)
        for decision in self._served.decisions:
            logger.info("%s: %s (%s)", decision.name, decision.value, decision.source)

    @property
    def supported_tasks(self) -> tuple[str, ...]:
        """The tasks that this model serves: the one it was loaded for."""
        return (self._served.task.name,)

    @property
    def served(self) -> ServedModel:
        """The loaded model with its one task, as the server is given it: what `create_app` serves.

        It is here so that an app of one's own, a benchmark or a test can go through the same pipeline, and read the
        engine's counts (`stats`), beside the calls of this class.
        """
        return self._served

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """The start-up report: what was decided for this model, and where each value came from."""
        return self._served.decisions

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
        if isinstance(fields, BaseModel):
            request = fields
        else:
            context = request_context(self._served.modalities)
            request = validate(expected, fields, error_type=RequestError, context=context)
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
