"""The app: its routes, and what stands around them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from http import HTTPStatus

import importlib_metadata
from fastapi import FastAPI, Request, Response
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route

from poolkit.config import MAX_BODY_BYTES
from poolkit.errors import ConfigError, did_you_mean
from poolkit.offline.model import OfflineModel
from poolkit.pipeline.served import ServedModel
from poolkit.registry import Registry, operation_paths
from poolkit.server.choice import Models
from poolkit.server.dispatch import endpoint, route_path
from poolkit.server.drain import Drain
from poolkit.server.failures import RefusedError
from poolkit.server.gate import Gate, failure_response
from poolkit.server.keys import Keys
from poolkit.server.metrics import Metrics
from poolkit.server.schema import describe_dialects
from poolkit.server.table import build_table, error_encoders, place_dialects

__all__ = ["check_dialects", "create_app"]


def create_app(
    models: OfflineModel | ServedModel | Mapping[str, OfflineModel | ServedModel],
    *,
    api_keys: Iterable[str | SecretStr] = (),
    named_api_keys: Mapping[str, str | SecretStr] | None = None,
    plugin_headers: Sequence[str] = (),
    max_body_bytes: int = MAX_BODY_BYTES,
    dialects: Sequence[str] = (),
    drain: Drain | None = None,
) -> Starlette:
    """Return an ASGI app that serves models which are loaded in this process.

    It can be mounted in an app of one's own, and answers the routes that `poolkit serve` answers:

        with LLM("BAAI/bge-small-en-v1.5") as llm:
            uvicorn.run(create_app(llm))

    Args:
        models: an `LLM`, or several by the names that clients call them; an `LLM` by itself is called as its model is.
            A model may have several names. The caller closes the models, once the app is no longer used.
        api_keys: keys that open the app. By default everybody may ask.
        named_api_keys: keys that do so, by name: `current_request().key_name` tells plugins which one was sent.
        plugin_headers: headers of a request that plugins may read in `current_request().headers`. Never one that
            carries a key.
        max_body_bytes: longest request body.
        dialects: names of entry points in group `poolkit.dialects`; they are asked before the others on a shared path.
        drain: what `poolkit serve` shuts the app down with.

    Raises:
        PluginError: a plugin's dialect or operation claims a path that it may not have.
        ConfigError: `dialects` names none that is enabled, or there are no models.
    """
    served = _by_name(models)
    headers = _checked_headers(plugin_headers)
    drain = drain or Drain()
    metrics = Metrics(served, drain=drain)
    app = FastAPI(
        title="poolkit",
        version=importlib_metadata.version("poolkit"),
        summary="Serves "
        + ", ".join(f"{name} for {one.task.name!r}: {one.task.summary}" for name, one in served.items()),
        redoc_url=None,
        redirect_slashes=False,
    )
    _add_system_routes(app, served, drain=drain, metrics=metrics)
    table = build_table(served, first=dialects, is_own=_own_paths(app))
    for path, spoken in table.items():
        app.add_api_route(
            path,
            endpoint(spoken, served, max_body_bytes=max_body_bytes, plugin_headers=headers),
            methods=list(dict.fromkeys(method for one in spoken for method in one.dialect.methods)),
            name=spoken[0].name,
            tags=[spoken[0].dialect.operation or "server"],
            description="\n\n".join(dict.fromkeys(one.dialect.request.__doc__ or "" for one in spoken)),
            response_class=Response,
        )
    modalities = {name: prompt for one in served.values() for name, prompt in one.modalities.items()}
    describe_dialects(app, table, modalities)
    encoders = error_encoders(table)

    async def answer_no_route(request: Request, error: Exception) -> Response:
        """Word the router's own 404 and 405 like every other failure."""
        path = route_path(request.scope)
        if isinstance(error, HTTPException):
            error = _no_route(error, request.method, path, known=_paths(app))
        return failure_response(error, request.state.request_id, encoders(path))

    app.add_exception_handler(HTTPException, answer_no_route)
    app.add_middleware(Gate, keys=Keys(api_keys, named_api_keys), drain=drain, metrics=metrics, error_encoders=encoders)
    return app


SECRET_HEADERS = ("authorization", "cookie", "proxy-authorization", "set-cookie", "x-api-key", "api-key")
"""Headers that no plugin may read: they carry keys."""


def _checked_headers(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names in lower case. Raises ConfigError for one that carries a key."""
    lower = tuple(name.lower() for name in names)
    for name in lower:
        if name in SECRET_HEADERS:
            raise ConfigError(
                f"plugin_headers names {name!r}, which carries a key that no plugin may read. Leave it out; plugins "
                "learn the name of a key from named_api_keys."
            )
    return lower


def check_dialects(registry: Registry, *, dialects: Sequence[str]) -> None:
    """Raise what `create_app` would raise of dialects: before any weights are read.

    Raises PluginError and ConfigError, as `create_app` does.
    """
    app, drain = FastAPI(redoc_url=None), Drain()
    _add_system_routes(app, {}, drain=drain, metrics=Metrics({}, drain=drain))
    place_dialects([registry], first=dialects, is_own=_own_paths(app))


def _own_paths(app: FastAPI) -> Callable[[str], bool]:
    own = [route.path_regex for route in app.routes if isinstance(route, Route)]
    return lambda path: any(regex.match(path) for regex in own)


def _by_name(models: OfflineModel | ServedModel | Mapping[str, OfflineModel | ServedModel]) -> Models:
    if not isinstance(models, Mapping):
        served = _served(models)
        return {served.name: served}
    if not models:
        raise ConfigError("create_app was given no model. Give it at least one.")
    return {name: _served(model) for name, model in models.items()}


def _served(model: OfflineModel | ServedModel) -> ServedModel:
    return model.served if isinstance(model, OfflineModel) else model


def _add_system_routes(app: FastAPI, models: Models, *, drain: Drain, metrics: Metrics) -> None:
    started = int(time.time())

    @app.get("/v1/models", tags=["server"])
    async def list_models() -> dict[str, object]:
        """List the served models."""
        data = [
            {
                "id": name,
                "object": "model",
                "created": started,
                "owned_by": "poolkit",
                "root": served.name,
                "max_model_len": served.info.max_model_len,
                "task": served.task.name,
            }
            for name, served in models.items()
        ]
        return {"object": "list", "data": data}

    @app.get("/livez", tags=["server"])
    async def livez() -> dict[str, str]:
        """Say that the process answers at all."""
        return {"status": "alive"}

    @app.get("/readyz", tags=["server"])
    @app.get("/health", tags=["server"])
    async def readyz() -> dict[str, str]:
        """Say whether new requests are taken: 503 once the server is shutting down, or if an engine has died."""
        drain.check_open()
        for name, served in models.items():
            if not served.is_alive:
                raise RefusedError(
                    f"The engine of {name} has died and nothing can be run. Restart the server; its log says why.",
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
        """List the installed tasks, as  poolkit plugins list  does, and say which are served, and where."""
        listing = {
            name: {
                "task": served.task.name,
                "operations": operation_paths(served.task),
            }
            for name, served in models.items()
        }
        rows = dict.fromkeys(row for served in models.values() for row in served.registry.rows())
        return {"models": listing, "tasks": [asdict(row) for row in rows]}

    @app.get("/version", tags=["server"])
    async def version() -> dict[str, str]:
        """Return poolkit's version."""
        return {"version": app.version}


def _no_route(error: HTTPException, method: str, path: str, *, known: Sequence[str]) -> HTTPException:
    message = error.detail
    if error.status_code == HTTPStatus.NOT_FOUND:
        message = f"There is no route {path!r}.{did_you_mean(path, known)} All routes are listed at /docs."
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (error.headers or {}).get("Allow", "another method")
        message = f"{path} does not take {method}. It takes {allowed}."
    return HTTPException(error.status_code, message, error.headers)


def _paths(app: FastAPI) -> list[str]:
    return [getattr(route, "path", "") for route in app.routes]
