"""The IO processor of the operation `pooling`, which reads the same for every task."""

from __future__ import annotations

from collections.abc import Sequence

from poolkit.contract import Operation, PooledOutput, PoolingIOProcessor, Prepared
from poolkit.errors import RequestError
from poolkit.operations import PoolingRequest, PoolingResponse, Usage

__all__ = ["POOLING", "PoolingProcessor"]

POOLING = Operation(
    name="pooling",
    request=PoolingRequest,
    response=PoolingResponse,
    io_processor="poolkit.processors:PoolingProcessor",
    per_prompt=("data", "prompt_token_ids"),
)
"""The standard operation `pooling`, for any task: what `LLM.encode` and `/pooling` ask."""


class PoolingProcessor(PoolingIOProcessor[PoolingRequest, PoolingResponse]):
    """Return what was pooled for each prompt."""

    def pre_process(self, request: PoolingRequest) -> Prepared:
        """Return the request's prompts; refuse a task that is not the served one."""
        check_requested_task(request.task, served=self.context.task.name)
        prompts = request.prompts()
        return Prepared(prompts, request.params(prompts=len(prompts)))

    def post_process(self, prepared: Prepared, outputs: Sequence[PooledOutput]) -> PoolingResponse:  # noqa: ARG002
        """Return each prompt's output as it is."""
        return PoolingResponse(
            data=[output.data for output in outputs],
            prompt_token_ids=[list(output.prompt_token_ids) for output in outputs],
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
