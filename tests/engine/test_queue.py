"""The queue in front of the model: several threads may take from it, and a document never overtakes its query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from poolkit import LateInteractionParams, ResolvedParams
from poolkit.contract import EncodedPrompt, Group
from poolkit.engine.job import Job
from poolkit.engine.queue import PromptQueue, Unit, make_units


@dataclass(eq=False)
class Item:
    prompt: EncodedPrompt
    job: Job


def prompts(
    *lengths: int, late: LateInteractionParams | None = None, group: Group | None = None
) -> list[EncodedPrompt]:
    params = ResolvedParams(late_interaction=late)
    return [EncodedPrompt(np.zeros(length, np.int32), params, group=group) for length in lengths]


def queue_of(*wanted: EncodedPrompt, job: Job | None = None) -> PromptQueue[Item]:
    queue: PromptQueue[Item] = PromptQueue()
    job = job or Job(len(wanted), fails_fast=False)
    queue.add(make_units([Item(prompt, job) for prompt in wanted]))
    return queue


def lengths_of(units: Sequence[Unit[Item]]) -> list[int]:
    return [len(item.prompt.token_ids) for unit in units for item in unit.items]


def take(queue: PromptQueue[Item], *, max_tokens: int = 100, max_prompts: int = 8) -> list[Unit[Item]]:
    return queue.take(max_tokens=max_tokens, max_prompts=max_prompts)


KEEP = LateInteractionParams("cache_query", "q", 9)
SCORE = LateInteractionParams("score_doc", "q")


def test_those_nearest_to_the_oldest_in_length_go_with_it():
    queue = queue_of(*prompts(20, 3, 60, 21, 22, 19, 2))
    assert lengths_of(take(queue, max_prompts=4)) == [20, 21, 22, 19]
    assert lengths_of(take(queue, max_prompts=2)) == [3, 2]
    assert lengths_of(take(queue)) == [60]
    assert take(queue) == []


def test_a_document_waits_while_its_query_runs_elsewhere():
    queue = queue_of(*prompts(40, late=KEEP), *prompts(50, 25, late=SCORE), *prompts(7))
    first = take(queue)
    assert lengths_of(first) == [40, 50]  # what fits goes with its query, which is kept before it is needed
    assert lengths_of(take(queue)) == [7]
    assert take(queue) == []
    queue.finish(first)
    assert lengths_of(take(queue)) == [25]


def test_documents_of_a_query_that_ran_long_ago_do_not_wait():
    queue = queue_of(*prompts(60, late=KEEP))
    queue.finish(take(queue))
    job = Job(1, fails_fast=False)
    queue.add(make_units([Item(prompt, job) for prompt in prompts(50, late=SCORE)]))
    assert lengths_of(take(queue)) == [50]


def test_a_query_that_is_queued_twice_is_run_twice_and_loses_no_document():
    queue = queue_of(*prompts(60, 70, late=KEEP), *prompts(50, 40, late=SCORE))
    first = take(queue)
    assert lengths_of(first) == [60]
    queue.finish(first)
    assert sorted(lengths_of(take(queue, max_tokens=200))) == [40, 50, 70]


def test_what_was_given_up_is_left_out():
    job = Job(3, fails_fast=False)
    queue = queue_of(*prompts(60, late=KEEP), *prompts(50, 5, late=SCORE), job=job)
    job.cancel(ValueError("gone"))
    assert queue
    assert take(queue) == []
    assert not queue


def test_a_group_is_taken_whole():
    group = Group()
    queue = queue_of(*prompts(20), *prompts(30, 30, 30, group=group), *prompts(25))
    assert lengths_of(take(queue)) == [20, 25]
    assert lengths_of(take(queue, max_tokens=10)) == [30, 30, 30]  # more than a batch may hold: it runs alone


def test_a_group_is_given_up_whole():
    job = Job(2, fails_fast=False)
    queue = queue_of(*prompts(30, 31, group=Group()), job=job)
    job.cancel(ValueError("gone"))
    assert take(queue) == []
