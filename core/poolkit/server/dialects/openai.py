"""OpenAI's `/v1/embeddings`, with the fields that vLLM adds to it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from poolkit.errors import RequestError
from poolkit.operations import EmbeddingsRequest, EmbeddingsResponse
from poolkit.server.dialects.codec import Call, Decoded, check_model
from poolkit.server.dialects.shapes import ClientFields, check_not_empty, list_answer, to_base64
from poolkit.server.failures import ErrorBody, openai_error
from poolkit.validation import validate

__all__ = ["OpenAIEmbeddings"]


class OpenAIEmbeddingsRequest(EmbeddingsRequest, ClientFields):
    """Embed each input as one vector. Fields that are not listed are ignored."""

    model_config = ConfigDict(
        extra="ignore", json_schema_extra={"examples": [{"input": ["A cat sat on the mat.", "Stock prices fell."]}]}
    )


class OpenAIEmbeddings:
    """The codec of `/v1/embeddings`, for the model that is served as `model`."""

    paths: tuple[str, ...] = ("/v1/embeddings", "/embeddings")
    operation = "embeddings"
    tasks: tuple[str, ...] = ("embed",)
    request: type[BaseModel] = OpenAIEmbeddingsRequest
    error_body: ErrorBody = staticmethod(openai_error)

    def __init__(self, model: str) -> None:
        self._model = model

    def decode(self, call: Call) -> Decoded:
        """Read the request: it is the operation's own, with the client's fields beside."""
        check_model(call.body.get("model"), served=self._model)
        request = validate(OpenAIEmbeddingsRequest, call.body, error_type=RequestError)
        check_not_empty(request.input)
        as_base64 = request.encoding_format == "base64"

        def encode(response: BaseModel) -> bytes:
            assert isinstance(response, EmbeddingsResponse)
            data = (
                {"object": "embedding", "embedding": to_base64(row) if as_base64 else row}
                for row in response.embeddings
            )
            return list_answer(f"embd-{call.request_id}", model=self._model, data=data, usage=response.usage)

        return Decoded(request, encode)
