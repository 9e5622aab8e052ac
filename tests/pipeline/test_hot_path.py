"""Guards what one request costs outside of the model, by counting: counts do not depend on the machine.

A number here may go down at any time. It goes up only with a reason in the commit that raises it.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import FrameType

import pytest

from poolkit import EmbeddingsRequest, RerankRequest, create_app
from poolkit.engine.scheduler import _Stream
from poolkit.testing import FakeTokenizer, fake_model
from serving import ask

CALLS_PER_PROMPT = 18
"""Calls of Python functions of poolkit for one more text in a request of embeddings, those of poolkit.testing left out.
Counted: 15 to 16."""
CALLS_PER_PAIR = 18
"""The same for one more document in a request of reranking, over the routes too. Counted: 14 to 16."""
COPIES_PER_PROMPT = 3
"""Calls of numpy functions that make a new array, likewise: ids as they come from the tokenizer, and the rows."""


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count the calls of Python functions and of numpy's copying functions in all threads that start from now on."""
    counts: Counter[str] = Counter()

    def profile(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            code = frame.f_code
            if "poolkit" in code.co_filename and "/testing/" not in code.co_filename:
                counts["calls"] += 1
                counts[code.co_name] += 1
        elif event == "c_call" and getattr(argument, "__name__", "") in ("array", "concatenate", "copy", "astype"):
            counts["copies"] += 1

    threading.setprofile(profile)
    try:
        yield counts
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def counts_of(texts: int) -> Counter[str]:
    """Count what a request of so many texts costs."""
    request = EmbeddingsRequest(input=[f"text number {number} of some" for number in range(texts)])
    with counted() as counts, fake_model("embed", max_num_seqs=64) as served:
        served.run("embeddings", request)
    return counts


def test_each_further_text_of_a_request_costs_few_calls_and_copies():
    few, many = counts_of(300), counts_of(500)
    assert (many["calls"] - few["calls"]) / 200 <= CALLS_PER_PROMPT
    assert (many["copies"] - few["copies"]) / 200 <= COPIES_PER_PROMPT


def counts_of_pairs(task: str, path: str, documents: int) -> Counter[str]:
    """Count what a request at a route that scores so many documents with one query costs."""
    query = {"query": "the query"} if path == "/rerank" else {"queries": "the query"}
    body = {**query, "documents": [f"document number {number}" for number in range(documents)]}
    with counted() as counts, fake_model(task, max_num_seqs=64) as served:
        assert ask(create_app(served), "POST", path, json=body).status_code == 200
    return counts


@pytest.mark.parametrize("task", ["embed", "classify", "token_embed"])
@pytest.mark.parametrize("path", ["/rerank", "/score"])
def test_each_further_document_of_a_query_costs_few_calls_and_copies(task, path):
    few, many = counts_of_pairs(task, path, 300), counts_of_pairs(task, path, 812)
    assert (many["calls"] - few["calls"]) / 512 <= CALLS_PER_PAIR
    assert (many["copies"] - few["copies"]) / 512 <= COPIES_PER_PROMPT


@pytest.mark.parametrize(("documents", "slices"), [(20, 1), (250, 1), (600, 3)])
def test_a_query_and_its_documents_are_one_call_of_the_tokenizer_and_one_for_each_further_slice(
    monkeypatch, documents, slices
):
    request = RerankRequest(query="the query", documents=[f"document {number}" for number in range(documents)])
    with fake_model("classify") as served:
        calls = spy(monkeypatch, FakeTokenizer, "encode_batch")
        served.run("rerank", request)
    alone = slices > 1  # of a query that several slices read
    assert len(calls) == slices + alone
    assert sum(texts.count("the query") for (texts,) in calls) == 1


def test_the_params_of_a_request_are_resolved_once_however_many_prompts_it_has():
    with counted() as counts, fake_model("embed") as served:
        asyncio.run(
            served.arun("embeddings", lambda: EmbeddingsRequest(input=["a", "b", "c"] * 30), lambda answer: answer)
        )
    assert counts["_find_prompt"] == 1


def test_a_request_of_plain_texts_is_one_call_of_the_tokenizer_per_slice(monkeypatch):
    with fake_model("embed") as served:
        tokenizer = served.operations["embeddings"].processor.context.encoder
        calls = spy(monkeypatch, type(tokenizer._tokenizer), "encode_batch")
        served.run("embeddings", EmbeddingsRequest(input=["a text"] * 512))
    assert len(calls) == 2


def test_a_small_request_wakes_four_threads_and_the_loop_once(monkeypatch):
    woken: Counter[str] = Counter()
    with fake_model("embed") as served:

        async def ask() -> None:
            request = EmbeddingsRequest(input="a short text")
            await served.arun("embeddings", lambda: request, lambda answer: answer)

        for _ in range(20):
            asyncio.run(ask())  # after these the pools have their threads
        woken.clear()
        monkeypatch.setattr(ThreadPoolExecutor, "submit", counting(ThreadPoolExecutor.submit, woken, "worker"))
        notify = threading.Condition.notify

        def counted_notify(self, n=1):
            woken["notify"] += bool(self._waiters)
            notify(self, n)

        monkeypatch.setattr(threading.Condition, "notify", counted_notify)
        monkeypatch.setattr(_Stream, "wake", counting(_Stream.wake, woken, "engine"))
        loop = asyncio.new_event_loop()
        monkeypatch.setattr(loop, "call_soon_threadsafe", counting(loop.call_soon_threadsafe, woken, "loop"))
        loop.run_until_complete(ask())
        during = Counter(woken)  # closing wakes threads too
        loop.close()
    assert during["worker"] == 2
    assert during["loop"] == 1
    assert during["engine"] == 1
    assert during["notify"] == 0  # nobody else


def spy(monkeypatch: pytest.MonkeyPatch, kind: type, name: str) -> list[tuple[list[str]]]:
    """Return the arguments of each call of a method of the fake tokenizer."""
    calls: list[tuple[list[str]]] = []
    method = getattr(kind, name)

    def watched(self, texts, **options):
        calls.append((list(texts),))
        return method(self, texts, **options)

    monkeypatch.setattr(kind, name, watched)
    return calls


def counting(function, counts: Counter[str], name: str):
    def counted_function(*arguments, **options):
        counts[name] += 1
        return function(*arguments, **options)

    return counted_function
