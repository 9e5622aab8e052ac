"""Plugins without a flaw: tests of the conformance kit plant one in them."""

__all__ = ["SOUND", "SOUND_WRAPPER"]

SOUND = """
from pydantic import BaseModel, ConfigDict

from poolkit import Operation, Output, PoolingIOProcessor, PoolingTask, Prepared


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    scale: float = 1.0


class Request(BaseModel):
    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"texts": ["a cat", "a dog"], "note": "why"}]}
    )

    texts: list[str]
    note: str = "none"


class Response(BaseModel):
    sums: list[float]
    note: str


class Processor(PoolingIOProcessor[Request, Response]):
    def pre_process(self, request):
        return Prepared(request.texts, state=request.note)

    def post_process(self, prepared, outputs):
        return Response(sums=[float(output.data.sum()) for output in outputs], note=prepared.state)


SOUND = PoolingTask(
    name="sound",
    api=1,
    summary="Adds up vectors.",
    output=Output.VECTOR,
    settings=Settings,
    operations=(
        Operation(
            name="sum",
            request=Request,
            response=Response,
            io_processor="poolkit_sound:Processor",
            routes=("/sound/sum",),
        ),
    ),
)
"""
"""A task."""

SOUND_WRAPPER = """
from pydantic import BaseModel, ConfigDict

from poolkit import hookimpl


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    suffix: str = "!"


class Wrapper:
    def __init__(self, settings):
        self.suffix = settings.suffix

    @hookimpl(wrapper=True)
    def pre_process(self, request):
        prepared = yield
        return prepared

    @hookimpl(wrapper=True)
    def post_process(self, prepared, outputs):
        response = yield
        return response


@hookimpl
def poolkit_wrap(context, settings):
    return [Wrapper(settings)]
"""
"""A hook module whose wrapper surrounds every operation."""
