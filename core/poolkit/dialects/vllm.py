"""vLLM's routes: `/pooling`, `/classify` (Jina's too), `/token_classify` and `/score`."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import AliasChoices, ConfigDict, Field, model_validator

from poolkit.contract import Call, Dialect, Reply, Served
from poolkit.dialects.shapes import ClientFields, ModelFields, list_answer, require_input, to_base64
from poolkit.errors import RequestError, did_you_mean
from poolkit.operations import (
    ClassifyRequest,
    ClassifyResponse,
    PoolingRequest,
    PoolingResponse,
    PromptsRequest,
    ScoreRequest,
    ScoreResponse,
    TokenClassifyRequest,
    TokenClassifyResponse,
)
from poolkit.operations.scoring import Texts

__all__ = ["DIALECTS"]

SIDES = (("queries", "documents"), ("queries", "items"), ("data_1", "data_2"), ("text_1", "text_2"))
"""Names of the two sides of a request for scores."""


class VLLMPoolingRequest(PoolingRequest, ClientFields):
    """Pool each input. Fields that are not listed are ignored."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"examples": [{"input": ["A cat sat on the mat."]}]})


class VLLMClassifyRequest(ClassifyRequest, ModelFields):
    """Classify each input. Fields that are not listed are ignored."""

    model_config = ConfigDict(
        extra="ignore", json_schema_extra={"examples": [{"input": ["A cat sat on the mat.", "Stock prices fell."]}]}
    )


class VLLMTokenClassifyRequest(TokenClassifyRequest, ModelFields):
    """Find the entities in each input. Fields that are not listed are ignored."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={"examples": [{"input": ["Ada was born in London."], "aggregation_strategy": "simple"}]},
    )


class VLLMScoreRequest(ScoreRequest, ModelFields):
    """Score queries against documents. Fields that are not listed are ignored.

    The two sides may also be named queries and items, data_1 and data_2, or text_1 and text_2.
    """

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "examples": [
                {"queries": "Where did the cat sit?", "documents": ["A cat sat on the mat.", "Stock prices fell."]}
            ]
        },
    )

    queries: Texts = Field(
        validation_alias=AliasChoices("queries", "data_1", "text_1"),
        description="A text, an object of another modality, or a list of them.",
    )
    documents: Texts = Field(
        validation_alias=AliasChoices("documents", "items", "data_2", "text_2"),
        description="The same.",
    )

    @model_validator(mode="before")
    @classmethod
    def _check_spelling(cls, fields: Mapping[str, object]) -> Mapping[str, object]:
        given = tuple(name for name in dict.fromkeys(name for sides in SIDES for name in sides) if name in fields)
        if given not in SIDES:
            expected = ", or ".join(" and ".join(sides) for sides in SIDES)
            names = {name for sides in SIDES for name in sides}
            hint = next(filter(None, (did_you_mean(name, names) for name in fields.keys() - names)), "")
            raise ValueError(
                f"The two sides must be {expected}; this request has {' and '.join(given) or 'none'}.{hint}"
            )
        return fields


def decode_pooling(request: VLLMPoolingRequest, call: Call, served: Served) -> PromptsRequest:
    """Return the request.

    Raises RequestError where it has no prompt, or wants base64 of what is no array.
    """
    kind = served.task.output_kind
    if request.encoding_format == "base64" and kind.to_json is not None:
        raise RequestError(
            f"encoding_format is 'base64', but the output of task {served.task.name!r} is {kind.name}, which is no "
            "array. Leave it out.",
            param="encoding_format",
        )
    return require_input(request, call, served)


def encode_pooling(response: PoolingResponse, request: VLLMPoolingRequest, call: Call) -> Reply:
    """Write one item per prompt."""
    data = (
        {"object": "pooling", "data": to_base64(pooled), "shape": pooled.shape, "dtype": "float32"}
        if request.encoding_format == "base64"
        else {"object": "pooling", "data": pooled}
        for pooled in response.data
    )
    return list_answer("pool", call, data=data, usage=response.usage)


def encode_classify(response: ClassifyResponse, request: VLLMClassifyRequest, call: Call) -> Reply:  # noqa: ARG001
    """Write the labels of each prompt."""
    data = (
        {
            "label": item.label,
            "probs": item.probs,
            "num_classes": len(item.probs),
            "labels": [{"label": listed.label, "score": listed.score} for listed in item.labels],
        }
        for item in response.data
    )
    return list_answer("classify", call, data=data, usage=response.usage)


def encode_token_classify(
    response: TokenClassifyResponse,
    request: VLLMTokenClassifyRequest,  # noqa: ARG001 - an `encode`
    call: Call,
) -> Reply:
    """Write the entities of each prompt."""
    return list_answer("tokens", call, data=(item.model_dump() for item in response.data), usage=response.usage)


def decode_score(request: VLLMScoreRequest, call: Call, served: Served) -> VLLMScoreRequest:  # noqa: ARG001
    """Return the request. Raises RequestError where it has no documents."""
    if not request.documents:
        raise RequestError("There is nothing to score. Send at least one query and one document.")
    return request


def encode_score(response: ScoreResponse, request: VLLMScoreRequest, call: Call) -> Reply:  # noqa: ARG001
    """Write one item per pair."""
    data = [{"object": "score", "score": score} for score in response.scores.tolist()]
    return list_answer("score", call, data=data, usage=response.usage)


DIALECTS = (
    Dialect(
        paths=("/pooling",),
        operation="pooling",
        request=VLLMPoolingRequest,
        response=PoolingResponse,
        decode=decode_pooling,
        encode=encode_pooling,
        never_blocks=True,
    ),
    Dialect(
        paths=("/classify", "/v1/classify"),
        operation="classify",
        request=VLLMClassifyRequest,
        response=ClassifyResponse,
        decode=require_input,
        encode=encode_classify,
        never_blocks=True,
    ),
    Dialect(
        paths=("/token_classify",),
        operation="token_classify",
        request=VLLMTokenClassifyRequest,
        response=TokenClassifyResponse,
        decode=require_input,
        encode=encode_token_classify,
        never_blocks=True,
    ),
    Dialect(
        paths=("/score", "/v1/score"),
        operation="score",
        request=VLLMScoreRequest,
        response=ScoreResponse,
        decode=decode_score,
        encode=encode_score,
        never_blocks=True,
    ),
)
