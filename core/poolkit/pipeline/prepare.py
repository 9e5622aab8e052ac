"""Everything of a start-up before the weights are read: the model's files, its one task, its tokenizer, its plugins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from poolkit.config import ModelConfig, PluginConfig
from poolkit.contract import ModelInfo, Output, Tokenizer
from poolkit.engine.choice import EngineChoice
from poolkit.errors import ConfigError
from poolkit.models import ModelTables, find_model_folder, read_model
from poolkit.pipeline.params import ParamsResolver
from poolkit.pipeline.pooler_config import check_pooler
from poolkit.registry import ENGINES, MODELS, BoundTask, Registry
from poolkit.tokenization import Encoder
from poolkit.tokenization.score_template import ScoreTemplate

__all__ = ["PreparedModel", "prepare_model"]


MODEL_KINDS = ("family", "module", "pooling", "reranker")


@dataclass(frozen=True, slots=True)
class PreparedModel:
    """A model that is ready but for its weights. Whoever has it closes `task`.

    Attributes:
        info: what its files say.
        task: the one that it will serve, bound.
        encoder: makes token ids of prompts.
        engines: those that may run it.
        registry: the enabled plugins.
    """

    info: ModelInfo
    task: BoundTask
    encoder: Encoder
    engines: EngineChoice
    registry: Registry


def prepare_model(config: ModelConfig, plugins: PluginConfig) -> PreparedModel:
    """Read a model's files, settle the task it will serve, and bind that.

    Raises:
        ConfigError: two places name two tasks, or the pooler's settings do not go with the task.
        ModelError: the model's files are missing or ask for something poolkit does not have.
        PluginError, TaskError, StartupError: an enabled plugin or the chosen task cannot be used.
    """
    pooler = config.pooler_config
    named = {task for task in (config.task, pooler.task) if task is not None}
    if len(named) > 1:
        raise ConfigError(f"task is {config.task!r} and pooler_config.task is {pooler.task!r}. Name one task.")
    registry = Registry.load(plugins, needs=("enable_chunked_processing",) if pooler.enable_chunked_processing else ())
    engines = EngineChoice(config.engine, registry.entries(ENGINES))
    info = _read(config, registry, engines)
    task = registry.get_pooling_task(registry.supported_tasks(info), *named, model=info)
    check_pooler(info, task=task)
    if config.score_template is not None and task.output is not Output.LOGITS:
        raise ConfigError(
            f"score_template is {str(config.score_template)!r}, but task {task.name!r} reads no queries and documents "
            "together. Leave it out, or serve classify."
        )
    if task.output is Output.LOGITS:
        ScoreTemplate.of(info)  # a bad template is told as such, not as the failure of the task that would use it
    modalities = registry.modalities
    readers = {name: modalities[name].load_reader(info) for name in info.modalities}
    provider = engines.current(info).provider
    load: Callable[[ModelInfo], Tokenizer] = getattr(provider, "load_tokenizer", None) or _tokenizer_loader()
    encoder = Encoder(load(info), info, ParamsResolver(task, info), readers=readers)
    bound = registry.bind(task, info, encoder)
    return PreparedModel(info, bound, encoder, engines, registry)


def _read(config: ModelConfig, registry: Registry, engines: EngineChoice) -> ModelInfo:
    """Return what the model's files say: by an engine, if one knows the folder, else as all other models are read."""
    folder = find_model_folder(config)
    described = engines.describe(folder, config)
    if described is not None:
        return replace(described, config=config)
    family, module, pooling, reranker = (registry.entries(MODELS, kind) for kind in MODEL_KINDS)
    tables = ModelTables(family=family, module=module, pooling=pooling, reranker=reranker)
    return read_model(config, tables, folder=folder)


def _tokenizer_loader() -> Callable[[ModelInfo], Tokenizer]:
    """Import the loader when a model is prepared: `from poolkit import LLM` stays light."""
    from poolkit.tokenization.tokenizer import load_tokenizer

    return load_tokenizer
