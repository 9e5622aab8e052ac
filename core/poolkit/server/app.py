"""Builds the app: which routes there are, and what stands around them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from http import HTTPStatus

import importlib_metadata
from fastapi import FastAPI, Request, Response
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.exceptions import HTTPException

from poolkit.config import PluginConfig
from poolkit.contract import Operation
from poolkit.errors import PluginInvalidError, did_you_mean
from poolkit.pipeline.served import ServedModel
from poolkit.registry import Plugin, Row, list_plugins
from poolkit.server.dialects import Dialect, NativeOperation, dialects
from poolkit.server.dispatch import endpoint
from poolkit.server.drain import Drain
from poolkit.server.failures import RefusedError, openai_error
from poolkit.server.gate import Gate, failure_response
from poolkit.server.keys import Keys
from poolkit.server.metrics import Metrics
from poolkit.server.schema import describe_bodies
from poolkit.settings.settings import Settings

__all__ = ["create_app"]

POOLING = "pooling"


def create_app(
    served: ServedModel, settings: Settings, *, plugins: PluginConfig | None = None, drain: Drain | None = None
) -> FastAPI:
    """Return the server of one model.

    Args:
        served: the model. The caller closes it, once the app is no longer used.
        settings: the limits and keys to apply.
        plugins: what was enabled, for the table of /tasks.
        drain: what `serve` shuts the server down with.

    Raises:
        PluginInvalidError: the task claims a path that is poolkit's own.
    """
    name = settings.served_model_name or served.name
    drain = drain or Drain()
    metrics = Metrics(served, name=name, drain=drain)
    app = FastAPI(
        title="poolkit",
        version=importlib_metadata.version("poolkit"),
        summary=f"Serves {name} for the task {served.task.name!r}: {served.task.summary}",
        redoc_url=None,
        redirect_slashes=False,
    )
    rows = list_plugins(plugins or PluginConfig())
    _add_system_routes(app, served, name=name, rows=rows, drain=drain, metrics=metrics)
    spoken = list(_dialects(served, name, own_paths=frozenset(_paths(app))))
    for dialect in spoken:
        answer = endpoint(dialect, served, max_body_bytes=settings.max_body_bytes)
        for path in dialect.paths:
            app.add_api_route(
                path,
                answer,
                methods=["POST"],
                name=dialect.operation,
                tags=[dialect.operation],
                description=dialect.request.__doc__,
                response_class=Response,
            )
    error_bodies = {path: dialect.error_body for dialect in spoken for path in dialect.paths}
    describe_bodies(app, {path: dialect.request for dialect in spoken for path in dialect.paths})

    async def answer_no_route(request: Request, error: Exception) -> Response:
        """Word the router's own 404 and 405 like every other failure."""
        path = request.url.path
        if isinstance(error, HTTPException):
            error = _no_route(error, request.method, path, known=list(_paths(app)))
        return failure_response(error, request.state.request_id, error_bodies.get(path, openai_error))

    app.add_exception_handler(HTTPException, answer_no_route)
    app.add_middleware(Gate, keys=Keys(settings.api_key), drain=drain, metrics=metrics, error_bodies=error_bodies)
    return app


def _dialects(served: ServedModel, name: str, *, own_paths: frozenset[str]) -> Iterator[Dialect]:
    """Yield the standard dialects, then every operation of the task on its own routes."""
    taken = set(own_paths)
    for dialect in dialects(name):
        taken.update(dialect.paths)
        if dialect.operation != POOLING or POOLING in served.operations:
            yield dialect
    for position, bound in enumerate(served.operations.values()):
        operation = bound.operation
        _check_free(operation, taken, plugin=bound.plugin)
        paths = [f"/tasks/{served.task.name}/{operation.name}", *operation.routes]
        if position == 0 and POOLING not in served.operations:
            paths.append(f"/{POOLING}")
        taken.update(paths)
        yield NativeOperation(operation, paths=tuple(paths), task=served.task.name)


def _check_free(operation: Operation, taken: set[str], *, plugin: Plugin) -> None:
    for path in operation.routes:
        if path in taken:
            raise PluginInvalidError(
                f"{plugin}: operation {operation.name!r} asks for the route {path!r}, which is taken. "
                "Choose another path, or leave it out: the operation has /tasks/<task>/<operation> anyway.",
                plugin=plugin.name,
            )


def _add_system_routes(
    app: FastAPI, served: ServedModel, *, name: str, rows: Sequence[Row], drain: Drain, metrics: Metrics
) -> None:
    started = int(time.time())

    @app.get("/v1/models", tags=["server"])
    async def models() -> dict[str, object]:
        """List the one model that is served."""
        model = {
            "id": name,
            "object": "model",
            "created": started,
            "owned_by": "poolkit",
            "root": served.name,
            "max_model_len": served.info.max_model_len,
            "task": served.task.name,
        }
        return {"object": "list", "data": [model]}

    @app.get("/livez", tags=["server"])
    async def livez() -> dict[str, str]:
        """Say that the process answers at all."""
        return {"status": "alive"}

    @app.get("/readyz", tags=["server"])
    @app.get("/health", tags=["server"])
    async def readyz() -> dict[str, str]:
        """Say whether new requests are taken: 503 once the server is shutting down, or if the engine has died."""
        drain.check_open()
        if not served.is_alive:
            raise RefusedError(
                "The engine has died and nothing can be run. Restart the server; its log says why.",
                status=HTTPStatus.SERVICE_UNAVAILABLE,
                code="engine_dead",
            )
        return {"status": "ready"}

    @app.get("/metrics", tags=["server"])
    def scrape() -> Response:
        """Return the counts in Prometheus' text format."""
        return Response(metrics.render(), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    @app.get("/tasks", tags=["server"])
    async def tasks() -> dict[str, object]:
        """List the installed tasks, as  poolkit plugins list  does, and say which one is served."""
        operations = {
            bound.operation.name: [f"/tasks/{served.task.name}/{bound.operation.name}", *bound.operation.routes]
            for bound in served.operations.values()
        }
        return {"served": served.task.name, "operations": operations, "tasks": [asdict(row) for row in rows]}

    @app.get("/version", tags=["server"])
    async def version() -> dict[str, str]:
        """Return poolkit's version."""
        return {"version": app.version}


def _no_route(error: HTTPException, method: str, path: str, *, known: list[str]) -> HTTPException:
    message = error.detail
    if error.status_code == HTTPStatus.NOT_FOUND:
        message = f"There is no route {path!r}.{did_you_mean(path, known)} All routes are listed at /docs."
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (error.headers or {}).get("Allow", "another method")
        message = f"{path} does not take {method}. It takes {allowed}."
    return HTTPException(error.status_code, message, error.headers)


def _paths(app: FastAPI) -> Iterator[str]:
    for route in app.routes:
        yield getattr(route, "path", "")
