"""Engines by name."""

from __future__ import annotations

import pytest

from distributions import Site, make_task
from poolkit.config import Named, PluginConfig
from poolkit.errors import ConfigError, PluginInvalidError, PluginLoadError
from poolkit.registry import Registry


def load(*names: str, disable: tuple[Named, ...] = ()) -> Registry:
    enable = tuple(Named(name, f"--plugin {name}") for name in names)
    return Registry.load(PluginConfig(enable=enable, disable=disable))


def install_engine(site: Site, name: str, source: str, *, engine: str = "openvino") -> None:
    module = name.replace("-", "_")
    site.install(name, modules={module: source}, engines={engine: f"{module}:create"})


def test_an_engine_is_found_by_its_name(site: Site):
    install_engine(site, "poolkit-openvino", "def create(info, *, task, config): ...\n")
    assert load("openvino").load_engine("openvino").__module__ == "poolkit_openvino"
    assert load().load_engine("torch") is make_task


def test_poolkits_own_engine_keeps_its_name_and_outlives_its_tasks(site: Site):
    install_engine(site, "poolkit-torch", "raise SystemExit", engine="torch")
    registry = load("poolkit-torch", disable=(Named("poolkit", "--no-plugin poolkit"),))
    assert registry.load_engine("torch") is make_task


@pytest.mark.usefixtures("site")
def test_a_misspelled_engine():
    with pytest.raises(ConfigError) as caught:
        load().load_engine("trch")
    assert str(caught.value) == "no engine named 'trch'. Did you mean 'torch'?\n  Engines: torch."


def test_an_engine_that_is_installed_but_not_enabled(site: Site):
    install_engine(site, "poolkit-openvino", "")
    with pytest.raises(ConfigError) as caught:
        load().load_engine("openvino")
    assert str(caught.value) == (
        "engine 'openvino' is provided by poolkit-openvino 1.0.0, which is installed but not enabled.\n"
        '  Enable it with  enable = ["poolkit-openvino"]  in poolkit.toml, or --plugin poolkit-openvino.'
    )


def test_an_engine_that_two_plugins_provide(site: Site):
    for name in ("poolkit-openvino", "poolkit-intel"):
        install_engine(site, name, "")
    with pytest.raises(ConfigError) as caught:
        load("openvino", "intel").load_engine("openvino")
    assert str(caught.value) == (
        "engine 'openvino' is provided by 2 enabled plugins: poolkit-openvino 1.0.0, poolkit-intel 1.0.0. Keep one."
    )


def test_an_engine_that_is_no_function(site: Site):
    install_engine(site, "poolkit-openvino", "create = 3")
    with pytest.raises(PluginInvalidError) as caught:
        load("openvino").load_engine("openvino")
    assert str(caught.value) == "poolkit-openvino 1.0.0: engine 'openvino' has type int and is no function."


def test_an_engine_that_cannot_be_imported(site: Site):
    install_engine(site, "poolkit-openvino", "raise RuntimeError('no device')")
    with pytest.raises(PluginLoadError) as caught:
        load("openvino").load_engine("openvino")
    assert str(caught.value) == (
        "poolkit-openvino 1.0.0 failed to import: RuntimeError: no device\n"
        "  entry point  openvino = poolkit_openvino:create\n"
        f"  raised at    {site.path / 'poolkit_openvino.py'}:1\n"
        "  enabled by   --plugin openvino"
    )
