"""vLLM's `/pooling`: whatever the served task pools, for each input."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from poolkit.errors import RequestError
from poolkit.operations import PoolingRequest, PoolingResponse
from poolkit.server.dialects.codec import Call, Decoded, check_model
from poolkit.server.dialects.shapes import ClientFields, check_not_empty, list_answer, to_base64
from poolkit.server.failures import ErrorBody, openai_error
from poolkit.validation import validate

__all__ = ["VLLMPooling"]


class VLLMPoolingRequest(PoolingRequest, ClientFields):
    """Pool each input. Fields that are not listed are ignored."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"examples": [{"input": ["A cat sat on the mat."]}]})


class VLLMPooling:
    """The codec of `/pooling`, for the model that is served as `model`."""

    paths: tuple[str, ...] = ("/pooling",)
    operation = "pooling"
    tasks: tuple[str, ...] = ("embed", "classify", "token_embed", "token_classify", "reward")
    request: type[BaseModel] = VLLMPoolingRequest
    error_body: ErrorBody = staticmethod(openai_error)

    def __init__(self, model: str) -> None:
        self._model = model

    def decode(self, call: Call) -> Decoded:
        """Read the request: it is the operation's own, with the client's fields beside."""
        check_model(call.body.get("model"), served=self._model)
        request = validate(VLLMPoolingRequest, call.body, error_type=RequestError)
        check_not_empty(request.input)
        as_base64 = request.encoding_format == "base64"

        def encode(response: BaseModel) -> bytes:
            assert isinstance(response, PoolingResponse)
            data = (
                {"object": "pooling", "data": to_base64(pooled), "shape": pooled.shape, "dtype": "float32"}
                if as_base64
                else {"object": "pooling", "data": pooled}
                for pooled in response.data
            )
            return list_answer(f"pool-{call.request_id}", model=self._model, data=data, usage=response.usage)

        return Decoded(request, encode)
