"""vLLM's and Jina's `/classify`: the labels of each input."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from poolkit.errors import RequestError
from poolkit.operations import ClassifyRequest, ClassifyResponse
from poolkit.server.dialects.codec import Call, Decoded, check_model
from poolkit.server.dialects.shapes import ModelFields, check_not_empty, list_answer
from poolkit.server.failures import ErrorBody, openai_error
from poolkit.validation import validate

__all__ = ["VLLMClassify"]


class VLLMClassifyRequest(ClassifyRequest, ModelFields):
    """Classify each input. Fields that are not listed are ignored."""

    model_config = ConfigDict(
        extra="ignore", json_schema_extra={"examples": [{"input": ["A cat sat on the mat.", "Stock prices fell."]}]}
    )


class VLLMClassify:
    """The codec of `/classify`, for the model that is served as `model`."""

    paths: tuple[str, ...] = ("/classify", "/v1/classify")
    operation = "classify"
    tasks: tuple[str, ...] = ("classify",)
    request: type[BaseModel] = VLLMClassifyRequest
    error_body: ErrorBody = staticmethod(openai_error)

    def __init__(self, model: str) -> None:
        self._model = model

    def decode(self, call: Call) -> Decoded:
        """Read the request: it is the operation's own, with the client's fields beside."""
        check_model(call.body.get("model"), served=self._model)
        request = validate(VLLMClassifyRequest, call.body, error_type=RequestError)
        check_not_empty(request.input)

        def encode(response: BaseModel) -> bytes:
            assert isinstance(response, ClassifyResponse)
            data = (
                {
                    "label": one.label,
                    "probs": one.probs,
                    "num_classes": len(one.probs),
                    "labels": [{"label": listed.label, "score": listed.score} for listed in one.labels],
                }
                for one in response.data
            )
            return list_answer(f"classify-{call.request_id}", model=self._model, data=data, usage=response.usage)

        return Decoded(request, encode)
