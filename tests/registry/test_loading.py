"""Plugins that are broken, outdated or break the contract are reported and set aside."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from distributions import CORE_TASKS, Site
from poolkit.config import PluginConfig, Reference
from poolkit.errors import (
    PluginIncompatibleError,
    PluginInvalidError,
    PluginLoadError,
    StartupError,
    UnknownTaskError,
)
from poolkit.registry import Registry, Status, list_plugins

TASK = "from distributions import make_task\nTASK = make_task({arguments})\n"


def load(*names: str) -> Registry:
    return Registry.load(PluginConfig(enable=tuple(Reference(name, f"--plugin {name}") for name in names)))


def install_geo(site: Site, source: str) -> Path:
    site.install("poolkit-geo", "0.2.0", modules={"poolkit_geo": source}, tasks={"geo_segment": "poolkit_geo:SEGMENT"})
    return site.path / "poolkit_geo.py"


def refusal(site: Site, arguments: str, *, name: str = "ner") -> str:
    """Return why poolkit-gliner's task, made with these arguments, is not valid."""
    modules = {"poolkit_gliner": TASK.format(arguments=arguments)}
    site.install("poolkit-gliner", "0.3.1", modules=modules, tasks={name: "poolkit_gliner:TASK"})
    with pytest.raises(PluginInvalidError) as caught:
        load("poolkit-gliner")
    assert caught.value.plugin == "poolkit-gliner"
    return str(caught.value)


def test_a_plugin_that_raises_at_import(site: Site):
    file = install_geo(site, "\n\n\nimport rasterio\n")
    with pytest.raises(PluginLoadError) as caught:
        load("poolkit-geo")
    assert str(caught.value) == (
        "poolkit-geo 0.2.0 failed to import: ModuleNotFoundError: No module named 'rasterio'\n"
        "  entry point  geo_segment = poolkit_geo:SEGMENT\n"
        f"  raised at    {file}:4\n"
        "  enabled by   --plugin poolkit-geo"
    )
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_plugin_that_exits_at_import_and_was_enabled_in_a_file(site: Site):
    file = install_geo(site, "import sys\nsys.exit(3)\n")
    with pytest.raises(PluginLoadError) as caught:
        Registry.load(PluginConfig(enable=(Reference("geo", Path("/srv/poolkit.toml")),)))
    assert str(caught.value) == (
        "poolkit-geo 0.2.0 failed to import: SystemExit: 3\n"
        "  entry point  geo_segment = poolkit_geo:SEGMENT\n"
        f"  raised at    {file}:2\n"
        "  enabled in   /srv/poolkit.toml"
    )


def test_a_plugin_with_a_syntax_error(site: Site):
    file = install_geo(site, "\ndef broken(:\n")
    with pytest.raises(PluginLoadError) as caught:
        load("poolkit-geo")
    assert str(caught.value) == (
        f"poolkit-geo 0.2.0 failed to import: SyntaxError: invalid syntax (poolkit_geo.py, line 2)\n"
        "  entry point  geo_segment = poolkit_geo:SEGMENT\n"
        f"  raised at    {file}:2\n"
        "  enabled by   --plugin poolkit-geo"
    )


def test_an_entry_point_to_an_attribute_that_is_not_there(site: Site):
    install_geo(site, "")
    with pytest.raises(PluginLoadError) as caught:
        load("poolkit-geo")
    assert str(caught.value) == (
        "poolkit-geo 0.2.0 failed to import: AttributeError: module 'poolkit_geo' has no attribute 'SEGMENT'\n"
        "  entry point  geo_segment = poolkit_geo:SEGMENT\n"
        "  enabled by   --plugin poolkit-geo"
    )


def test_a_plugin_that_is_swept_in_and_broken_is_quarantined(site: Site, caplog: pytest.LogCaptureFixture):
    file = install_geo(site, "raise RuntimeError\n")
    site.install_task("poolkit-gliner", "0.3.1", "ner")
    registry = Registry.load(PluginConfig(enable=(Reference("*", "--plugin *"),)))
    assert {task.name for task in registry.tasks} == {*CORE_TASKS, "ner"}
    cause = (
        "poolkit-geo 0.2.0 failed to import: RuntimeError\n"
        "  entry point  geo_segment = poolkit_geo:SEGMENT\n"
        f"  raised at    {file}:1\n"
        "  enabled by   --plugin *"
    )
    [record] = caplog.records
    assert record.getMessage() == f"Task 'geo_segment' of poolkit-geo 0.2.0 is not available: {cause}"
    assert record.levelno == logging.WARNING
    assert record.exc_info is not None
    assert record.exc_info[0] is RuntimeError
    with pytest.raises(UnknownTaskError) as caught:
        registry.get_pooling_task(["embed"], "geo_segment")
    assert str(caught.value) == f"task 'geo_segment' of poolkit-geo 0.2.0 is not available: {cause}"
    assert isinstance(caught.value.__cause__, PluginLoadError)
    [row] = [row for row in registry.rows() if row.status is Status.QUARANTINED]
    assert (row.name, row.plugin, row.why) == ("geo_segment", "poolkit-geo", cause)


def test_a_broken_plugin_that_is_named_beside_a_star_must_load(site: Site):
    install_geo(site, "raise RuntimeError('no')\n")
    with pytest.raises(PluginLoadError, match="RuntimeError: no"):
        load("*", "poolkit-geo")


def test_all_failures_are_reported_together(site: Site):
    file = install_geo(site, "raise RuntimeError('no')\n")
    site.install(
        "poolkit-gliner",
        "0.3.1",
        modules={"poolkit_gliner": TASK.format(arguments="'entities'")},
        tasks={"ner": "poolkit_gliner:TASK"},
    )
    with pytest.raises(StartupError) as caught:
        load("poolkit-geo", "poolkit-gliner")
    assert [type(error) for error in caught.value.errors] == [PluginLoadError, PluginInvalidError]
    assert str(caught.value) == (
        "PluginLoadError: poolkit-geo 0.2.0 failed to import: RuntimeError: no\n"
        "  entry point  geo_segment = poolkit_geo:SEGMENT\n"
        f"  raised at    {file}:1\n"
        "  enabled by   --plugin poolkit-geo\n"
        "PluginInvalidError: poolkit-gliner 0.3.1: entry point 'ner' points to a task named 'entities'."
        " Give them one name."
    )


def test_a_task_for_a_newer_api(site: Site, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("poolkit.registry.check.API_VERSION", 2)
    install_api(site, 3)
    with pytest.raises(PluginIncompatibleError) as caught:
        load("poolkit-gliner")
    assert str(caught.value) == (
        "poolkit-gliner 0.3.1 needs plugin API 3; poolkit 0.1.0 supports 1 to 2. Upgrade poolkit."
    )


def test_a_task_for_an_older_api(site: Site):
    install_api(site, 0)
    with pytest.raises(PluginIncompatibleError) as caught:
        load("poolkit-gliner")
    assert str(caught.value) == (
        "poolkit-gliner 0.3.1 needs plugin API 0; poolkit 0.1.0 supports 1. Upgrade poolkit-gliner."
    )


def install_api(site: Site, api: int) -> None:
    modules = {"poolkit_gliner": TASK.format(arguments=f"'ner', api={api}")}
    site.install("poolkit-gliner", "0.3.1", modules=modules, tasks={"ner": "poolkit_gliner:TASK"})


def test_a_plugin_for_another_poolkit_is_refused_before_it_is_imported(site: Site):
    site.install(
        "poolkit-gliner",
        "0.3.1",
        modules={"poolkit_gliner": "raise SystemExit"},
        tasks={"ner": "poolkit_gliner:NER", "entities": "poolkit_gliner:ENTITIES"},
        requires=["numpy", "poolkit>=0.5,<0.6", 'poolkit<0; extra == "dev"'],
    )
    with pytest.raises(PluginIncompatibleError) as caught:
        load("poolkit-gliner")
    assert str(caught.value) == (
        "poolkit-gliner 0.3.1 needs poolkit <0.6,>=0.5; poolkit 0.1.0 is running. Install versions that fit."
    )


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("'entities'", "entry point 'ner' points to a task named 'entities'. Give them one name."),
        (
            "'ner', api='1'",
            "task 'ner' has api='1'. Give the number of the plugin API it was written for, now 1.",
        ),
        (
            "'ner', activation='relu'",
            "task 'ner' has activation='relu'. Choose one of identity, normalize, softmax, sigmoid, model.",
        ),
        ("'ner', settings=dict", "task 'ner' has settings=<class 'dict'>. Give a pydantic model class."),
        (
            "'ner', settings=__import__('distributions').Response",
            "the settings of task 'ner' (Response) accept unknown keys, so typing errors would go unnoticed. "
            'Give the model  model_config = ConfigDict(extra="forbid").',
        ),
        (
            "'ner', operations=make_task('ner').operations[0]",
            "the operations of task 'ner' are not a tuple of Operation. A tuple of one is written (operation,).",
        ),
        (
            "'ner', operations=()",
            "the operations of task 'ner' are not a tuple of Operation. A tuple of one is written (operation,).",
        ),
        (
            "'ner', operations=make_task('ner').operations * 2",
            "task 'ner' has 2 operations named 'measure'. Give each a name of its own.",
        ),
        (
            "'ner', operation='Measure'",
            "task 'ner' has an operation named 'Measure'. "
            "Use lower-case letters, digits and underscores, a letter first.",
        ),
        (
            "'ner', io_processor=int",
            "operation 'measure' of task 'ner' has io_processor=<class 'int'>. Write \"module:Class\".",
        ),
    ],
)
def test_a_descriptor_that_breaks_the_contract(site: Site, arguments: str, problem: str):
    assert refusal(site, arguments) == f"poolkit-gliner 0.3.1: {problem}"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            "output='colour'",
            "has output='colour'. Choose one of vector, logits, token_vectors, token_logits, hidden, label_logits.",
        ),
        (
            "operations=(replace(OPERATION, request=int),)",
            "operation 'measure' of task 'ner' has request=<class 'int'>. Give a pydantic model class.",
        ),
        (
            "operations=(replace(OPERATION, per_prompt=('lengths', 'labels')),)",
            "operation 'measure' of task 'ner' has per_prompt=('lengths', 'labels'). "
            "Its response has no field 'labels'.",
        ),
        (
            "operations=(replace(OPERATION, routes='/ner'),)",
            "operation 'measure' of task 'ner' has routes='/ner'. Give a tuple of paths, each with a slash in front.",
        ),
        (
            "operations=(replace(OPERATION, routes=('ner',)),)",
            "operation 'measure' of task 'ner' has routes=('ner',). Give a tuple of paths, each with a slash in front.",
        ),
        (
            "operations=(replace(OPERATION, max_rounds=0),)",
            "operation 'measure' of task 'ner' has max_rounds=0. Give a number of at least 1.",
        ),
        ("extra=int", "has extra=<class 'int'>. Give a pydantic model class."),
        (
            "extra=Request",
            "the extra of task 'ner' (Request) is not frozen, so prompts cannot be told apart by it. "
            "Give the model  model_config = ConfigDict(frozen=True).",
        ),
        ("taps=6, head='a:b'", "has taps=6. Give a tuple of layers' numbers. A tuple of one is written (6,)."),
        ("taps=(6,)", "has taps=(6,), but no head that reads them."),
        (
            "label_tokens='yes', output='label_logits'",
            "has label_tokens='yes'. Give a tuple of tokens. A tuple of one is written (\"yes\",).",
        ),
        ("output='label_logits'", "has output='label_logits', but no label_tokens whose logits these are."),
        (
            "label_tokens=('yes',)",
            "has label_tokens=('yes',), which are for output='label_logits' without a head.",
        ),
    ],
)
def test_a_field_that_breaks_the_contract(site: Site, changes: str, problem: str):
    source = (
        "from dataclasses import replace\nfrom distributions import Request, make_task\n"
        f"TASK = make_task('ner')\nOPERATION = TASK.operations[0]\nTASK = replace(TASK, {changes})\n"
    )
    site.install("poolkit-gliner", modules={"poolkit_gliner": source}, tasks={"ner": "poolkit_gliner:TASK"})
    with pytest.raises(PluginInvalidError) as caught:
        load("poolkit-gliner")
    subject = "" if problem.startswith(("operation", "the extra")) else "task 'ner' "
    assert str(caught.value) == f"poolkit-gliner 1.0.0: {subject}{problem}"


def test_an_entry_point_with_a_name_that_no_task_can_have(site: Site):
    assert refusal(site, "'NER'", name="NER") == (
        "poolkit-gliner 0.3.1: entry point 'NER' is not a task name. "
        "Use lower-case letters, digits and underscores, a letter first."
    )


def test_an_entry_point_to_something_else_than_a_task(site: Site):
    install_geo(site, "SEGMENT = 'segment'\n")
    with pytest.raises(PluginInvalidError) as caught:
        load("poolkit-geo")
    assert str(caught.value) == (
        "poolkit-geo 0.2.0: entry point 'geo_segment' points to an object of type str, not to a PoolingTask."
    )


def test_a_disabled_task_is_not_imported(site: Site):
    site.install(
        "poolkit-pair",
        modules={"poolkit_pair": TASK.format(arguments="'good'"), "poolkit_broken": "raise SystemExit"},
        tasks={"good": "poolkit_pair:TASK", "bad": "poolkit_broken:TASK"},
    )
    config = PluginConfig(enable=(Reference("pair", "POOLKIT_ENABLE"),), disable=(Reference("bad", "POOLKIT_DISABLE"),))
    assert {task.name for task in Registry.load(config).tasks} == {*CORE_TASKS, "good"}
    [row] = [row for row in list_plugins(config, loads=True) if row.name == "bad"]
    assert (row.status, row.why) == (Status.DISABLED, "disabled by POOLKIT_DISABLE")
