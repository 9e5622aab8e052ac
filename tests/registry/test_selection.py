"""Enabling and disabling plugins: short names, "*", and the messages when a name is wrong."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from distributions import CORE_TASKS, Site, make_model
from poolkit.config import PluginConfig, Reference
from poolkit.errors import ConfigError, PluginInvalidError, PluginNotFoundError, StartupError
from poolkit.registry import Registry, Row, Status, list_plugins

TOML = Path("/srv/poolkit.toml")


def enabling(*names: str) -> PluginConfig:
    return PluginConfig(enable=tuple(Reference(name, f"--plugin {name}") for name in names))


def enabled_tasks(config: PluginConfig) -> set[str]:
    return {task.name for task in Registry.load(config).tasks}


def test_an_installed_plugin_is_not_enabled(site: Site):
    site.install_task("poolkit-gliner", "0.3.1", "ner")
    assert enabled_tasks(PluginConfig()) == set(CORE_TASKS)
    assert "poolkit_gliner" not in sys.modules


@pytest.mark.parametrize("name", ["poolkit-gliner", "Poolkit_GLiNER", "gliner", "*"])
def test_a_plugin_is_enabled_by_its_name_in_any_spelling_by_its_short_name_or_by_a_star(site: Site, name: str):
    site.install_task("poolkit-gliner", "0.3.1", "ner")
    assert enabled_tasks(enabling(name)) == {*CORE_TASKS, "ner"}


def test_enabling_a_plugin_keeps_the_default_task(site: Site):
    site.install_task("poolkit-aardvark", "1.0.0", "aardvark")
    site.install_task("poolkit-better-embed", "1.0.0", "embed")
    registry = Registry.load(enabling("aardvark", "better-embed"))
    model = make_model()
    assert registry.supported_tasks(model) == ("embed", "token_embed", "aardvark")
    assert registry.get_pooling_task(registry.supported_tasks(model), model=model) is registry.tasks[1].target
    assert registry.tasks[1].plugin.name == "poolkit"


def test_a_plugin_does_not_take_over_the_name_of_a_built_in_task(site: Site, caplog: pytest.LogCaptureFixture):
    site.install_task("poolkit-better-embed", "1.0.0", "embed")
    registry = Registry.load(enabling("better-embed"))
    builtin, other = (task.target for task in registry.tasks if task.name == "embed")
    assert registry.get_pooling_task(["embed"], "embed") is builtin
    assert registry.get_pooling_task(["embed"], "poolkit-better-embed:embed") is other
    assert registry.get_pooling_task(["embed"], "better-embed:embed") is other
    assert caplog.messages == [
        "Task 'embed' of poolkit-better-embed 1.0.0 does not replace the built-in one. "
        'Choose it with  task = "poolkit-better-embed:embed".'
    ]


def test_a_plugin_takes_the_name_of_a_built_in_task_where_the_built_in_ones_are_disabled(
    site: Site, caplog: pytest.LogCaptureFixture
):
    site.install_task("poolkit-better-embed", "1.0.0", "embed")
    config = PluginConfig(enable=enabling("better-embed").enable, disable=(Reference("poolkit", TOML),))
    registry = Registry.load(config)
    [task] = [task.target for task in registry.tasks]
    assert registry.get_pooling_task(["embed"], "embed") is task
    assert caplog.messages == []


def test_disabling_takes_away_tasks_and_plugins_and_wins_over_enabling(site: Site):
    site.install_task("poolkit-gliner", "0.3.1", "ner")
    disable = (Reference("reward", TOML), Reference("gliner", TOML))
    config = PluginConfig(enable=(Reference("poolkit-gliner", TOML),), disable=disable)
    assert enabled_tasks(config) == set(CORE_TASKS) - {"reward"}
    assert enabled_tasks(PluginConfig(disable=(Reference("poolkit", TOML),))) == set()


def test_a_task_named_like_a_plugins_short_name_is_what_disable_means(site: Site):
    site.install_task("poolkit-ner", "1.0.0", "ner")
    registry = Registry.load(PluginConfig(enable=(Reference("ner", TOML),), disable=(Reference("ner", TOML),)))
    assert "ner" not in {task.name for task in registry.tasks}
    assert registry.selection.disabled_plugins == {}


@pytest.mark.parametrize(
    ("origin", "where"),
    [(TOML, "enabled in /srv/poolkit.toml"), ("POOLKIT_ENABLE", "enabled by POOLKIT_ENABLE")],
)
def test_a_plugin_that_is_not_installed(site: Site, origin: str | Path, where: str):
    site.install_task("poolkit-splade", "1.0.0", "splade")
    with pytest.raises(PluginNotFoundError) as caught:
        Registry.load(PluginConfig(enable=(Reference("poolkit-gliner", origin),)))
    assert caught.value.plugin == "poolkit-gliner"
    assert str(caught.value) == (
        f"plugin 'poolkit-gliner', {where}, is not installed in {sys.prefix}.\n"
        "  Install it with  python -m pip install poolkit-gliner.  "
        "Installed plugins: poolkit 0.1.0, poolkit-splade 1.0.0."
    )


def test_a_misspelled_plugin_is_not_to_be_installed(site: Site):
    site.install_task("poolkit-gliner", "0.3.1", "ner")
    with pytest.raises(PluginNotFoundError) as caught:
        Registry.load(enabling("poolkit-glinr"))
    assert str(caught.value) == (
        f"plugin 'poolkit-glinr', enabled by --plugin poolkit-glinr, is not installed in {sys.prefix}."
        " Did you mean 'gliner'?\n"
        "  Installed plugins: poolkit 0.1.0, poolkit-gliner 0.3.1."
    )


def test_a_task_where_a_plugin_is_expected(site: Site):
    site.install_task("poolkit-gliner", "0.3.1", "ner")
    with pytest.raises(PluginNotFoundError) as caught:
        Registry.load(enabling("ner"))
    assert str(caught.value) == (
        f"plugin 'ner', enabled by --plugin ner, is not installed in {sys.prefix}."
        " 'ner' is a task of poolkit-gliner 0.3.1: name the plugin.\n"
        "  Installed plugins: poolkit 0.1.0, poolkit-gliner 0.3.1."
    )


@pytest.mark.usefixtures("site")
def test_an_engine_where_a_plugin_is_expected():
    with pytest.raises(PluginNotFoundError) as caught:
        Registry.load(enabling("torch"))
    assert str(caught.value) == (
        f"plugin 'torch', enabled by --plugin torch, is not installed in {sys.prefix}."
        " 'torch' is an engine of poolkit 0.1.0: name the plugin.\n"
        "  Installed plugins: poolkit 0.1.0."
    )


def test_a_distribution_that_is_no_plugin(site: Site):
    site.install("poolkit-forgetful")
    with pytest.raises(PluginInvalidError) as caught:
        Registry.load(enabling("forgetful"))
    assert str(caught.value) == (
        "poolkit-forgetful, enabled by --plugin forgetful, is installed but is no plugin: it has no entry point in "
        "poolkit.tasks, poolkit.plugins, poolkit.engines, poolkit.models, poolkit.dialects or poolkit.modalities."
    )


@pytest.mark.usefixtures("site")
def test_all_wrong_names_are_reported_together():
    config = PluginConfig(
        enable=(Reference("poolkit-gliner", TOML),),
        disable=(Reference("rewrad", TOML),),
        settings={"poolkit-glinr": {"threshold": 0.4}},
    )
    with pytest.raises(StartupError) as caught:
        Registry.load(config)
    assert str(caught.value) == (
        "ConfigError: 'rewrad', disabled in /srv/poolkit.toml, is neither a task nor a plugin that is installed."
        " Did you mean 'reward'?\n"
        "  Tasks: classify, embed, reward, token_classify, token_embed.  Installed plugins: poolkit 0.1.0.\n"
        f"PluginNotFoundError: plugin 'poolkit-gliner', enabled in /srv/poolkit.toml, is not installed in {sys.prefix}."
        "\n  Install it with  python -m pip install poolkit-gliner.  Installed plugins: poolkit 0.1.0.\n"
        "ConfigError: [plugins.poolkit-glinr]: no plugin of that name is installed.\n"
        "  Installed plugins: poolkit 0.1.0."
    )


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("poolkit-glinr", "Did you mean 'gliner'?"),
        ("ner", "'ner' is a task of poolkit-gliner 0.3.1: name the plugin."),
    ],
)
def test_settings_for_a_plugin_that_is_not_installed(site: Site, name: str, hint: str):
    site.install_task("poolkit-gliner", "0.3.1", "ner")
    with pytest.raises(ConfigError) as caught:
        Registry.load(PluginConfig(settings={name: {}}))
    assert str(caught.value) == (
        f"[plugins.{name}]: no plugin of that name is installed. {hint}\n"
        "  Installed plugins: poolkit 0.1.0, poolkit-gliner 0.3.1."
    )


def test_the_first_distribution_on_the_path_counts(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    site.install_task("poolkit-gliner", "0.3.1", "ner")
    monkeypatch.syspath_prepend(tmp_path / "front")
    (tmp_path / "front").mkdir()
    Site(tmp_path / "front").install("poolkit.gliner", "0.4.0", tasks={"ner": "poolkit_gliner:NER"})
    [gliner] = [task.plugin for task in Registry.load(enabling("gliner")).tasks if task.name == "ner"]
    assert (str(gliner), gliner.location) == ("poolkit-gliner 0.4.0", tmp_path / "front")


def test_a_half_removed_distribution_is_skipped(site: Site, caplog: pytest.LogCaptureFixture):
    site.install_task("poolkit-gliner", "0.3.1", "ner")
    (site.path / "poolkit_gliner-0.3.1.dist-info" / "METADATA").unlink()
    assert enabled_tasks(PluginConfig()) == set(CORE_TASKS)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert caplog.messages[0].startswith("Skipped entry point ner = poolkit_gliner:NER: ")


def test_the_list_of_plugins_imports_none_and_says_why(site: Site):
    for name, task in (("gliner", "ner"), ("splade", "splade"), ("geo", "geo")):
        site.install(
            "poolkit-" + name, modules={f"poolkit_{name}": "raise SystemExit"}, tasks={task: f"poolkit_{name}:X"}
        )
    site.install("poolkit-cache", hooks={"cache": "poolkit_cache.hooks"})
    config = PluginConfig(
        enable=(Reference("gliner", TOML), Reference("nothing", TOML)),
        disable=(Reference("geo", "--no-plugin geo"), Reference("reward", TOML)),
    )
    rows = {(row.plugin, row.name): row for row in list_plugins(config)}
    builtin = ("poolkit", "0.1.0")
    assert rows["poolkit", "embed"] == Row(Status.ENABLED, "task", "embed", *builtin, "fake_core:EMBED", "built in")
    assert rows["poolkit", "reward"] == Row(
        Status.DISABLED, "task", "reward", *builtin, "fake_core:REWARD", "disabled in /srv/poolkit.toml"
    )
    assert rows["poolkit-gliner", "ner"] == Row(
        Status.ENABLED, "task", "ner", "poolkit-gliner", "1.0.0", "poolkit_gliner:X", "enabled in /srv/poolkit.toml"
    )
    assert rows["poolkit-splade", "splade"] == Row(
        Status.INSTALLED,
        "task",
        "splade",
        "poolkit-splade",
        "1.0.0",
        "poolkit_splade:X",
        "not enabled; --plugin poolkit-splade enables it",
    )
    assert rows["poolkit-geo", "geo"] == Row(
        Status.DISABLED, "task", "geo", "poolkit-geo", "1.0.0", "poolkit_geo:X", "disabled by --no-plugin geo"
    )
    assert rows["poolkit-cache", "cache"] == Row(
        Status.INSTALLED,
        "hooks",
        "cache",
        "poolkit-cache",
        "1.0.0",
        "poolkit_cache.hooks",
        "not enabled; --plugin poolkit-cache enables it",
    )
    assert rows["nothing", ""] == Row(
        Status.MISSING,
        "",
        "",
        "nothing",
        "",
        "",
        f"plugin 'nothing', enabled in /srv/poolkit.toml, is not installed in {sys.prefix}.",
    )
