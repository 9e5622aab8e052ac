"""Engines by name."""

from __future__ import annotations

import pytest

import distributions
from distributions import Site
from poolkit.config import Named, PluginConfig
from poolkit.errors import ConfigError, PluginInvalidError, PluginLoadError
from poolkit.registry import Registry


def load(*names: str, disable: tuple[Named, ...] = ()) -> Registry:
    enable = tuple(Named(name, f"--plugin {name}") for name in names)
    return Registry.load(PluginConfig(enable=enable, disable=disable))


def install_engine(site: Site, name: str, source: str, *, engine: str = "openvino") -> None:
    module = name.replace("-", "_")
    site.install(name, modules={module: source}, engines={engine: module})


def test_an_engine_is_found_by_its_name(site: Site):
    functions = "def load_tokenizer(info, *, config): ...\ndef load_engine(info, *, task, config): ...\n"
    install_engine(site, "poolkit-openvino", functions)
    assert load("openvino").import_engine("openvino").__name__ == "poolkit_openvino"
    assert load().import_engine("torch") is distributions


def test_poolkits_own_engine_keeps_its_name_and_outlives_its_tasks(site: Site):
    install_engine(site, "poolkit-torch", "raise SystemExit", engine="torch")
    registry = load("poolkit-torch", disable=(Named("poolkit", "--no-plugin poolkit"),))
    assert registry.import_engine("torch") is distributions


@pytest.mark.usefixtures("site")
def test_a_misspelled_engine():
    with pytest.raises(ConfigError) as caught:
        load().import_engine("trch")
    assert str(caught.value) == "no engine named 'trch'. Did you mean 'torch'?\n  Engines: torch."


def test_an_engine_that_is_installed_but_not_enabled(site: Site):
    install_engine(site, "poolkit-openvino", "")
    with pytest.raises(ConfigError) as caught:
        load().import_engine("openvino")
    assert str(caught.value) == (
        "engine 'openvino' is provided by poolkit-openvino 1.0.0, which is installed but not enabled.\n"
        '  Enable it with  enable = ["poolkit-openvino"]  in poolkit.toml, or --plugin poolkit-openvino.'
    )


def test_an_engine_that_two_plugins_provide(site: Site):
    for name in ("poolkit-openvino", "poolkit-intel"):
        install_engine(site, name, "")
    with pytest.raises(ConfigError) as caught:
        load("openvino", "intel").import_engine("openvino")
    assert str(caught.value) == (
        "engine 'openvino' is provided by 2 enabled plugins: poolkit-openvino 1.0.0, poolkit-intel 1.0.0. Keep one."
    )


def test_an_engine_that_lacks_a_function(site: Site):
    install_engine(site, "poolkit-openvino", "def load_tokenizer(info, *, config): ...\n")
    with pytest.raises(PluginInvalidError) as caught:
        load("openvino").import_engine("openvino")
    assert str(caught.value) == (
        "poolkit-openvino 1.0.0: engine 'openvino' (poolkit_openvino) has no function load_engine."
    )


def test_an_engine_that_cannot_be_imported(site: Site):
    install_engine(site, "poolkit-openvino", "raise RuntimeError('no device')")
    with pytest.raises(PluginLoadError) as caught:
        load("openvino").import_engine("openvino")
    assert str(caught.value) == (
        "poolkit-openvino 1.0.0 failed to import: RuntimeError: no device\n"
        "  entry point  openvino = poolkit_openvino\n"
        f"  raised at    {site.path / 'poolkit_openvino.py'}:1\n"
        "  enabled by   --plugin openvino"
    )
