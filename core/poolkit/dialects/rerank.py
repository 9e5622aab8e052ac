"""`/rerank` as Jina, vLLM and Cohere's v1 answer it: documents with their scores, the most relevant first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BeforeValidator, ConfigDict, Field

from poolkit.contract import Call, Dialect, Reply, Served
from poolkit.dialects.shapes import ModelFields
from poolkit.errors import RequestError
from poolkit.operations import RerankRequest, RerankResponse
from poolkit.operations.modalities import TAKES_TEXTS, TextOrModality

__all__ = ["RERANK"]


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

    documents: Annotated[
        list[Annotated[TextOrModality, BeforeValidator(_text_of, json_schema_input_type=str | dict[str, str])]],
        TAKES_TEXTS,
    ] = Field(description='What is sorted: texts, objects {"text": …}, or objects of another modality.')
    return_documents: bool = Field(default=True, description="Answer each document with its score.")


def decode(request: JinaRerankRequest, call: Call, served: Served) -> JinaRerankRequest:  # noqa: ARG001
    """Return the request. Raises RequestError where it has no documents."""
    if not request.documents:
        raise RequestError("documents is empty. Send at least one document.", param="documents")
    return request


def encode(response: RerankResponse, request: JinaRerankRequest, call: Call) -> Reply:
    """Write one item per document, with its text where the client wants that."""
    results = []
    for result in response.results:
        item: dict[str, object] = {"index": result.index, "relevance_score": result.relevance_score}
        if request.return_documents and result.document is not None:
            item["document"] = {"text": result.document}
        results.append(item)
    return Reply.json(
        {
            "id": f"rerank-{call.request_id}",
            "model": call.model,
            "results": results,
            "usage": response.usage.model_dump(),
        }
    )


RERANK = Dialect(
    paths=("/rerank", "/v1/rerank", "/v2/rerank"),
    operation="rerank",
    request=JinaRerankRequest,
    response=RerankResponse,
    decode=decode,
    encode=encode,
    never_blocks=True,
)
