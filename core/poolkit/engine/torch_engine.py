"""Runs any transformers model with torch: packed where the model allows it, then by the head that the task asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from poolkit.contract import Activation, Output
from poolkit.engine.answers import Raw, Wish, answer
from poolkit.engine.late_interaction.queries import QueryStore
from poolkit.engine.loading import resolve_device, resolve_dtype
from poolkit.engine.outputs import Outputs, load_outputs
from poolkit.engine.passes.layout import lay_out
from poolkit.errors import EngineError, ModelError

if TYPE_CHECKING:
    from poolkit.config import ModelConfig
    from poolkit.contract import EncodedPrompt, PooledOutput, PoolingTask, ResolvedParams
    from poolkit.models import Decision, ModelInfo

__all__ = ["TorchEngine", "load_engine"]


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
        self._task = task
        self._device, device_decision = resolve_device(config)
        dtype, dtype_decision = resolve_dtype(config, self._device)
        self._outputs: Outputs | None = load_outputs(info, task, config, dtype=dtype, device=self._device)
        self._decisions = (device_decision, dtype_decision, *self._outputs.decisions)
        self._queries = QueryStore()

    @property
    def decisions(self) -> Sequence[Decision]:
        """Device, dtype and path, each with why."""
        return self._decisions

    def forward(self, prompts: Sequence[EncodedPrompt]) -> Sequence[PooledOutput]:
        """Return what each prompt gives, in order: pooled, projected, cut to its dimensions, activated.

        Raises MemoryError where the batch does not fit, and EngineError where the model gives NaN or infinity.
        """
        outputs: dict[int, PooledOutput] = {}
        for is_image in (False, True):  # texts first: there may be a query among them that images are scored against
            places = [place for place, prompt in enumerate(prompts) if (prompt.image is not None) is is_image]
            if places:
                outputs.update(zip(places, self._forward([prompts[place] for place in places]), strict=True))
        return [outputs[place] for place in range(len(prompts))]

    def release(self, keys: Sequence[str]) -> None:
        """Forget the queries that are kept under these keys; some of them may be gone already."""
        self._queries.release(keys)

    @property
    def queries_kept(self) -> int:
        """How many queries wait for documents now."""
        return len(self._queries)

    def close(self) -> None:
        """Release the model."""
        self._outputs = None
        self._queries = QueryStore()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _forward(self, prompts: Sequence[EncodedPrompt]) -> list[PooledOutput]:
        """Return what each of some texts, or of some images, gives."""
        wishes = [self._wish(prompt.params) for prompt in prompts]
        try:
            with torch.inference_mode():
                raw, places = self._run(prompts)
                answers = answer(
                    self._calibrate(raw),
                    prompts,
                    places=places,
                    wishes=wishes,
                    activation=self._activation,
                    queries=self._queries,
                )
        except RuntimeError as exc:
            if isinstance(exc, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(exc):
                raise MemoryError(str(exc)) from exc
            raise
        if answers is None:
            raise EngineError(
                f"The model {self._info.name} gave NaN or infinity. That is the server's fault, not the prompt's; "
                "dtype float32 may help."
            )
        return [self._at_steps(output, prompt.params) for output, prompt in zip(answers, prompts, strict=True)]

    def _run(self, prompts: Sequence[EncodedPrompt]) -> tuple[Raw, list[int]]:
        """Return what the model gives, and where in it each prompt stands."""
        if self._outputs is None:
            raise EngineError(f"The engine of {self._info.name} is closed.")
        if prompts[0].image is None:
            batch, places = lay_out(prompts, device=self._device, takes_types=self._outputs.takes_types)
            return self._outputs.produce(batch), places.tolist()
        if self._outputs.produce_images is None:
            raise EngineError(f"Task {self._task.name!r} runs no images.")
        return self._outputs.produce_images(prompts), list(range(len(prompts)))

    def _calibrate(self, raw: Raw) -> Raw:
        """Shift and scale a sequence classifier's logits as the operator says."""
        mean, sigma = self._pooler.logit_mean, self._pooler.logit_sigma
        if self._task.output is not Output.LOGITS or (mean, sigma) == (None, None):
            return raw
        return replace(raw, rows=(raw.rows - (mean or 0)) / (sigma or 1))

    def _wish(self, params: ResolvedParams) -> Wish:
        """Return what becomes of a prompt's rows."""
        return Wish(params.activates, params.dimensions, params.columns)

    def _at_steps(self, output: PooledOutput, params: ResolvedParams) -> PooledOutput:
        """Leave a process reward model's answer the rows at its steps."""
        if params.step_tag_id is None:
            return output
        return replace(output, data=output.data[output.prompt_token_ids == params.step_tag_id])
