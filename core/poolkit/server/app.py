"""The app: its routes, and what stands around them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence

import importlib_metadata
from pydantic import SecretStr

from poolkit.config import BODY_TIMEOUT_S, MAX_BODY_BYTES
from poolkit.errors import ConfigError
from poolkit.offline.model import OfflineModel
from poolkit.pipeline.served import ServedModel
from poolkit.registry import Registry
from poolkit.server.asgi import App
from poolkit.server.choice import Models
from poolkit.server.dispatch import endpoint
from poolkit.server.drain import Drain
from poolkit.server.failures import openai_error
from poolkit.server.keys import Keys
from poolkit.server.metrics import Metrics
from poolkit.server.routes import Route, Routes
from poolkit.server.schema import Document, describe_routes
from poolkit.server.system import SYSTEM_PATHS, system_routes
from poolkit.server.table import Table, build_table, place_dialects

__all__ = ["check_dialects", "create_app"]


def create_app(
    models: OfflineModel | ServedModel | Mapping[str, OfflineModel | ServedModel],
    *,
    api_keys: Iterable[str | SecretStr] = (),
    named_api_keys: Mapping[str, str | SecretStr] | None = None,
    plugin_headers: Sequence[str] = (),
    max_body_bytes: int = MAX_BODY_BYTES,
    body_timeout_s: float = BODY_TIMEOUT_S,
    dialects: Sequence[str] = (),
    drain: Drain | None = None,
    scrape: Callable[[], Awaitable[bytes]] | None = None,
) -> App:
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
        body_timeout_s: seconds in which a body must be there; a large one has more.
        dialects: names of entry points in group `poolkit.dialects`; they are asked before the others on a shared path.
        drain: what `poolkit serve` shuts the app down with.
        scrape: what it gives `/metrics` with where several processes serve.

    Raises:
        PluginError: a plugin's dialect or operation claims a path that it may not have.
        ConfigError: `dialects` names none that is enabled, or there are no models.
    """
    served = _by_name(models)
    headers = _checked_headers(plugin_headers)
    drain = drain or Drain()
    metrics = Metrics(served, drain=drain)
    table = build_table(served, first=dialects, is_own=SYSTEM_PATHS.__contains__)
    version = importlib_metadata.version("poolkit")

    def describe() -> Document:
        listing = ", ".join(f"{name} for {one.task.name!r}: {one.task.summary}" for name, one in served.items())
        modalities = {name: prompt for one in served.values() for name, prompt in one.modalities.items()}
        return describe_routes(routes, table, modalities, version=version, summary=f"Serves {listing}")

    routes = [
        *system_routes(served, drain=drain, scrape=scrape or metrics.render, version=version, describe=describe),
        *_dialect_routes(table, served, plugin_headers=headers),
    ]
    return App(
        Routes(routes),
        keys=Keys(api_keys, named_api_keys),
        drain=drain,
        metrics=metrics,
        max_body_bytes=max_body_bytes,
        body_timeout_s=body_timeout_s,
    )


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
    place_dialects([registry], first=dialects, is_own=SYSTEM_PATHS.__contains__)


def _dialect_routes(table: Table, models: Models, *, plugin_headers: Sequence[str]) -> Iterator[Route]:
    """Yield the route of each path. Its last dialect, which reads the rest, writes what fails before one is chosen."""
    for path, spoken in table.items():
        yield Route(
            path,
            endpoint(spoken, models, plugin_headers=plugin_headers),
            methods=list(dict.fromkeys(method for one in spoken for method in one.dialect.methods)),
            reads_body=True,
            encode_error=spoken[-1].dialect.encode_error or openai_error,
        )


def _by_name(models: OfflineModel | ServedModel | Mapping[str, OfflineModel | ServedModel]) -> Models:
    if not isinstance(models, Mapping):
        served = _served(models)
        return {served.name: served}
    if not models:
        raise ConfigError("create_app was given no model. Give it at least one.")
    return {name: _served(model) for name, model in models.items()}


def _served(model: OfflineModel | ServedModel) -> ServedModel:
    return model.served if isinstance(model, OfflineModel) else model
