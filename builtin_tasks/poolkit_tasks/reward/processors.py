"""The IO processor of `reward`: what is pooled, also for those who ask by the name of what the model is."""

from __future__ import annotations

from poolkit import Output, PoolingProcessor, PoolingRequest, Prepared

__all__ = ["RewardProcessor"]


class RewardProcessor(PoolingProcessor):
    """Return a reward model's scores.

    It is a classifier of texts or of tokens, and vLLM's callers ask for it as such.
    """

    never_blocks = True

    def pre_process(self, request: PoolingRequest) -> Prepared:
        """Return the request's prompts; refuse a task that is neither the served one nor what the model is."""
        kind = "token_classify" if Output.TOKEN_LOGITS in self.context.model.outputs else "classify"
        if request.task == kind:
            request = request.model_copy(update={"task": self.context.task.name})
        return super().pre_process(request)
