"""`/rerank` as Jina, vLLM and Cohere's v1 answer it: documents with their scores, the most relevant first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from poolkit.errors import RequestError
from poolkit.operations import RerankRequest, RerankResponse
from poolkit.operations.images import TextOrImage
from poolkit.server.dialects.codec import Call, Decoded, check_model, to_json
from poolkit.server.dialects.shapes import ModelFields
from poolkit.server.failures import ErrorBody, openai_error
from poolkit.validation import validate

__all__ = ["JinaRerank"]


def _text_of(document: object) -> object:
    return document["text"] if isinstance(document, Mapping) and "text" in document else document


class JinaRerankRequest(RerankRequest, ModelFields):
    """Sort documents by how well they answer a query. Fields that are not listed are ignored."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "examples": [
                {
                    "query": "Where did the cat sit?",
                    "documents": ["Stock prices fell.", {"text": "A cat sat on the mat."}],
                    "top_n": 1,
                }
            ]
        },
    )

    documents: list[Annotated[TextOrImage, BeforeValidator(_text_of, json_schema_input_type=str | dict[str, str])]] = (
        Field(description='What is sorted: texts, objects {"text": …}, or {"image": …} where the model reads those.')
    )
    return_documents: bool = Field(default=True, description="Answer each document with its score.")


class JinaRerank:
    """The codec of `/rerank`, for the model that is served as `model`."""

    paths: tuple[str, ...] = ("/rerank", "/v1/rerank", "/v2/rerank")
    operation = "rerank"
    tasks: tuple[str, ...] = ("classify", "token_embed", "embed")
    request: type[BaseModel] = JinaRerankRequest
    error_body: ErrorBody = staticmethod(openai_error)

    def __init__(self, model: str) -> None:
        self._model = model

    def decode(self, call: Call) -> Decoded:
        """Read the request: it is the operation's own, its documents strings or objects."""
        check_model(call.body.get("model"), served=self._model)
        request = validate(JinaRerankRequest, call.body, error_type=RequestError)
        if not request.documents:
            raise RequestError("documents is empty. Send at least one document.", param="documents")

        def encode(response: BaseModel) -> bytes:
            assert isinstance(response, RerankResponse)
            results = [
                {
                    "index": one.index,
                    "relevance_score": one.relevance_score,
                    **(
                        {"document": {"text": one.document}}
                        if request.return_documents and one.document is not None
                        else {}
                    ),
                }
                for one in response.results
            ]
            return to_json(
                {
                    "id": f"rerank-{call.request_id}",
                    "model": self._model,
                    "results": results,
                    "usage": response.usage.model_dump(),
                }
            )

        return Decoded(request, encode)
