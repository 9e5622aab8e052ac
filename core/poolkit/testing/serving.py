"""Serves the fake engine's model: everything around the engine is real."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import importlib_metadata
from packaging.utils import canonicalize_name

from poolkit.config import MAX_WAITING_PROMPTS, PluginConfig, Reference
from poolkit.contract import PoolingTask
from poolkit.errors import PluginInvalidError
from poolkit.pipeline.params import ParamsResolver
from poolkit.pipeline.served import ServedModel
from poolkit.registry import Registry
from poolkit.testing.fake_engine import ChangeOutputs, Fake, FakeBackbone, FakeTokenizer, load_fake
from poolkit.tokenization import Encoder

__all__ = ["FAKES", "fake_model", "find_fake"]

FAKES = "poolkit.fakes"
"""The group of entry points that name a `Fake`, each for the task of its own name."""


@contextmanager
def fake_model(
    task: str = "embed",
    *,
    plugin: str | None = None,
    settings: Mapping[str, object] | None = None,
    backbone: Callable[[PoolingTask], FakeBackbone] | None = None,
    outputs: ChangeOutputs | None = None,
    max_num_seqs: int = 1,
    num_streams: int | None = 1,
    max_waiting_prompts: int = MAX_WAITING_PROMPTS,
) -> Iterator[ServedModel]:
    """Yield a served model that has no weights, and close it at the end.

        with fake_model("embed") as served:
            response = served.run("embeddings", EmbeddingsRequest(input="a text"))

    The model is `FAKE_MODEL`, or what the plugin's `Fake` says: the task's `requires` is not asked. The engine runs one
    prompt at a time, so that a backbone of a test's own which waits holds back exactly one.

    Args:
        task: the task to serve; "plugin:task" where several plugins provide one.
        plugin: enabled beside the built-in tasks.
        settings: of that plugin.
        backbone: makes the backbone for the task, in place of a `FakeBackbone`.
        outputs: sees the outputs of each batch, and returns those that are delivered.
        max_num_seqs: prompts in a batch; a task whose prompts come in groups needs as many as a group has.
        num_streams: threads that run the engine at the same time; None for as many as the backbone says.
        max_waiting_prompts: as for a server.

    Raises:
        PluginError, TaskError, StartupError: the plugin or the task cannot be used.
    """
    enable = () if plugin is None else (Reference(plugin, "poolkit.testing"),)
    tables = {} if plugin is None or not settings else {plugin: dict(settings)}
    registry = Registry.load(PluginConfig(enable=enable, settings=tables))
    names = [loaded.target.name for loaded in registry.tasks if isinstance(loaded.target, PoolingTask)]
    chosen = registry.get_pooling_task(names, task)
    provider = next(loaded.plugin for loaded in registry.tasks if loaded.target is chosen)
    fake = find_fake(provider.name, chosen.name) or Fake()
    config = fake.model.config.model_copy(update={"max_num_seqs": max_num_seqs, "num_streams": num_streams})
    fake = replace(fake, model=replace(fake.model, config=config))
    chosen = chosen.for_model(fake.model)
    encoder = Encoder(FakeTokenizer(), fake.model, ParamsResolver(chosen, fake.model))
    bound = registry.bind(chosen, fake.model, encoder)
    try:
        made = FakeBackbone(chosen, fake=fake) if backbone is None else backbone(chosen)
        engine = load_fake(chosen, made, outputs=outputs)
    except BaseException:
        bound.close()
        raise
    served = ServedModel(
        info=fake.model,
        task=bound,
        registry=registry,
        encoder=encoder,
        engine=engine,
        max_waiting_prompts=max_waiting_prompts,
    )
    try:
        yield served
    finally:
        served.close()


def find_fake(plugin: str, task: str) -> Fake | None:
    """Return what a plugin, by its full name, says stands in for the model of its task, if it does.

    Raises:
        PluginInvalidError: it names something else than a `Fake`.
    """
    for entry_point in importlib_metadata.entry_points(group=FAKES, name=task):
        if entry_point.dist is not None and canonicalize_name(entry_point.dist.name) == plugin:
            fake = entry_point.load()
            if not isinstance(fake, Fake):
                raise PluginInvalidError(
                    f"{plugin}: entry point {task!r} of group {FAKES} points to an object of type "
                    f"{type(fake).__name__}, not to a poolkit.testing.Fake.",
                    plugin=plugin,
                )
            return fake
    return None
