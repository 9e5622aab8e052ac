"""A task handed on to another process: it is bound there from the plan alone."""

from __future__ import annotations

import multiprocessing
import pickle
import sys
from concurrent.futures import ProcessPoolExecutor

import pytest

from distributions import Request, Site, make_encoder, make_model, make_task
from poolkit.config import Named, PluginConfig
from poolkit.errors import PluginLoadError, UnknownTaskError
from poolkit.registry import Plan, Registry

GLINER = """
from pydantic import BaseModel, ConfigDict
from distributions import Processor, make_task
from poolkit.contract import Prepared
class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    label: str
class NERProcessor(Processor):
    def pre_process(self, request):
        return Prepared([self.context.settings.label + text for text in request.texts])
NER = make_task("ner", settings=Settings, io_processor="poolkit_gliner:NERProcessor", requires=lambda model: None)
"""
PREFIX = """
from dataclasses import replace
from pydantic import BaseModel, ConfigDict
from poolkit.contract import hookimpl
class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    prefix: str
class Prefix:
    def __init__(self, prefix): self.prefix = prefix
    @hookimpl(wrapper=True)
    def pre_process(self):
        prepared = yield
        return replace(prepared, prompts=[self.prefix + prompt for prompt in prepared.prompts])
@hookimpl
def poolkit_wrap(settings): return [Prefix(settings.prefix)]
"""


def install(site: Site) -> PluginConfig:
    site.install("poolkit-gliner", modules={"poolkit_gliner": GLINER}, tasks={"ner": "poolkit_gliner:NER"})
    site.install("poolkit-prefix", modules={"poolkit_prefix": PREFIX}, hooks={"prefix": "poolkit_prefix"})
    site.install_task("poolkit-splade", "1.0.0", "splade")
    enable = tuple(Named(name, f"--plugin {name}") for name in ("gliner", "prefix", "splade"))
    return PluginConfig(enable=enable, settings={"gliner": {"label": "who? "}, "prefix": {"prefix": "> "}})


def make_plan(config: PluginConfig) -> Plan:
    registry = Registry.load(config)
    return registry.plan(registry.get_pooling_task(["ner"], "ner"))


def prepare_without_a_scan(plan: Plan) -> list[str]:
    """Bind the plan and prepare a request, in an interpreter in which nothing can be discovered."""
    import importlib_metadata

    def entry_points() -> None:
        raise AssertionError("a worker looked at what is installed")

    importlib_metadata.entry_points = entry_points
    bound = plan.bind(make_model(), make_encoder())
    prepared = bound.operations["measure"].pre_process(Request(texts=["Ada wrote it."]))
    bound.close()
    return list(prepared.prompts)


def test_a_spawned_process_binds_the_task_with_its_settings_and_wrappers_and_without_a_scan(site: Site):
    plan = make_plan(install(site))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(prepare_without_a_scan, plan).result() == ["> who? Ada wrote it."]


def test_a_plan_is_plain_data_and_names_only_the_plugins_that_take_part(site: Site):
    plan = make_plan(install(site))
    assert pickle.loads(pickle.dumps(plan)) == plan
    assert [enabled.plugin.name for enabled in plan.selection.enabled] == ["poolkit-gliner", "poolkit-prefix"]


def test_binding_a_plan_says_what_went_wrong_since_it_was_made(site: Site):
    plan = make_plan(install(site).model_copy(update={"enable": (Named("*", "--plugin *"),)}))
    file = site.path / "poolkit_gliner.py"
    file.write_text("raise OSError('unplugged')\n")

    del sys.modules["poolkit_gliner"]
    with pytest.raises(PluginLoadError) as caught:
        plan.bind(make_model(), make_encoder())
    assert str(caught.value) == (
        "poolkit-gliner 1.0.0 failed to import: OSError: unplugged\n"
        "  entry point  ner = poolkit_gliner:NER\n"
        f"  raised at    {file}:1\n"
        "  enabled by   --plugin *"
    )


@pytest.mark.usefixtures("site")
def test_there_is_no_plan_for_a_task_of_somewhere_else():
    with pytest.raises(UnknownTaskError) as caught:
        Registry.load(PluginConfig()).plan(make_task("ner"))
    assert str(caught.value) == "task 'ner' is not one of the enabled tasks' descriptors."
