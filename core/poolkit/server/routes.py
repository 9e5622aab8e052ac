"""One HTTP request as the server reads it, and the route that answers it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

from poolkit.contract import Failure, Reply
from poolkit.errors import did_you_mean
from poolkit.server.failures import RefusedError, openai_error

__all__ = ["Endpoint", "HttpRequest", "Message", "Receive", "Route", "Routes", "Send"]

Message: TypeAlias = MutableMapping[str, Any]
"""An ASGI scope or event."""
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

PARAMETER = re.compile(r"\{(\w+)\}")


class HttpRequest:
    """A request, read as far as somebody asks.

    Attributes:
        method: "POST", "GET", …
        root: the path that the app is mounted at in another one; "" where it is not.
        path: from there on.
        receive: gives the ASGI server's events.
        request_id: the client's own if it is sane, else the one that was made for it.
        body: its bytes, once they are there.
        path_parameters: those that the route's path has in braces.
        key_name: the name of the API key.
        encode_error: writes its failure: of its dialect, as soon as that is known.
    """

    def __init__(self, scope: Message, receive: Receive, *, new_id: Callable[[], str]) -> None:
        self._scope = scope
        self.receive = receive
        self.method: str = scope["method"]
        self.root: str = scope.get("root_path", "")
        self.path: str = scope["path"].removeprefix(self.root) or "/"
        sent_id = self.headers.get("x-request-id")
        is_sane = sent_id is not None and REQUEST_ID.fullmatch(sent_id)
        self.request_id = sent_id if sent_id is not None and is_sane else new_id()
        self.body = b""
        self.path_parameters: Mapping[str, str] = {}
        self.key_name: str | None = None
        self.encode_error: Callable[[Failure], Reply] | None = None

    @cached_property
    def headers(self) -> Mapping[str, str]:
        """The headers by lower-case name; the first of a name counts."""
        return {
            name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(list(self._scope["headers"]))
        }

    @property
    def query(self) -> Mapping[str, str]:
        """The parameters of the URL; the last of a name counts."""
        query: bytes = self._scope["query_string"]
        return dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True)) if query else {}


Endpoint: TypeAlias = Callable[[HttpRequest], Awaitable[Reply]]


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """A path and the function that answers there.

    Attributes:
        path: `{name}` in it is a parameter.
        endpoint: answers.
        methods: the HTTP methods that it takes.
        reads_body: True if the body is read first.
        encode_error: writes a failure before a dialect is chosen.
        pattern: matches paths, where the path has parameters.
    """

    path: str
    endpoint: Endpoint
    methods: Sequence[str] = ("GET",)
    reads_body: bool = False
    encode_error: Callable[[Failure], Reply] = openai_error
    pattern: re.Pattern[str] | None = field(init=False)

    def __post_init__(self) -> None:
        """Compile the path."""
        object.__setattr__(self, "pattern", _compile(self.path) if "{" in self.path else None)

    def check_method(self, request: HttpRequest) -> None:
        """Raise RefusedError (405) for another method."""
        if request.method in self.methods:
            return
        allowed = ", ".join(self.methods)
        raise RefusedError(
            f"{request.path} does not take {request.method}. It takes {allowed}.",
            status=HTTPStatus.METHOD_NOT_ALLOWED,
            code="method_not_allowed",
            headers={"Allow": allowed},
        )


class Routes:
    """The routes of an app. A path without parameters is found before those with some."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._all = tuple(routes)
        self._exact = {route.path: route for route in self._all if route.pattern is None}
        self._patterns = [(route.pattern, route) for route in self._all if route.pattern is not None]

    def find(self, path: str) -> tuple[Route | None, Mapping[str, str]]:
        """Return the route of a path, if there is one, with the path's parameters."""
        route = self._exact.get(path)
        if route is not None:
            return route, {}
        for pattern, route in self._patterns:
            if match := pattern.fullmatch(path):
                return route, match.groupdict()
        return None, {}

    def missing(self, path: str) -> RefusedError:
        """Return the error (404) for a path without a route."""
        known = [route.path for route in self._all]
        return RefusedError(
            f"There is no route {path!r}.{did_you_mean(path, known)} All routes are listed at /docs.",
            status=HTTPStatus.NOT_FOUND,
            code="not_found",
        )


def _compile(path: str) -> re.Pattern[str]:
    """Return what matches the paths that a route's path, with parameters in braces, stands for."""
    literals = PARAMETER.split(path)
    parts = (f"(?P<{part}>[^/]+)" if index % 2 else re.escape(part) for index, part in enumerate(literals))
    return re.compile("".join(parts))
