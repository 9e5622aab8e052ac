"""vLLM's `/score`: one number for each query with its document."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from poolkit.errors import RequestError
from poolkit.operations import ScoreRequest, ScoreResponse
from poolkit.operations.scoring import Texts
from poolkit.server.dialects.codec import Call, Decoded, check_model
from poolkit.server.dialects.shapes import ModelFields, list_answer
from poolkit.server.failures import ErrorBody, openai_error
from poolkit.validation import validate

__all__ = ["VLLMScore"]

SPELLINGS = (("queries", "documents"), ("queries", "items"), ("data_1", "data_2"), ("text_1", "text_2"))


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
        description="A text, or an image where the model reads those, or a list of them.",
    )
    documents: Texts = Field(
        validation_alias=AliasChoices("documents", "items", "data_2", "text_2"),
        description="The same.",
    )


class VLLMScore:
    """The codec of `/score`, for the model that is served as `model`."""

    paths: tuple[str, ...] = ("/score", "/v1/score")
    operation = "score"
    tasks: tuple[str, ...] = ("classify", "token_embed", "embed")
    request: type[BaseModel] = VLLMScoreRequest
    error_body: ErrorBody = staticmethod(openai_error)

    def __init__(self, model: str) -> None:
        self._model = model

    def decode(self, call: Call) -> Decoded:
        """Read the request: it is the operation's own, its two sides in one of four spellings."""
        check_model(call.body.get("model"), served=self._model)
        _check_spelling(call.body)
        request = validate(VLLMScoreRequest, call.body, error_type=RequestError)
        if not request.documents:
            raise RequestError("There is nothing to score. Send at least one query and one document.")

        def encode(response: BaseModel) -> bytes:
            assert isinstance(response, ScoreResponse)
            data = ({"object": "score", "score": score} for score in response.scores.tolist())
            return list_answer(f"score-{call.request_id}", model=self._model, data=data, usage=response.usage)

        return Decoded(request, encode)


def _check_spelling(body: Mapping[str, object]) -> None:
    given = tuple(name for name in dict.fromkeys(name for sides in SPELLINGS for name in sides) if name in body)
    if given not in SPELLINGS:
        expected = ", or ".join(" and ".join(sides) for sides in SPELLINGS)
        raise RequestError(f"The two sides must be {expected}; this request has {' and '.join(given) or 'none'}.")
