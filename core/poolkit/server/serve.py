"""Serves models until told to stop, in this process or in several."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial

from poolkit.config import PluginConfig
from poolkit.pipeline.served import ServedModel, load_model
from poolkit.registry import Registry
from poolkit.server.app import check_dialects
from poolkit.server.listener import bind, check_exposure
from poolkit.server.run import run_server
from poolkit.server.workers import run_workers
from poolkit.settings.settings import Settings

__all__ = ["serve"]

logger = logging.getLogger(__name__)


def serve(settings: Settings, plugins: PluginConfig) -> None:
    """Load the models and serve them until SIGTERM or SIGINT; a second signal stops at once.

    Raises:
        ConfigError: the address cannot be used, or is open to others without a key.
        ModelError, PluginError, TaskError, StartupError: as `load_model` does.
    """
    check_exposure(settings)
    check_dialects(Registry.load(plugins), dialects=settings.dialects)
    load = partial(_load, settings, plugins)
    with bind(settings) as listener:  # before the weights are read: a taken port fails at once
        if settings.workers > 1:
            run_workers(load, settings, listener)
        else:
            with load() as models:
                run_server(models, settings, listener)


@contextmanager
def _load(settings: Settings, plugins: PluginConfig) -> Iterator[Mapping[str, ServedModel]]:
    """Yield the models by the names that clients call them, and close them at the end."""
    with ExitStack() as stack:
        models: dict[str, ServedModel] = {}
        with _without_collections():
            for name, config in settings.models.items():
                served = load_model(config, plugins, max_waiting_prompts=settings.max_waiting_prompts)
                stack.callback(served.close, settings.drain_timeout_s)
                models[name or served.name] = served
                for decision in served.decisions:
                    logger.info("%s: %s (%s)", decision.name, decision.value, decision.source)
        yield models


@contextmanager
def _without_collections() -> Iterator[None]:
    """Import and load without garbage collection, and leave what is there out of later ones.

    The process is the server's own. Collections take a quarter of the time of imports and free next to nothing, and
    each full one of a loaded process holds up requests for tens of milliseconds.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
