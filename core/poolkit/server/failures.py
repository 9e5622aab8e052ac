"""Failures of requests, as HTTP says them: the status, the words, and the envelope of every path without its own."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus

from poolkit.contract import Failure, Reply
from poolkit.errors import CancelledRequestError, ClosedError, HookError, OverloadedError, RequestError

__all__ = ["RefusedError", "describe", "openai_error"]

logger = logging.getLogger(__name__)

CLIENT_CLOSED_REQUEST = 499
"""nginx's code for a client that went away before its answer; it is only ever seen in metrics."""

RETRY_AFTER_DRAIN_S = 1


class RefusedError(RequestError):
    """The server refuses a request for a reason that has an HTTP status of its own."""

    def __init__(
        self,
        message: str,
        *,
        status: HTTPStatus,
        code: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, param=param)
        self.status = status
        self.code = code
        self.headers = headers or {}


def openai_error(failure: Failure) -> Reply:
    """Write OpenAI's envelope."""
    error = {"message": failure.message, "type": failure.kind, "param": failure.param, "code": failure.code}
    return Reply.json({"error": error}, status=failure.status, headers=failure.headers)


def describe(error: Exception, request_id: str) -> Failure:
    """Return what the client is told about `error`; what is not the client's fault is logged, once, and not told."""
    return replace(_describe(error, request_id), request_id=request_id)


def _describe(error: Exception, request_id: str) -> Failure:
    match error:
        case RefusedError():
            return Failure(
                error.status, str(error), _kind(error.status), error.code, param=error.param, headers=error.headers
            )
        case OverloadedError():
            headers = {"Retry-After": str(error.retry_after_s)}
            return Failure(429, str(error), "overloaded_error", "overloaded", headers=headers)
        case ClosedError():
            headers = {"Retry-After": str(RETRY_AFTER_DRAIN_S)}
            return Failure(503, str(error), "unavailable_error", "shutting_down", headers=headers)
        case CancelledRequestError():
            return Failure(CLIENT_CLOSED_REQUEST, "The client went away.", "invalid_request_error", "client_closed")
        case RequestError():
            return Failure(400, str(error), _kind(400), "invalid_request", param=error.param)
        case HookError():  # the registry has logged the cause
            logger.error("Request %s: %s", request_id, error)
            message = f"{error} The server's log says why; the request id is {request_id}."
            return Failure(500, message, "server_error", "plugin_failed")
        case _:
            logger.error("Request %s failed.", request_id, exc_info=error)
            message = f"The server failed to answer. Its log says why; the request id is {request_id}."
            return Failure(500, message, "server_error", "internal_error")


def _kind(status: int) -> str:
    kinds = {401: "authentication_error", 404: "not_found_error", 429: "overloaded_error", 503: "unavailable_error"}
    return kinds.get(status, "invalid_request_error")
