"""Open tables: engines, model families and modules, dialects, modalities, each entry by its name."""

from __future__ import annotations

import logging
import sys

import pytest

import distributions
from distributions import CORE_TASKS, Site
from poolkit.config import PluginConfig, Reference
from poolkit.errors import ConfigError, PluginIncompatibleError, PluginInvalidError, PluginLoadError
from poolkit.registry import DIALECTS, ENGINES, MODALITIES, MODELS, Registry, Status


def load(*names: str, disable: tuple[Reference, ...] = ()) -> Registry:
    enable = tuple(Reference(name, f"--plugin {name}") for name in names)
    return Registry.load(PluginConfig(enable=enable, disable=disable))


def install_engine(site: Site, name: str, source: str, *, engine: str = "openvino") -> None:
    module = name.replace("-", "_")
    site.install(name, modules={module: source}, engines={engine: module})


def test_an_engine_is_found_by_its_name(site: Site):
    functions = "def load_tokenizer(info): ...\ndef load_backbone(info, *, taps=()): ...\n"
    install_engine(site, "poolkit-openvino", functions)
    assert load("openvino").entries(ENGINES)["openvino"].__name__ == "poolkit_openvino"
    assert load().entries(ENGINES)["torch"] is distributions


def test_poolkits_own_engine_keeps_its_name_and_outlives_its_tasks(site: Site):
    install_engine(site, "poolkit-torch", "raise SystemExit", engine="torch")
    registry = load("poolkit-torch", disable=(Reference("poolkit", "--no-plugin poolkit"),))
    assert registry.entries(ENGINES)["torch"] is distributions


@pytest.mark.usefixtures("site")
def test_a_misspelled_engine():
    with pytest.raises(ConfigError) as caught:
        load().entries(ENGINES)["trch"]
    assert str(caught.value) == "no engine named 'trch'. Did you mean 'torch'?\n  Engines: torch."


def test_an_engine_that_is_installed_but_not_enabled(site: Site):
    install_engine(site, "poolkit-openvino", "")
    with pytest.raises(ConfigError) as caught:
        load().entries(ENGINES)["openvino"]
    assert str(caught.value) == (
        "engine 'openvino' is provided by poolkit-openvino 1.0.0, which is installed but not enabled.\n"
        '  Enable it with  enable = ["poolkit-openvino"]  in poolkit.toml, or --plugin poolkit-openvino.'
    )


def test_an_engine_that_two_plugins_provide(site: Site):
    for name in ("poolkit-openvino", "poolkit-intel"):
        install_engine(site, name, "")
    with pytest.raises(ConfigError) as caught:
        load("openvino", "intel").entries(ENGINES)["openvino"]
    assert str(caught.value) == (
        "engine 'openvino' is provided by 2 enabled plugins: poolkit-openvino 1.0.0, poolkit-intel 1.0.0. Keep one."
    )


def test_an_engine_that_lacks_a_function(site: Site):
    install_engine(site, "poolkit-openvino", "def load_tokenizer(info): ...\n")
    with pytest.raises(PluginInvalidError) as caught:
        load("openvino").entries(ENGINES)["openvino"]
    assert str(caught.value) == (
        "poolkit-openvino 1.0.0: engine 'openvino' (poolkit_openvino) has no function load_backbone."
    )


def test_an_engine_that_cannot_be_imported(site: Site):
    install_engine(site, "poolkit-openvino", "raise RuntimeError('no device')")
    with pytest.raises(PluginLoadError) as caught:
        load("openvino").entries(ENGINES)["openvino"]
    assert str(caught.value) == (
        "poolkit-openvino 1.0.0 failed to import: RuntimeError: no device\n"
        "  entry point  openvino = poolkit_openvino\n"
        f"  raised at    {site.path / 'poolkit_openvino.py'}:1\n"
        "  enabled by   --plugin openvino"
    )


FAMILY = "from poolkit import ModelFamily\nENTRY = ModelFamily(matches=lambda files: True)\n"
RERANKER = """
import re
from pathlib import Path
from poolkit import LogitScore, RerankerFamily
ENTRY = RerankerFamily(
    name=re.compile("x"), model_type="qwen3", logit_score=LogitScore("yes"), template=Path("x.jinja"), phrase="x"
)
"""


def modality(name: str, *, field: str = "{name}: str", decorator: str = "dataclass(frozen=True)") -> str:
    return f"""
from dataclasses import dataclass
from typing import ClassVar
from poolkit import Modality, ModalityPrompt
@{decorator}
class Sound(ModalityPrompt):
    modality: ClassVar[str] = {name!r}
    {field.format(name=name)}
    def digest(self): return b""
ENTRY = Modality(prompt=Sound, load_reader=print)
"""


ENTRIES = {
    "dialects": "ENTRY = ()\n",
    "modalities": modality("audio"),
    "family": FAMILY,
    "module": "def ENTRY(module): ...\n",
    "pooling": "def ENTRY(hidden, segments): ...\n",
    "reranker": RERANKER,
}


@pytest.mark.parametrize(
    ("group", "kind", "parameter", "entry"),
    [
        (MODELS, "family", "models", "family.mpnet"),
        (MODELS, "module", "models", "module.LSTM"),
        (MODELS, "pooling", "models", "pooling.cls"),
        (MODELS, "reranker", "models", "reranker.qwen3"),
        (DIALECTS, "", "dialects", "voyage"),
        (MODALITIES, "", "modalities", "audio"),
    ],
)
def test_the_names_of_a_table_are_known_without_an_import(
    site: Site, group: str, kind: str, parameter: str, entry: str
):
    modules = {"poolkit_vendor": ENTRIES[kind or parameter]}
    site.install("poolkit-vendor", modules=modules, **{parameter: {entry: "poolkit_vendor:ENTRY"}})
    assert list(load().entries(group, kind)) == []
    entries = load("vendor").entries(group, kind)
    name = entry.removeprefix(f"{kind}.")
    assert (list(entries), name in entries, "nothing" in entries) == ([name], True, False)
    assert "poolkit_vendor" not in sys.modules
    assert entries[name] is sys.modules["poolkit_vendor"].ENTRY


def install_vendor(site: Site, name: str, source: str, **modalities: str) -> None:
    module = f"poolkit_{name}"
    site.install(f"poolkit-{name}", modules={module: source}, modalities=modalities or {name: f"{module}:ENTRY"})


def test_entries_stand_in_the_order_in_which_their_plugins_were_enabled(site: Site):
    for name in ("apple", "zebra"):
        install_vendor(site, name, modality(name))
    entries = load("zebra", "apple").entries(MODALITIES)
    assert list(entries) == list(dict(entries)) == ["zebra", "apple"]


def test_the_kinds_of_one_group_are_apart(site: Site):
    models = {"module.Dense": "poolkit_apart:ENTRY", "pooling.Dense": "poolkit_apart:OTHER"}
    site.install("poolkit-apart", modules={"poolkit_apart": "ENTRY, OTHER = int, str\n"}, models=models)
    registry = load("apart")
    assert dict(registry.entries(MODELS, "module")) == {"Dense": int}
    assert dict(registry.entries(MODELS, "pooling")) == {"Dense": str}


@pytest.mark.parametrize(
    ("group", "kind", "problem"),
    [
        (MODELS, "family", "model family 'odd' points to an object of type int, not to a poolkit.ModelFamily."),
        (MODELS, "module", "module 'odd' points to an object of type int, not to a function."),
        (MODELS, "pooling", "pooling mode 'odd' points to an object of type int, not to a function."),
        (MODELS, "reranker", "reranker 'odd' points to an object of type int, not to a poolkit.RerankerFamily."),
        (DIALECTS, "", "dialect 'odd' points to an object of type int, not to a poolkit.Dialect or a tuple of them."),
        (MODALITIES, "", "modality 'odd' points to an object of type int, not to a poolkit.Modality."),
    ],
)
def test_an_entry_of_another_type(site: Site, group: str, kind: str, problem: str):
    name = f"{kind}.odd" if kind else "odd"
    site.install(
        "poolkit-odd",
        modules={"poolkit_odd": "ENTRY = 3\n"},
        **{group.removeprefix("poolkit."): {name: "poolkit_odd:ENTRY"}},
    )
    with pytest.raises(PluginInvalidError) as caught:
        load("odd").entries(group, kind)["odd"]
    assert str(caught.value) == f"poolkit-odd 1.0.0: {problem}"
    registry = load("*")
    assert "odd" not in dict(registry.entries(group, kind).items())
    assert [str(failure.error) for failure in registry.quarantined] == [f"poolkit-odd 1.0.0: {problem}"]


def test_a_modality_under_another_name(site: Site):
    install_vendor(site, "voice", modality("audio"))
    with pytest.raises(PluginInvalidError) as caught:
        load("voice").entries(MODALITIES)["voice"]
    assert str(caught.value) == (
        "poolkit-voice 1.0.0: entry point 'voice' points to a modality named 'audio'. Give them one name."
    )


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (
            {"decorator": "dataclass"},
            "the prompts of modality 'audio' (Sound) are no frozen dataclass, and prompts are compared.",
        ),
        (
            {"field": "samples: str"},
            "the prompts of modality 'audio' (Sound) have no field of that name, by which they are told from others in "
            "JSON. Name one so, or give it that alias.",
        ),
        (
            {"field": "audio: print"},
            "pydantic cannot read the prompts of modality 'audio' (Sound): Unable to generate pydantic-core schema for "
            "<built-in function print>. Set `arbitrary_types_allowed=True` in the model_config to ignore this error or "
            "implement `__get_pydantic_core_schema__` on your type to fully support it.",
        ),
    ],
)
def test_a_modality_whose_prompts_cannot_be_read(site: Site, source: dict[str, str], problem: str):
    install_vendor(site, "audio", modality("audio", **source))
    with pytest.raises(PluginInvalidError) as caught:
        load("audio").entries(MODALITIES)["audio"]
    assert str(caught.value) == f"poolkit-audio 1.0.0: {problem}"


def test_an_entry_point_of_a_kind_that_there_is_not(site: Site):
    site.install("poolkit-odd", modules={"poolkit_odd": ""}, models={"modul.Dense": "poolkit_odd"})
    with pytest.raises(PluginInvalidError) as caught:
        load("odd")
    assert str(caught.value) == (
        "poolkit-odd 1.0.0: entry point 'modul.Dense' in group poolkit.models must be named KIND.NAME. "
        "Did you mean 'module'? Kinds: family, module, pooling, reranker."
    )
    registry = load("*")
    assert {task.name for task in registry.tasks} == set(CORE_TASKS)
    [row] = [row for row in registry.rows() if row.plugin == "poolkit-odd"]
    assert (row.status, row.why) == (Status.QUARANTINED, str(caught.value))


@pytest.mark.usefixtures("site")
def test_an_unknown_entry_of_a_table_without_any():
    with pytest.raises(ConfigError) as caught:
        load().entries(MODELS, "pooling")["median"]
    assert str(caught.value) == "no pooling mode named 'median'.\n  Pooling modes: none."


def test_an_entry_of_a_plugin_that_is_disabled(site: Site):
    install_vendor(site, "voyage", "ENTRY = 1\n")
    registry = load("voyage", disable=(Reference("voyage", "--no-plugin voyage"),))
    with pytest.raises(ConfigError) as caught:
        registry.entries(MODALITIES)["voyage"]
    assert str(caught.value) == (
        "modality 'voyage' is provided by poolkit-voyage 1.0.0, which is disabled by --no-plugin voyage. "
        "Remove it from disable to use it."
    )


def test_a_plugin_is_told_that_it_does_not_replace_an_entry_of_poolkits_own(
    site: Site, caplog: pytest.LogCaptureFixture
):
    install_engine(site, "poolkit-torch", "raise SystemExit", engine="torch")
    assert load("poolkit-torch").entries(ENGINES)["torch"] is distributions
    assert caplog.messages == [
        "Engine 'torch' of poolkit-torch 1.0.0 does not replace the built-in one. Give it another name."
    ]


def test_an_entry_for_another_poolkit_is_refused_before_it_is_imported(site: Site):
    modules = {"poolkit_new": "raise SystemExit"}
    site.install("poolkit-new", modules=modules, modalities={"new": "poolkit_new:X"}, requires=["poolkit>=2"])
    with pytest.raises(PluginIncompatibleError) as caught:
        load("new").entries(MODALITIES)["new"]
    assert str(caught.value) == (
        "poolkit-new 1.0.0 needs poolkit >=2; poolkit 0.1.0 is running. Install versions that fit."
    )


def test_a_broken_entry_of_a_plugin_that_was_named_fails_the_whole_table(site: Site):
    install_vendor(site, "broken", "raise RuntimeError('no key')")
    with pytest.raises(PluginLoadError, match=r"^poolkit-broken 1\.0\.0 failed to import: "):
        load("broken").entries(MODALITIES).items()


def test_a_broken_entry_that_is_swept_in_is_left_out_with_a_warning_and_told_when_asked_for(
    site: Site, caplog: pytest.LogCaptureFixture
):
    install_vendor(site, "broken", "raise RuntimeError('no key')")
    install_vendor(site, "voyage", modality("voyage"))
    entries = load("*").entries(MODALITIES)
    assert [name for name, _ in entries.items()] == ["voyage"]
    assert [one.prompt.modality for one in entries.values()] == ["voyage"]
    record = caplog.records[0]
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(
        "Modality 'broken' of poolkit-broken 1.0.0 is not available: "
        "poolkit-broken 1.0.0 failed to import: RuntimeError: no key\n"
    )
    with pytest.raises(PluginLoadError):
        entries["broken"]
