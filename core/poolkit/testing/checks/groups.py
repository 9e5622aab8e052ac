"""The check that prompts which belong together stay together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from poolkit.contract import EncodedPrompt, Group, RequestScope, request_scope
from poolkit.engine.model import Engine
from poolkit.errors import PoolkitError
from poolkit.pipeline.params import ParamsResolver
from poolkit.registry import RunWrapper, start_run
from poolkit.testing.checks.answers import examples_are_answered
from poolkit.testing.checks.bodies import Body
from poolkit.testing.checks.cases import Case, one_per_operation
from poolkit.testing.checks.check import check
from poolkit.testing.checks.plugin import NotApplicableError, PluginUnderTest, format_error
from poolkit.testing.fake_engine import FakeBackbone, FakeTokenizer, load_fake
from poolkit.testing.serving import find_fake
from poolkit.tokenization import Encoder

__all__ = ["groups_stay_together"]


@check(since="0.1", needs=(examples_are_answered,))
def groups_stay_together(plugin: PluginUnderTest) -> Iterator[str]:
    """A wrapper around the model passes on every prompt of a group, or none of them."""
    is_examined = False
    for case in one_per_operation(plugin):
        bound = case.served.operations[case.operation.name]
        if not bound.run_wrappers:
            continue
        is_examined = True
        first, second = (_encode(case, body) for body in case.variants(2) or [case.body] * 2)
        fake = find_fake(bound.plugin.name, case.served.task.name)
        engine = load_fake(case.served.task, FakeBackbone(case.served.task, fake=fake))
        # Equal prompts in one group, and prompts that have run before in another one.
        for prompts in (_group([*first, *first]), _group([*first, *second])):
            if prompts and (problem := _problem(bound.run_wrappers, prompts, engine)) is not None:
                yield f"{case.where} with its prompts in a group: {problem}"
                break
    if not is_examined:
        raise NotApplicableError("no wrapper of the plugin surrounds the model")


def _encode(case: Case, body: Body) -> list[EncodedPrompt]:
    """Return the tokenized prompts of a request, those that may be in a group."""
    encoder = Encoder(FakeTokenizer(), case.served.info, ParamsResolver(case.served.task, case.served.info))
    prepared = case.served.operations[case.operation.name].pre_process(case.decode(body))
    params = [encoder.resolve(each) for each in prepared.params_of_each]
    encoded = encoder.encode(prepared.prompts, params)
    return [
        prompt for prompt in encoded if isinstance(prompt, EncodedPrompt) and prompt.params.late_interaction is None
    ]


def _group(prompts: Sequence[EncodedPrompt]) -> list[EncodedPrompt]:
    """Return prompts as one group."""
    group = Group()
    return [replace(prompt, group=group, index=index) for index, prompt in enumerate(prompts)]


def _problem(wrappers: Sequence[RunWrapper], prompts: Sequence[EncodedPrompt], engine: Engine) -> str | None:
    """Return what wrappers do to a group, if it does not run as a whole or not at all."""
    try:
        with request_scope(RequestScope()):
            running = start_run(wrappers, prompts)
            running.finish(engine.forward(running.to_run))
    except PoolkitError as error:
        return format_error(error)
    if any(prompt.group is None for prompt in running.to_run):
        return "a wrapper takes prompts out of it. Give what runs in place of a prompt the group of that prompt."
    return None
