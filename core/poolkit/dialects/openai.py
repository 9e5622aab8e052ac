"""OpenAI's `/v1/embeddings`, with the fields that vLLM adds to it."""

from __future__ import annotations

from pydantic import ConfigDict

from poolkit.contract import Call, Dialect, Reply
from poolkit.dialects.shapes import ClientFields, list_answer, require_input, to_base64
from poolkit.operations import EmbeddingsRequest, EmbeddingsResponse

__all__ = ["EMBEDDINGS"]


class OpenAIEmbeddingsRequest(EmbeddingsRequest, ClientFields):
    """Embed each input as one vector. Fields that are not listed are ignored."""

    model_config = ConfigDict(
        extra="ignore", json_schema_extra={"examples": [{"input": ["A cat sat on the mat.", "Stock prices fell."]}]}
    )


def encode_embeddings(response: EmbeddingsResponse, request: OpenAIEmbeddingsRequest, call: Call) -> Reply:
    """Write one item per vector."""
    is_base64 = request.encoding_format == "base64"
    data = ({"object": "embedding", "embedding": to_base64(row) if is_base64 else row} for row in response.embeddings)
    return list_answer("embd", call, data=data, usage=response.usage)


EMBEDDINGS = Dialect(
    paths=("/v1/embeddings", "/embeddings"),
    operation="embeddings",
    request=OpenAIEmbeddingsRequest,
    response=EmbeddingsResponse,
    decode=require_input,
    encode=encode_embeddings,
    never_blocks=True,
)
