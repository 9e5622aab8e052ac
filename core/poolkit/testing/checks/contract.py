"""Checks of the contract between a task and the core: its models, their examples, its hooks and its routes."""

from __future__ import annotations

import json
from collections.abc import Iterator

from pydantic import BaseModel, ValidationError

from poolkit.errors import PluginInvalidError, PoolkitError
from poolkit.registry import TASKS
from poolkit.testing.checks.check import check
from poolkit.testing.checks.metadata import plugin_loads
from poolkit.testing.checks.plugin import NotApplicableError, PluginUnderTest, examples, format_error
from poolkit.testing.serving import FAKES, find_fake

__all__ = [
    "examples_validate",
    "heads_are_examined",
    "heads_have_fakes",
    "hooks_bind",
    "routes_are_free",
    "routes_are_prefixed",
    "schemas_are_json",
    "settings_can_be_given",
]


@check(since="0.1", needs=(plugin_loads,))
def schemas_are_json(plugin: PluginUnderTest) -> Iterator[str]:
    """The JSON schemas of requests, responses and settings can be made and written as JSON."""
    models = list(plugin.settings_models)
    if plugin.installed.in_group(TASKS):
        models += [model for _, operation in plugin.operations for model in (operation.request, operation.response)]
    for model in dict.fromkeys(models):
        try:
            json.dumps(model.model_json_schema())
        except Exception as error:  # noqa: BLE001 - a schema hook of the plugin's own may raise anything
            yield f"{model.__name__} has no schema in JSON: {format_error(error)}"


@check(since="0.1", needs=(schemas_are_json,))
def examples_validate(plugin: PluginUnderTest) -> Iterator[str]:
    """A request has an example in its JSON schema, and accepts every one it has."""
    for task, operation in plugin.operations:
        model = operation.request
        found = examples(model)
        if not found:
            yield (
                f"{model.__name__}, the request of {operation.name!r} of task {task.name!r}, has no example. Give it  "
                'model_config = ConfigDict(json_schema_extra={"examples": [{...}]}).'
            )
        for number, example in enumerate(found):
            yield from _refusals(model, example, f"example {number} of {model.__name__}")


@check(since="0.1", needs=(plugin_loads,))
def settings_can_be_given(plugin: PluginUnderTest) -> Iterator[str]:
    """The settings have defaults, or an example in their JSON schema that gives the others."""
    for model in plugin.settings_models:
        yield from _refusals(model, plugin.settings_of(model), f"{model.__name__} without an example that says more")


def _refusals(model: type[BaseModel], values: dict[str, object], what: str) -> Iterator[str]:
    try:
        model.model_validate(values)
    except ValidationError as error:
        reasons = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        yield f"{what} is refused: {reasons}."


@check(since="0.1", needs=(plugin_loads, settings_can_be_given))
def hooks_bind(plugin: PluginUnderTest) -> Iterator[str]:
    """Processors can be imported and created, and their hooks, and the start-up hooks, take what they are given."""
    if not plugin.served_tasks:
        raise NotApplicableError("the plugin has neither tasks nor hooks")
    for task in plugin.served_tasks:
        try:
            with plugin.serve(task):
                pass
        except PoolkitError as error:
            yield str(error)


@check(since="0.1", needs=(plugin_loads,))
def heads_have_fakes(plugin: PluginUnderTest) -> Iterator[str]:
    """A task with a head of its own names what stands in for it where there are no weights."""
    for task in dict.fromkeys(plugin.tasks.values()):
        fake = find_fake(plugin.installed.name, task.name)
        is_drawn = (fake is not None and fake.draw is not None) or task.output_kind.fake is not None
        if task.head is not None and not is_drawn:
            yield (
                f"the head {task.head!r} of task {task.name!r} cannot be run without weights. Name a "
                f"poolkit.testing.Fake with a draw in an entry point {task.name!r} of group {FAKES}."
            )


@check(since="0.1", needs=(heads_have_fakes,))
def heads_are_examined(plugin: PluginUnderTest) -> Iterator[str]:
    """The heads of the plugin's tasks are run, unless a fake stands in for them."""
    heads = sorted({task.head for task in plugin.tasks.values() if task.head is not None})
    if heads:
        shown = " and ".join(map(repr, heads))
        raise NotApplicableError(f"{shown} needs weights: the entry point in {FAKES} stood in for it")
    yield from ()


@check(since="0.1", needs=(hooks_bind,))
def routes_are_free(plugin: PluginUnderTest) -> Iterator[str]:
    """No extra route takes the place of one of poolkit's own."""
    from poolkit.server import create_app  # here, because importing the kit must not import uvicorn

    for task in plugin.own_tasks:
        with plugin.serve(task) as served:
            try:
                create_app(served)
            except PluginInvalidError as error:
                yield str(error)


@check(since="0.1", needs=(plugin_loads,), is_advice=True)
def routes_are_prefixed(plugin: PluginUnderTest) -> Iterator[str]:
    """An extra route holds the task's or the plugin's name, so that no two plugins ask for the same."""
    short_name = plugin.installed.name.removeprefix("poolkit-")
    for task, operation in plugin.operations:
        names = {task.name, task.name.replace("_", "-"), plugin.installed.name, short_name}
        for route in operation.routes:
            if names.isdisjoint(route.split("/")):
                yield (
                    f"the route {route!r} may be another plugin's as well. "
                    f"Put the task's name into it: '/{task.name}{route}'."
                )
