"""The shapes of the Hugging Face hub and of transformers' pipeline, as dialects of the operation `zero_shot`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from poolkit import Call, Dialect, Reply, Served
from poolkit_zero_shot.schema import LabelFields, Text, ZeroShotRequest, ZeroShotResponse

__all__ = ["DIALECTS"]


class HubParameters(LabelFields):
    """The labels, as the hub's clients send them."""

    model_config = ConfigDict(extra="ignore")


class HubRequest(BaseModel):
    """Ask as a client of the Hugging Face hub does. As on the hub, a text that is too long is cut."""

    # What the hub's clients send besides is about its own queues and caches.
    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "inputs": "The striker scored twice in the second half.",
                    "parameters": {"candidate_labels": ["sports", "economy", "cooking"], "multi_label": True},
                },
            ]
        },
    )

    inputs: Text | list[Text] = Field(description="A text or a list of texts.")
    parameters: HubParameters


def decode(request: HubRequest, call: Call, served: Served) -> ZeroShotRequest:  # noqa: ARG001
    """Return the same as poolkit's own request."""
    return ZeroShotRequest(input=request.inputs, truncate_prompt_tokens=-1, **request.parameters.model_dump())


def encode_hub(response: ZeroShotResponse, request: HubRequest, call: Call) -> Reply:  # noqa: ARG001
    """Write the labels of each text with their scores."""
    answers = [
        [{"label": label, "score": score} for label, score in zip(one.labels, one.scores, strict=True)]
        for one in response.data
    ]
    return Reply.json(answers[0] if isinstance(request.inputs, str) else answers)


def encode_pipeline(response: ZeroShotResponse, request: HubRequest, call: Call) -> Reply:  # noqa: ARG001
    """Write each text with its labels and their scores: what the hub's clients expected until huggingface_hub 1.1.4."""
    texts = [request.inputs] if isinstance(request.inputs, str) else request.inputs
    answers = [
        {"sequence": text, "labels": one.labels, "scores": one.scores}
        for text, one in zip(texts, response.data, strict=True)
    ]
    return Reply.json(answers[0] if isinstance(request.inputs, str) else answers)


DIALECTS = (
    Dialect(
        paths=("/zero_shot/hub",),
        operation="zero_shot",
        request=HubRequest,
        response=ZeroShotResponse,
        decode=decode,
        encode=encode_hub,
    ),
    Dialect(
        paths=("/zero_shot/pipeline",),
        operation="zero_shot",
        request=HubRequest,
        response=ZeroShotResponse,
        decode=decode,
        encode=encode_pipeline,
    ),
)
