"""Start-up hooks: modules of group poolkit.plugins, what they may be, and what goes wrong with them at start-up."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from distributions import CORE_TASKS, Site, fake_encoder, make_model
from poolkit.config import PluginConfig, Reference
from poolkit.errors import (
    ConfigError,
    PluginConfigError,
    PluginIncompatibleError,
    PluginInvalidError,
    PluginLoadError,
    PluginNotFoundError,
    StartupError,
)
from poolkit.registry import BoundTask, Registry, Row, Status, list_plugins

HEADER = """
from pydantic import BaseModel, ConfigDict
from poolkit.contract import hookimpl
"""
SETTINGS = """
class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size: int = 7
"""
SILENT = "@hookimpl\ndef poolkit_wrap(context, settings):\n    return []\n"


def config(*names: str, **settings: dict[str, object]) -> PluginConfig:
    return PluginConfig(enable=tuple(Reference(name, f"--plugin {name}") for name in names), settings=settings)


def install_cache(site: Site, source: str, name: str = "poolkit-cache", **entries: object) -> Path:
    module = name.replace("-", "_")
    modules = {module: HEADER + source}
    site.install(name, "1.2.0", modules=modules, hooks={name.removeprefix("poolkit-"): module}, **entries)
    return site.path / f"{module}.py"


def bind(registry: Registry) -> BoundTask:
    model = make_model()
    return registry.bind(registry.get_pooling_task(["embed"], "embed"), model, fake_encoder())


def install_own_plugin(site: Site, source: str = "") -> None:
    """Give the fake poolkit a hook module of its own, like the chunking of the real one."""
    (site.path / "fake_chunking.py").write_text(HEADER + SETTINGS + SILENT + source)
    with (site.path / "poolkit-0.1.0.dist-info" / "entry_points.txt").open("a") as file:
        file.write("\n[poolkit.plugins]\nlong_texts = fake_chunking\n")


def test_a_hook_module_of_poolkits_own_is_a_plugin_that_must_be_enabled_by_its_name(site: Site):
    install_own_plugin(site)
    assert Registry.load(PluginConfig()).hooks == ()
    assert "fake_chunking" not in sys.modules
    for name in ("poolkit-long-texts", "long_texts", "*"):
        [module] = Registry.load(config(name, long_texts={"size": "3"})).hooks
        assert (str(module.plugin), module.name) == ("poolkit-long-texts 0.1.0", "fake_chunking")
    row = list_plugins(PluginConfig())[-1]
    assert row == Row(
        Status.INSTALLED,
        "hooks",
        "long_texts",
        "poolkit-long-texts",
        "0.1.0",
        "fake_chunking",
        "not enabled; --plugin poolkit-long-texts enables it",
    )


def test_a_hook_module_of_poolkits_own_is_named_among_the_installed_plugins(site: Site):
    install_own_plugin(site)
    with pytest.raises(PluginNotFoundError) as caught:
        Registry.load(config("long-text"))
    assert str(caught.value) == (
        f"plugin 'long-text', enabled by --plugin long-text, is not installed in {sys.prefix}."
        " Did you mean 'long-texts'?\n"
        "  Installed plugins: poolkit 0.1.0, poolkit-long-texts 0.1.0."
    )


def test_a_distribution_does_not_take_the_name_of_poolkits_own_plugin(site: Site, caplog: pytest.LogCaptureFixture):
    install_own_plugin(site)
    install_cache(site, SILENT, "poolkit-long-texts")
    [module] = Registry.load(config("long-texts")).hooks
    assert module.name == "fake_chunking"
    assert caplog.messages == ["Skipped poolkit-long-texts 1.2.0: poolkit has a plugin of that name."]


def test_the_settings_of_a_hook_module_reach_its_hook(site: Site):
    source = "calls = []\n@hookimpl\ndef poolkit_wrap(settings, context):\n"
    source += "    calls.append((context, settings))\n    return ()\n"
    install_cache(site, SETTINGS + source)
    bound = bind(Registry.load(config("cache", cache={"size": "3"})))
    [(context, settings)] = sys.modules["poolkit_cache"].calls
    assert settings.size == 3
    assert (context.task, context.operation) == (bound.task, bound.task.operations[0])
    assert context.model.name == "BAAI/bge-small-en-v1.5"


@pytest.mark.parametrize(
    ("source", "table", "problem"),
    [
        (SETTINGS, {"sze": 1}, "sze: no such setting. Did you mean 'size'? Settings: size."),
        (SETTINGS, {"size": "big"}, "size must be an integer, got 'big'."),
        ("", {"size": 1}, "size: no such setting. Settings: none."),
    ],
)
@pytest.mark.parametrize("name", ["cache", "*"])
def test_a_wrong_setting_of_a_hook_module_stops_the_start_up(
    site: Site, source: str, table: dict[str, object], problem: str, name: str
):
    install_cache(site, source + SILENT)
    with pytest.raises(PluginConfigError) as caught:
        Registry.load(config(name, cache=table))
    assert str(caught.value) == f"[plugins.poolkit-cache] {problem}"


def test_tasks_and_hook_modules_of_one_plugin_share_its_table(site: Site):
    task = "from distributions import make_task\nclass TaskSettings(Settings):\n    depth: int = 1\n"
    task += "TREE = make_task('tree', settings=TaskSettings)\n"
    install_cache(site, SETTINGS + task + SILENT, tasks={"tree": "poolkit_cache:TREE"})
    registry = Registry.load(config("cache", cache={"depth": 4}))
    bound = registry.bind(registry.get_pooling_task(["tree"], "tree"), make_model(), fake_encoder())
    assert bound.settings.model_dump() == {"size": 7, "depth": 4}


HOOKS = "Hooks: poolkit_wrap(context, settings), poolkit_commands(cli)."


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("", f"poolkit_cache has no hooks. Mark its functions with @hookimpl. {HOOKS}"),
        (
            "def poolkit_wrap(context, settings): ...",
            "poolkit_cache.poolkit_wrap is not marked. Put @hookimpl above it.",
        ),
        (
            "@hookimpl\ndef poolkit_warp(context, settings): ...",
            "poolkit_cache.poolkit_warp is marked @hookimpl, but there is no such hook. "
            f"Did you mean 'poolkit_wrap'? {HOOKS}",
        ),
        (
            "@hookimpl\ndef poolkit_wrap(operation, settings): ...",
            "poolkit_cache.poolkit_wrap takes 'operation'; the hook provides (context, settings).",
        ),
        (
            "@hookimpl\ndef poolkit_commands(*, cli): ...",
            "poolkit_cache.poolkit_commands must take 'cli' as a plain argument: not keyword-only, no default.",
        ),
        (
            "@hookimpl\nasync def poolkit_wrap(context, settings): ...",
            "poolkit_cache.poolkit_wrap is async; hooks are called from plain threads. Write it with a plain def.",
        ),
        (
            SILENT + "serves = 'dimensions'",
            "module poolkit_cache has serves='dimensions'. Give a tuple of the names of PoolerConfig's fields.",
        ),
        (
            SILENT + "serves = ('max_embed_length',)",
            "module poolkit_cache serves 'max_embed_length', which is no field of PoolerConfig. "
            "Did you mean 'max_embed_len'?",
        ),
        (
            SILENT + "Settings = dict",
            "module poolkit_cache has settings=<class 'dict'>. Give a pydantic model class.",
        ),
        (
            SILENT + "class Settings(BaseModel): ...",
            "the settings of module poolkit_cache (Settings) accept unknown keys, so typing errors would go unnoticed. "
            'Give the model  model_config = ConfigDict(extra="forbid").',
        ),
    ],
)
def test_a_hook_module_that_breaks_the_contract(site: Site, source: str, problem: str):
    install_cache(site, source)
    with pytest.raises(PluginInvalidError) as caught:
        Registry.load(config("cache"))
    assert caught.value.plugin == "poolkit-cache"
    assert str(caught.value) == f"poolkit-cache 1.2.0: {problem}"


def test_a_hook_entry_point_to_something_else_than_a_module(site: Site):
    site.install("poolkit-cache", "1.2.0", modules={"poolkit_cache": "X = 3"}, hooks={"cache": "poolkit_cache:X"})
    with pytest.raises(PluginInvalidError) as caught:
        Registry.load(config("cache"))
    assert str(caught.value) == (
        "poolkit-cache 1.2.0: entry point 'cache' points to an object of type int, not to a module with hooks."
    )


def test_broken_hook_modules_are_reported_together_with_broken_tasks_and_wrong_names(site: Site):
    file = install_cache(site, "\nimport sys\nsys.exit(3)\n")
    site.install("poolkit-geo", modules={"poolkit_geo": "GEO = 3"}, tasks={"geo": "poolkit_geo:GEO"})
    with pytest.raises(StartupError) as caught:
        Registry.load(PluginConfig(enable=config("cache", "geo").enable, settings={"cahce": {}}))
    assert str(caught.value) == (
        "ConfigError: [plugins.cahce]: no plugin of that name is installed. Did you mean 'cache'?\n"
        "  Installed plugins: poolkit 0.1.0, poolkit-cache 1.2.0, poolkit-geo 1.0.0.\n"
        "PluginLoadError: poolkit-cache 1.2.0 failed to import: SystemExit: 3\n"
        "  entry point  cache = poolkit_cache\n"
        f"  raised at    {file}:6\n"
        "  enabled by   --plugin cache\n"
        "PluginInvalidError: poolkit-geo 1.0.0: entry point 'geo' points to an object of type int, "
        "not to a PoolingTask."
    )


def test_a_hook_module_for_another_poolkit_is_refused_before_it_is_imported(site: Site):
    install_cache(site, "raise SystemExit", requires=["poolkit>=2"])
    with pytest.raises(PluginIncompatibleError) as caught:
        Registry.load(config("cache"))
    assert str(caught.value) == (
        "poolkit-cache 1.2.0 needs poolkit >=2; poolkit 0.1.0 is running. Install versions that fit."
    )


def test_a_broken_hook_module_that_is_swept_in_is_quarantined(site: Site, caplog: pytest.LogCaptureFixture):
    file = install_cache(site, "\nraise RuntimeError\n")
    registry = Registry.load(config("*"))
    assert ({task.name for task in registry.tasks}, registry.hooks) == (set(CORE_TASKS), ())
    cause = (
        "poolkit-cache 1.2.0 failed to import: RuntimeError\n"
        "  entry point  cache = poolkit_cache\n"
        f"  raised at    {file}:5\n"
        "  enabled by   --plugin *"
    )
    assert caplog.messages == [f"Hook module 'cache' of poolkit-cache 1.2.0 is not available: {cause}"]
    [row] = [row for row in registry.rows() if row.status is Status.QUARANTINED]
    assert (row.kind, row.name, row.plugin, row.why) == ("hooks", "cache", "poolkit-cache", cause)


RAISING = "@hookimpl\ndef poolkit_wrap(context, settings):\n    raise OSError('disk full')\n"


def test_a_hook_module_that_fails_to_wrap_stops_the_start_up(site: Site):
    file = install_cache(site, RAISING)
    with pytest.raises(PluginLoadError) as caught:
        bind(Registry.load(config("cache")))
    assert str(caught.value) == (
        "poolkit-cache 1.2.0 failed in poolkit_wrap: OSError: disk full\n"
        "  entry point  cache = poolkit_cache\n"
        f"  raised at    {file}:6\n"
        "  enabled by   --plugin cache"
    )


def test_a_hook_module_that_is_swept_in_and_fails_to_wrap_is_left_out(site: Site, caplog: pytest.LogCaptureFixture):
    install_cache(site, RAISING)
    bound = bind(Registry.load(config("*")))
    assert bound.operations["measure"].wrappers == ()
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(
        "poolkit-cache 1.2.0 is left out of task 'embed': poolkit-cache 1.2.0 failed in poolkit_wrap: "
        "OSError: disk full\n"
    )


WRAPPER_HOOKS = "Hooks: pre_process(request), post_process(prepared, outputs)."


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (
            "    def pre_process(self, request): yield",
            "Cache surrounds nothing. Mark its methods with @hookimpl(wrapper=True), or define run(self, encoded). "
            f"{WRAPPER_HOOKS}",
        ),
        (
            "    @hookimpl(wrapper=True)\n    def postprocess(self, prepared, outputs): yield",
            "Cache.postprocess is marked @hookimpl, but there is no such hook. "
            f"Did you mean 'post_process'? {WRAPPER_HOOKS}",
        ),
        (
            "    @hookimpl\n    def pre_process(self, request): ...",
            "Cache.pre_process surrounds a processor: mark it with @hookimpl(wrapper=True).",
        ),
        (
            "    @hookimpl(hookwrapper=True)\n    def pre_process(self, request): yield",
            "Cache.pre_process is marked with hookwrapper. Mark it with @hookimpl(wrapper=True) alone.",
        ),
        (
            "    @hookimpl(wrapper=True, tryfirst=True)\n    def pre_process(self, request): yield",
            "Cache.pre_process is marked with tryfirst. Mark it with @hookimpl(wrapper=True) alone.",
        ),
        (
            "    @hookimpl(wrapper=True)\n    def pre_process(self, request): return request",
            "Cache.pre_process has no yield. What it surrounds runs where it yields, once.",
        ),
        (
            "    @hookimpl(wrapper=True)\n    def pre_process(self, text): yield",
            "Cache.pre_process takes 'text'; the hook provides (request).",
        ),
        (
            "    def run(self, encoded): return encoded",
            "Cache.run has no yield. It yields the prompts to run and is sent their outputs, once.",
        ),
        (
            "    def run(self, prompts): yield prompts",
            "Cache.run takes 'prompts'; the hook provides (encoded).",
        ),
        (
            "    def run(self): yield",
            "Cache.run does not take 'encoded'. Write it as a method: def run(self, encoded).",
        ),
        (
            "    async def run(self, encoded): yield",
            "Cache.run is async; hooks are called from plain threads. Write it with a plain def.",
        ),
        (
            "    @hookimpl(wrapper=True)\n    def run(self, encoded): yield",
            "Cache.run is no hook. Leave out @hookimpl.",
        ),
    ],
)
def test_a_wrapper_that_breaks_the_contract(site: Site, body: str, problem: str):
    source = f"class Cache:\n{body}\n@hookimpl\ndef poolkit_wrap(context, settings): return [Cache()]\n"
    install_cache(site, source)
    with pytest.raises(PluginInvalidError) as caught:
        bind(Registry.load(config("cache")))
    assert str(caught.value) == f"poolkit-cache 1.2.0: {problem}"


def test_a_wrapper_may_surround_the_model_alone(site: Site):
    source = "class Cache:\n    def run(self, encoded): return (yield encoded)\n"
    install_cache(site, source + "@hookimpl\ndef poolkit_wrap(context, settings): return [Cache()]\n")
    [wrapper] = bind(Registry.load(config("cache"))).operations["measure"].wrappers
    assert dict(wrapper.hooks) == {}
    assert next(wrapper.run(["prompt"])) == ["prompt"]


LONG = "enable_chunked_processing"
SERVING = f"serves = ({LONG!r},)\n"


def test_what_serves_a_setting_is_found_by_what_it_serves_among_the_enabled(site: Site):
    install_own_plugin(site)
    install_cache(site, SERVING + SILENT)
    registry = Registry.load(config("cache"), needs=(LONG,))
    assert [(str(module.plugin), module.serves) for module in registry.hooks] == [("poolkit-cache 1.2.0", (LONG,))]


def test_a_part_of_poolkit_that_serves_a_setting_is_enabled_for_it(site: Site):
    install_cache(site, "raise SystemExit")
    install_own_plugin(site, SERVING)
    registry = Registry.load(config(long_texts={"size": "3"}), needs=(LONG,))
    [module] = registry.hooks
    assert (str(module.plugin), module.enabled.reference) == (
        "poolkit-long-texts 0.1.0",
        Reference("poolkit-long-texts", f"pooler_config.{LONG}"),
    )
    with pytest.raises(PluginConfigError) as caught:
        Registry.load(config(long_texts={"size": "big"}), needs=(LONG,))
    assert str(caught.value) == "[plugins.poolkit-long-texts] size must be an integer, got 'big'."


def test_what_serves_a_setting_and_is_disabled_is_named(site: Site):
    install_own_plugin(site, SERVING)
    disabling = PluginConfig(disable=(Reference("long_texts", Path("/srv/poolkit.toml")),))
    with pytest.raises(ConfigError) as caught:
        Registry.load(disabling, needs=(LONG,))
    assert str(caught.value) == (
        "pooler_config.enable_chunked_processing needs the plugin poolkit-long-texts, which is disabled "
        "in /srv/poolkit.toml. Leave out one or the other."
    )


@pytest.mark.usefixtures("site")
def test_a_setting_that_nothing_serves():
    with pytest.raises(ConfigError) as caught:
        Registry.load(PluginConfig(), needs=(LONG,))
    assert str(caught.value) == (
        "pooler_config.enable_chunked_processing needs a plugin that serves it, and no enabled one does."
    )


@pytest.mark.parametrize("name", ["cache", "*"])
def test_a_hook_module_may_refuse_the_operators_setting(site: Site, name: str):
    source = "from poolkit.errors import ConfigError\n"
    source += RAISING.replace("OSError('disk full')", "ConfigError('max_embed_len is odd. Leave it out.')")
    install_cache(site, source)
    with pytest.raises(ConfigError) as caught:
        bind(Registry.load(config(name)))
    assert str(caught.value) == "max_embed_len is odd. Leave it out."


def test_a_hook_that_returns_no_list_of_wrappers(site: Site):
    install_cache(site, SILENT.replace("return []", "return None"))
    with pytest.raises(PluginInvalidError) as caught:
        bind(Registry.load(config("cache")))
    assert str(caught.value) == (
        "poolkit-cache 1.2.0: poolkit_cache.poolkit_wrap returned NoneType, not a list of wrappers."
    )
