"""The operation `pooling`: whatever the served task pools, for each prompt, whichever task that is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from pydantic import BaseModel, ConfigDict, Field

from poolkit.contract import Operation, PooledOutput, PoolingIOProcessor, Prepared
from poolkit.errors import RequestError
from poolkit.operations.answers import PooledData, Usage
from poolkit.operations.prompts import PromptsRequest
from poolkit.operations.token_ids import PromptTokenIds

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["POOLING", "PoolingProcessor", "PoolingRequest", "PoolingResponse"]


class PoolingRequest(PromptsRequest):
    """Return what the model pools for each prompt, whatever the served task is."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"examples": [{"input": ["A cat sat on the mat."]}]},
    )

    task: str | None = Field(default=None, description="Must be the served task; a check, not a choice.")
    dimensions: int | None = Field(default=None, ge=1, description="Length of the vectors (Matryoshka models only).")
    step_tag_id: int | None = Field(
        default=None, ge=0, description="Return the rows at this token (process reward models)."
    )
    returned_token_ids: tuple[int, ...] | None = Field(
        default=None, min_length=1, description="Return only these columns (process reward models)."
    )


class PoolingResponse(BaseModel):
    """The pooled outputs, one for each prompt and in prompt order."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    data: list[PooledData] = Field(
        description="Per prompt, float32: (dim,), (labels,), or one of those per token; or what the task's own kind of "
        "output makes of it."
    )
    prompt_token_ids: PromptTokenIds
    usage: Usage


POOLING = Operation(
    name="pooling",
    request=PoolingRequest,
    response=PoolingResponse,
    io_processor="poolkit.operations:PoolingProcessor",
    per_prompt=("data", "prompt_token_ids"),
)
"""The standard operation `pooling`, for any task: what `LLM.encode` and `/pooling` ask."""


class PoolingProcessor(PoolingIOProcessor[PoolingRequest, PoolingResponse]):
    """Return what was pooled for each prompt."""

    never_blocks = True

    def pre_process(self, request: PoolingRequest) -> Prepared:
        """Return the request's prompts; refuse a task that is not the served one."""
        check_requested_task(request.task, served=self.context.task.name)
        prompts = request.prompts()
        return Prepared(prompts, request.params(prompts=len(prompts)))

    def post_process(self, prepared: Prepared, outputs: Sequence[PooledOutput]) -> PoolingResponse:  # noqa: ARG002
        """Return each prompt's output as it is, or as the task's kind of output writes it."""
        to_json = self.context.task.output_kind.to_json
        data = [output.data if to_json is None else to_json(output) for output in outputs]
        return PoolingResponse(
            data=cast("list[NDArray[np.float32]]", data),
            prompt_token_ids=[output.prompt_token_ids for output in outputs],
            usage=Usage.of(outputs),
        )


def check_requested_task(requested: str | None, *, served: str) -> None:
    """Raise RequestError unless the requested task, if any, is the served one."""
    if requested not in (None, served):
        raise RequestError(
            f"Unsupported task: {requested!r}. This server serves {served!r}. "
            f'Restart it with --task {requested}, or PoolerConfig(task="{requested}").',
            param="task",
        )
