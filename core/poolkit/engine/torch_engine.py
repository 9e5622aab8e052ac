"""Runs any transformers model with torch: packed where the model allows it, then by the head that the task asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from poolkit.contract import Activation
from poolkit.engine.answers import Wish, answer
from poolkit.engine.layout import lay_out
from poolkit.engine.loading import resolve_device, resolve_dtype
from poolkit.engine.outputs import Produce, load_outputs
from poolkit.engine.tokenizer import load_tokenizer
from poolkit.errors import EngineError, ModelError

if TYPE_CHECKING:
    from poolkit.config import ModelConfig
    from poolkit.contract import PooledOutput, PoolingParams, PoolingTask
    from poolkit.engine.protocol import EncodedPrompt
    from poolkit.models import Decision, ModelInfo

__all__ = ["TorchEngine", "load_engine", "load_tokenizer"]


def load_engine(info: ModelInfo, *, task: PoolingTask, config: ModelConfig) -> TorchEngine:
    """Load the weights of the model that `info` describes, with the head that `task` asks for.

    Raises ModelError where the model cannot be loaded, or cannot give what the task asks for.
    """
    if task.output not in info.outputs:
        raise ModelError(
            f"{info.name} gives {', '.join(info.outputs)}; task {task.name!r} asks for {task.output.value}. Choose "
            "another task or another model."
        )
    return TorchEngine(info, task=task, config=config)


class TorchEngine:
    """One loaded model. `forward` must be called from one thread at a time."""

    def __init__(self, info: ModelInfo, *, task: PoolingTask, config: ModelConfig) -> None:
        self._info = info
        self._pooler = config.pooler_config
        self._activation = info.label_activation if task.activation is Activation.MODEL else task.activation
        self._activates = task.activates
        self._device, device_decision = resolve_device(config)
        dtype, dtype_decision = resolve_dtype(config, self._device)
        self._produce: Produce | None
        self._produce, self._takes_types, decisions = load_outputs(info, task, config, dtype=dtype, device=self._device)
        self._decisions = (device_decision, dtype_decision, *decisions)

    @property
    def decisions(self) -> Sequence[Decision]:
        """Device, dtype and path, each with why."""
        return self._decisions

    def forward(self, prompts: Sequence[EncodedPrompt]) -> Sequence[PooledOutput]:
        """Return what each prompt gives, in order: pooled, projected, cut to its dimensions, activated.

        Raises MemoryError where the batch does not fit, and EngineError where the model gives NaN or infinity.
        """
        if self._produce is None:
            raise EngineError(f"The engine of {self._info.name} is closed.")
        batch, places = lay_out(prompts, device=self._device, takes_types=self._takes_types)
        wishes = [self._wish(prompt.params) for prompt in prompts]
        try:
            with torch.inference_mode():
                raw = self._produce(batch)
                answers = answer(raw, prompts, places=places.tolist(), wishes=wishes, activation=self._activation)
        except RuntimeError as exc:
            if isinstance(exc, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(exc):
                raise MemoryError(str(exc)) from exc
            raise
        if answers is None:
            raise EngineError(
                f"The model {self._info.name} gave NaN or infinity. That is the server's fault, not the prompt's; "
                "dtype float32 may help."
            )
        return answers

    def close(self) -> None:
        """Release the model."""
        self._produce = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _wish(self, params: PoolingParams) -> Wish:
        """Return the dimensions and the use of the activation: the request's wish, the operator's, the default."""
        dimensions = params.dimensions if params.dimensions is not None else self._pooler.dimensions
        for wish in (params.use_activation, self._pooler.use_activation):
            if wish is not None:
                return dimensions, wish
        return dimensions, self._activates
