"""The task that a model serves, and the messages when the one asked for cannot be served."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from distributions import Site, make_model
from poolkit.config import PluginConfig, Reference
from poolkit.contract import ModelInfo, PoolingTask
from poolkit.errors import (
    PluginInvalidError,
    PluginNotFoundError,
    TaskConflictError,
    UnknownTaskError,
    UnsupportedTaskError,
)
from poolkit.registry import Registry

EVERYTHING = make_model("vector", "token_vectors", "logits", "token_logits")


def load(*names: str, disable: tuple[Reference, ...] = ()) -> Registry:
    enable = tuple(Reference(name, f"--plugin {name}") for name in names)
    return Registry.load(PluginConfig(enable=enable, disable=disable))


def choose(registry: Registry, task: str | None = None, model: ModelInfo = EVERYTHING) -> PoolingTask:
    return registry.get_pooling_task(registry.supported_tasks(model), task, model=model)


@pytest.mark.usefixtures("site")
def test_supported_tasks_follow_the_models_preference_then_the_name():
    registry = load()
    assert registry.supported_tasks(make_model("token_vectors", "vector")) == ("token_embed", "embed")
    assert registry.supported_tasks(make_model("logits", "vector")) == ("classify", "reward", "embed")
    assert registry.supported_tasks(make_model("hidden")) == ()


@pytest.mark.usefixtures("site")
def test_the_first_supported_task_that_is_enabled_is_the_default():
    registry = load(disable=(Reference("classify", "--no-plugin classify"),))
    assert registry.get_pooling_task(["ner", "classify", "reward", "embed"]).name == "reward"


def test_a_plugins_requirement_of_the_model_counts(site: Site):
    site.install(
        "poolkit-picky",
        modules={
            "poolkit_picky": (
                "from distributions import make_task\n"
                "def requires(model):\n"
                "    if model.hidden_size > 100:\n"
                "        return f'it is {model.hidden_size} wide, and picky needs at most 100.'\n"
                "PICKY = make_task('picky', requires=requires)\n"
                "CRASH = make_task('crash', requires=lambda model: model.colour)\n"
            )
        },
        tasks={"picky": "poolkit_picky:PICKY", "crash": "poolkit_picky:CRASH"},
    )
    registry = load("picky")
    assert registry.supported_tasks(make_model()) == ("embed", "token_embed")
    with pytest.raises(UnsupportedTaskError) as caught:
        choose(registry, "picky", make_model())
    assert str(caught.value) == (
        "model 'BAAI/bge-small-en-v1.5' cannot serve 'picky': it is 384 wide, and picky needs at most 100.\n"
        "  The model produces vector, token_vectors. It can serve: embed, token_embed."
    )
    with pytest.raises(UnsupportedTaskError) as caught:
        choose(registry, "crash", make_model())
    assert str(caught.value) == (
        "model 'BAAI/bge-small-en-v1.5' cannot serve 'crash': poolkit-picky 1.0.0 failed to tell whether it can: "
        "AttributeError: 'ModelInfo' object has no attribute 'colour'.\n"
        "  The model produces vector, token_vectors. It can serve: embed, token_embed."
    )


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("emebd", "Did you mean 'embed'?"),
        ("rernak", "Did you mean 'rerank'? It is an operation of classify."),
    ],
)
def test_a_misspelled_task(name: str, hint: str):
    with pytest.raises(UnknownTaskError) as caught:
        choose(load(), name)
    assert caught.value.task == name
    assert str(caught.value) == (
        f"no task named {name!r}. {hint}\n  Enabled tasks: classify, embed, reward, token_classify, token_embed."
    )


@pytest.mark.usefixtures("site")
def test_an_operation_where_a_task_is_expected():
    with pytest.raises(UnknownTaskError) as caught:
        choose(load(), "rerank")
    assert str(caught.value) == (
        "no task named 'rerank'. It is an operation of classify.\n"
        "  Enabled tasks: classify, embed, reward, token_classify, token_embed."
    )


@pytest.mark.parametrize("task", ["ner", "poolkit-gliner:ner"])
def test_a_task_that_is_installed_but_not_enabled(site: Site, task: str):
    site.install_task("poolkit-gliner", "0.3.1", "ner")
    with pytest.raises(UnknownTaskError) as caught:
        choose(load(), task)
    assert str(caught.value) == (
        "task 'ner' is provided by poolkit-gliner 0.3.1, which is installed but not enabled.\n"
        '  Enable it with  enable = ["poolkit-gliner"]  in poolkit.toml, or --plugin poolkit-gliner.'
    )


def test_a_task_that_two_installed_plugins_have(site: Site):
    site.install_task("poolkit-gliner", "0.3.1", "ner")
    site.install_task("poolkit-flair", "1.2.0", "ner")
    with pytest.raises(UnknownTaskError) as caught:
        choose(load(), "ner")
    assert str(caught.value) == (
        "task 'ner' is provided by poolkit-flair 1.2.0 and poolkit-gliner 0.3.1, which are installed but not enabled.\n"
        '  Enable it with  enable = ["poolkit-flair"]  in poolkit.toml, or --plugin poolkit-flair.'
    )


def test_a_task_that_is_disabled(site: Site):
    site.install_task("poolkit-gliner", "0.3.1", "ner")
    disable = (Reference("reward", Path("/srv/poolkit.toml")), Reference("gliner", "--no-plugin gliner"))
    registry = load("gliner", disable=disable)
    with pytest.raises(UnknownTaskError) as caught:
        choose(registry, "reward")
    assert str(caught.value) == "task 'reward' is disabled in /srv/poolkit.toml. Remove it from disable to serve it."
    with pytest.raises(UnknownTaskError) as caught:
        choose(registry, "ner")
    assert str(caught.value) == (
        "task 'ner' is provided by poolkit-gliner 0.3.1, which is disabled by --no-plugin gliner. "
        "Remove it from disable to use it."
    )


def test_a_task_that_two_enabled_plugins_provide(site: Site):
    site.install_task("poolkit-gliner", "0.3.1", "ner")
    site.install_task("poolkit-flair", "1.2.0", "ner")
    registry = load("gliner", "flair")
    with pytest.raises(TaskConflictError) as caught:
        choose(registry, "ner")
    assert caught.value.task == "ner"
    assert str(caught.value) == (
        "task 'ner' is provided by 2 enabled plugins:\n"
        "    poolkit-flair 1.2.0   poolkit_flair:NER\n"
        "    poolkit-gliner 0.3.1  poolkit_gliner:NER\n"
        '  Choose one with  task = "poolkit-gliner:ner",  or disable the other.'
    )
    by_plugin = {task.plugin.name: task.target for task in registry.tasks if task.name == "ner"}
    assert choose(registry, "poolkit-flair:ner") is by_plugin["poolkit-flair"]
    assert choose(registry, "gliner:ner") is by_plugin["poolkit-gliner"]
    assert choose(load("gliner", "flair", disable=(Reference("flair", "test"),)), "ner").name == "ner"


def test_a_plugin_chosen_for_a_task_it_does_not_have(site: Site):
    site.install_task("poolkit-gliner", "0.3.1", "ner")
    with pytest.raises(UnknownTaskError) as caught:
        choose(load("gliner"), "gliner:nre")
    assert str(caught.value) == ("poolkit-gliner 0.3.1 has no task named 'nre'. Did you mean 'ner'?\n  Its tasks: ner.")


@pytest.mark.usefixtures("site")
def test_a_plugin_chosen_for_a_task_and_not_installed():
    with pytest.raises(PluginNotFoundError) as caught:
        choose(load(), "poolkit-gliner:ner")
    assert str(caught.value) == (
        f"plugin 'poolkit-gliner', chosen by task \"poolkit-gliner:ner\", is not installed in {sys.prefix}.\n"
        "  Install it with  python -m pip install poolkit-gliner.  Installed plugins: poolkit 0.1.0."
    )


@pytest.mark.usefixtures("site")
def test_a_model_that_lacks_the_output():
    with pytest.raises(UnsupportedTaskError) as caught:
        choose(load(), "classify", make_model())
    assert caught.value.task == "classify"
    assert str(caught.value) == (
        "model 'BAAI/bge-small-en-v1.5' cannot serve 'classify': it has no classification head.\n"
        "  The model produces vector, token_vectors. It can serve: embed, token_embed."
    )


@pytest.mark.usefixtures("site")
def test_a_model_that_no_enabled_task_fits():
    with pytest.raises(UnsupportedTaskError) as caught:
        choose(load(), model=make_model("hidden", name="odd"))
    assert str(caught.value) == (
        "model 'odd' cannot serve any enabled task.\n"
        "  The model produces hidden. Enabled tasks: classify, embed, reward, token_classify, token_embed."
    )


@pytest.mark.usefixtures("site")
def test_without_a_model_the_list_of_supported_tasks_decides():
    registry = load()
    assert registry.get_pooling_task(["reward", "embed"], "embed").name == "embed"
    with pytest.raises(UnsupportedTaskError) as caught:
        registry.get_pooling_task(["embed"], "classify")
    assert str(caught.value) == "the model cannot serve 'classify'. It can serve: embed."
    with pytest.raises(UnsupportedTaskError) as caught:
        registry.get_pooling_task([])
    assert str(caught.value) == (
        "the model cannot serve any enabled task.\n"
        "  Enabled tasks: classify, embed, reward, token_classify, token_embed."
    )


def test_an_alias_leads_to_the_task_and_is_not_counted_as_another(site: Site):
    site.install(
        "poolkit-gliner",
        modules={"poolkit_gliner": "from distributions import make_task\nNER = make_task('ner')\n"},
        tasks={"ner": "poolkit_gliner:NER", "entities": "poolkit_gliner:NER"},
    )
    registry = load("gliner")
    assert choose(registry, "entities") is choose(registry, "ner")
    assert registry.supported_tasks(make_model()) == ("embed", "token_embed", "ner")


def test_a_renamed_task_warns_and_follows(site: Site):
    install_former_names(site)
    registry = load("multi")
    with pytest.warns(FutureWarning) as warned:
        task = choose(registry, "colbert")
    assert task.name == "late"
    assert [str(warning.message) for warning in warned] == [
        "Task 'colbert' is called 'late' since poolkit-multi 0.4. Use that name."
    ]
    with pytest.warns(FutureWarning, match="is called 'embed' since"):
        assert choose(registry, "encode") is choose(registry, "embed")


def test_a_removed_task_says_what_to_use(site: Site):
    install_former_names(site)
    with pytest.raises(UnknownTaskError) as caught:
        choose(load("multi"), "sparse")
    assert str(caught.value) == "task 'sparse' was removed in poolkit-multi 0.5. Use poolkit-splade instead."


def test_a_former_name_that_leads_to_a_former_name(site: Site):
    install_former_names(site)
    with pytest.warns(FutureWarning), pytest.raises(PluginInvalidError) as caught:
        choose(load("multi"), "oldest")
    assert str(caught.value) == (
        "poolkit-multi 1.0.0: task 'colbert' is a former name that another one leads to. Point both to the task."
    )


def install_former_names(site: Site) -> None:
    source = (
        "from distributions import make_task\n"
        "from poolkit.contract import Removed, Renamed\n"
        "LATE = make_task('late')\n"
        "COLBERT = Renamed('late', since='0.4')\n"
        "OLDEST = Renamed('colbert', since='0.2')\n"
        "ENCODE = Renamed('embed', since='0.3')\n"
        "SPARSE = Removed('poolkit-splade', since='0.5')\n"
    )
    names = ("late", "colbert", "oldest", "encode", "sparse")
    site.install(
        "poolkit-multi",
        modules={"poolkit_multi": source},
        tasks={name: f"poolkit_multi:{name.upper()}" for name in names},
    )
