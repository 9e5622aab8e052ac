"""`/token_classify`: the entities in each input, in the frame of vLLM's routes."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from poolkit.errors import RequestError
from poolkit.operations import TokenClassifyRequest, TokenClassifyResponse
from poolkit.server.dialects.codec import Call, Decoded, check_model
from poolkit.server.dialects.shapes import ModelFields, check_not_empty, list_answer
from poolkit.server.failures import ErrorBody, openai_error
from poolkit.validation import validate

__all__ = ["TokenClassify"]


class TokenClassifyBody(TokenClassifyRequest, ModelFields):
    """Find the entities in each input. Fields that are not listed are ignored."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={"examples": [{"input": ["Ada was born in London."], "aggregation_strategy": "simple"}]},
    )


class TokenClassify:
    """The codec of `/token_classify`, for the model that is served as `model`."""

    paths: tuple[str, ...] = ("/token_classify",)
    operation = "token_classify"
    tasks: tuple[str, ...] = ("token_classify",)
    request: type[BaseModel] = TokenClassifyBody
    error_body: ErrorBody = staticmethod(openai_error)

    def __init__(self, model: str) -> None:
        self._model = model

    def decode(self, call: Call) -> Decoded:
        """Read the request: it is the operation's own, with the client's fields beside."""
        check_model(call.body.get("model"), served=self._model)
        request = validate(TokenClassifyBody, call.body, error_type=RequestError)
        check_not_empty(request.input)

        def encode(response: BaseModel) -> bytes:
            assert isinstance(response, TokenClassifyResponse)
            data = (one.model_dump() for one in response.data)
            return list_answer(f"tokens-{call.request_id}", model=self._model, data=data, usage=response.usage)

        return Decoded(request, encode)
