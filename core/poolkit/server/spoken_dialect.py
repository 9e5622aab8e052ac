"""A dialect with its provider: it reads, decodes and encodes, and the provider is blamed for its failures."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from poolkit.contract import Call, Dialect, NoBody, Reply, Served
from poolkit.errors import HookError, RequestError
from poolkit.pipeline.served import ServedModel
from poolkit.registry import Plugin
from poolkit.server.native import read_request
from poolkit.validation import refused

__all__ = ["SpokenDialect"]

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True, eq=False)
class SpokenDialect:
    """A dialect and its provider, who is blamed for its failures.

    Attributes:
        dialect: what was provided.
        name: of its entry point; of the operation where it is the operation's own.
        plugin: the provider.
    """

    dialect: Dialect[Any, Any]
    name: str
    plugin: Plugin

    @property
    def reads_json(self) -> bool:
        """True if it needs the body parsed."""
        return not issubclass(self.dialect.request, NoBody)

    def matches(self, call: Call, served: ServedModel) -> bool:
        """Return whether a request is meant for the dialect."""
        matches = self.dialect.matches
        if matches is None or call.method not in self.dialect.methods:
            return call.method in self.dialect.methods
        with self._blaming("matches", served):
            return bool(matches(call, served))

    def is_offered_by(self, served: ServedModel) -> bool:
        """Return whether the served task answers what the dialect asks, in the standard way."""
        if self.dialect.operation is None:
            return True
        bound = served.operations.get(self.dialect.operation)
        if bound is None:
            return False
        is_read = self.dialect.decode is not None or issubclass(self.dialect.request, bound.operation.request)
        return is_read and issubclass(bound.operation.response, self.dialect.response)

    def read(self, call: Call, served: ServedModel) -> BaseModel:
        """Return what the client asks. Raises RequestError with a sentence for each wrong field."""
        request: type[BaseModel] = self.dialect.request
        body = dict(call.body)
        if "model" not in request.model_fields:
            body.pop("model", None)  # it has chosen the model
        return read_request(request, body, modalities=served.modalities)

    def decode(self, request: BaseModel, call: Call, served: ServedModel) -> BaseModel:
        """Return what the operation is asked, or without an operation the response.

        Raises:
            RequestError: the request is wrong, says the dialect or the operation's own model.
            HookError: the dialect failed.
        """
        if self.dialect.decode is None:
            return request
        with self._blaming("decode", served):
            if self.dialect.operation is None:
                return _expect(BaseModel, self.dialect.decode(request, call, served))
            expected: type[BaseModel] = served.operations[self.dialect.operation].operation.request
            try:
                return _expect(expected, self.dialect.decode(request, call, served))
            except ValidationError as error:
                if error.title == expected.__name__:
                    raise refused(error) from error
                raise

    def encode(self, response: BaseModel, request: BaseModel, call: Call, served: ServedModel) -> Reply:
        """Return the answer."""
        with self._blaming("encode", served):
            return _expect(Reply, self.dialect.encode(response, request, call))

    @contextmanager
    def _blaming(self, function: str, served: Served) -> Iterator[None]:
        """Blame a plugin for everything that its function raises, but for what it blames on the request."""
        try:
            yield
        except (RequestError, HookError):
            raise
        except Exception as error:
            message = f"dialect {self.name!r} of {self.plugin} failed in {function}."
            logger.exception("%s", message)
            raise HookError(message, plugin=self.plugin.name, task=served.task.name, hook=function) from error


def _expect(expected: type[ResultT], value: object) -> ResultT:
    if not isinstance(value, expected):
        raise TypeError(f"returned {type(value).__name__}, not {expected.__name__}")
    return value
