"""Runs any transformers model with torch: packed where the model allows it, then pooled by a head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from poolkit.contract import Output
from poolkit.engine.heads import ACTIVATIONS, Dense, pool
from poolkit.engine.loading import load_dense, load_model, resolve_device, resolve_dtype
from poolkit.engine.segments import lay_out
from poolkit.engine.self_check import choose_pass
from poolkit.engine.tokenizer import load_tokenizer
from poolkit.errors import EngineError, ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from poolkit.config import ModelConfig
    from poolkit.contract import PoolingParams, PoolingTask
    from poolkit.engine.passes import Pass
    from poolkit.engine.protocol import EncodedPrompt
    from poolkit.models import Decision, ModelInfo

__all__ = ["TorchEngine", "load_engine", "load_tokenizer"]


def load_engine(info: ModelInfo, *, task: PoolingTask, config: ModelConfig) -> TorchEngine:
    """Load the weights of the model that `info` describes, with the head that `task.output` asks for.

    Raises ModelError where the model cannot be loaded, or cannot give what the task asks for.
    """
    if task.output is not Output.VECTOR:
        raise ModelError(
            f"The torch engine gives one {Output.VECTOR.value} per prompt; task {task.name!r} asks for "
            f"{task.output.value}. Choose another task or another engine."
        )
    return TorchEngine(info, task=task, config=config)


class TorchEngine:
    """One loaded model. `forward` must be called from one thread at a time."""

    def __init__(self, info: ModelInfo, *, task: PoolingTask, config: ModelConfig) -> None:
        self._info = info
        self._pooler = config.pooler_config
        self._activation = ACTIVATIONS[task.activation]
        self._device, device_decision = resolve_device(config)
        dtype, dtype_decision = resolve_dtype(config, self._device)
        self._dense: list[Dense] = [load_dense(spec, device=self._device) for spec in info.dense]
        model = load_model(info, config, dtype=dtype, device=self._device)
        with torch.inference_mode():
            self._pass: Pass | None
            self._pass, path_decision = choose_pass(model, info, config)
        self._decisions = (device_decision, dtype_decision, path_decision)

    @property
    def decisions(self) -> Sequence[Decision]:
        """Device, dtype and path, each with why."""
        return self._decisions

    def forward(self, prompts: Sequence[EncodedPrompt]) -> Sequence[NDArray[np.float32]]:
        """Return the vector of each prompt, in order: pooled, projected, cut to its dimensions, activated.

        Raises MemoryError where the batch does not fit, and EngineError where the model gives NaN or infinity.
        """
        if self._pass is None:
            raise EngineError(f"The engine of {self._info.name} is closed.")
        batch, places = lay_out([prompt.token_ids for prompt in prompts], device=self._device)
        try:
            with torch.inference_mode():
                rows = pool(self._pass(batch), batch.segments, self._info.pooling)  # (sequences, hidden)
                for dense in self._dense:
                    rows = dense(rows)
                rows = rows[torch.from_numpy(places).to(self._device)]  # in prompt order
                if not bool(rows.isfinite().all()):
                    raise EngineError(
                        f"The model {self._info.name} gave NaN or infinity. That is the server's fault, not the "
                        "prompt's; dtype float32 may help."
                    )
                return self._finish(rows, [prompt.params for prompt in prompts])
        except RuntimeError as exc:
            if isinstance(exc, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(exc):
                raise MemoryError(str(exc)) from exc
            raise

    def close(self) -> None:
        """Release the model."""
        self._pass = None
        self._dense = []
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _finish(self, rows: torch.Tensor, params: Sequence[PoolingParams]) -> list[NDArray[np.float32]]:
        """Cut and activate each row as its prompt asks: all in one go where all ask the same."""
        asked = [self._asked(one) for one in params]
        distinct = set(asked)
        if len(distinct) == 1:
            return list(self._finish_alike(rows, *asked[0]))
        finished = {wish: self._finish_alike(rows, *wish) for wish in distinct}
        return [finished[wish][i] for i, wish in enumerate(asked)]

    def _asked(self, params: PoolingParams) -> tuple[int | None, bool]:
        """Return the dimensions and the use of the activation: the request's wish, the operator's, the default."""
        dimensions = params.dimensions if params.dimensions is not None else self._pooler.dimensions
        for wish in (params.use_activation, self._pooler.use_activation):
            if wish is not None:
                return dimensions, wish
        return dimensions, True

    def _finish_alike(self, rows: torch.Tensor, dimensions: int | None, use_activation: bool) -> NDArray[np.float32]:
        rows = rows[:, :dimensions]
        finished = self._activation(rows) if use_activation else rows
        array: NDArray[np.float32] = finished.cpu().numpy()
        return array
