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

from poolkit import EmbeddingsRequest, EmbeddingsResponse, PoolingProcessor, RerankRequest, create_app
from poolkit.engine.scheduler import _Stream
from poolkit.registry.bind import _never_blocks
from poolkit.testing import FakeTokenizer, fake_model
from serving import HeldBackbone, ask

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


@pytest.mark.parametrize(("is_small", "workers"), [(True, 0), (False, 2)])
def test_a_request_wakes_the_engine_and_the_loop_once_and_workers_only_where_it_is_not_small(
    monkeypatch, is_small, workers
):
    woken: Counter[str] = Counter()
    with fake_model("embed") as served:

        async def ask() -> None:
            request = EmbeddingsRequest(input="a short text")
            await served.arun("embeddings", lambda: request, lambda answer: answer, is_small=is_small)

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
    assert during["worker"] == workers
    assert during["loop"] == 1
    assert during["engine"] <= 1  # none if it has not gone to sleep yet
    assert during["notify"] == 0  # nobody else


def test_the_requests_of_one_batch_wake_the_loop_once(monkeypatch):
    woken: Counter[str] = Counter()
    held: list[HeldBackbone] = []

    def hold(task):
        held.append(HeldBackbone(task))
        return held[0]

    with fake_model("embed", backbone=hold, max_num_seqs=64) as served:

        async def ask(text: str) -> EmbeddingsResponse:
            request = EmbeddingsRequest(input=text)
            return await served.arun("embeddings", lambda: request, lambda answer: answer, is_small=True)

        async def main() -> None:
            first = asyncio.ensure_future(ask("first"))
            while not held[0].is_reached.is_set():
                await asyncio.sleep(0)
            others = [asyncio.ensure_future(ask(f"text {number}")) for number in range(40)]
            await asyncio.sleep(0)  # all of them wait now, for one batch
            loop = asyncio.get_running_loop()

            def call_soon_threadsafe(function, *arguments):
                woken["loop"] += 1
                return type(loop).call_soon_threadsafe(loop, function, *arguments)

            monkeypatch.setattr(loop, "call_soon_threadsafe", call_soon_threadsafe)
            held[0].may_go.set()
            await first
            while served.stats().prompts_done < 41:  # the loop's thread holds still until the batch is settled
                pass
            await asyncio.gather(*others)

        asyncio.run(main())
    assert served.stats().batches_done == 2
    assert woken["loop"] <= 3  # one for each batch, and one if the last outcome came just after the loop had looked


class Sleeper(PoolingProcessor):
    """Derives from a processor that never blocks, and says nothing of itself."""


def test_a_processor_stays_off_the_loop_until_its_own_class_says_that_it_never_blocks():
    with fake_model("embed") as served:
        bound = served.operations["pooling"]
        assert bound.never_blocks
        assert PoolingProcessor.never_blocks
        assert not _never_blocks(Sleeper(bound.processor.context))


@pytest.mark.parametrize(
    ("texts", "in_loop"),
    [(["a short text"], {"pre": True, "tokenize": True}), (["word " * 1000], {"pre": True, "tokenize": False})],
)
def test_only_short_texts_are_tokenized_on_the_loop(monkeypatch, texts, in_loop):
    threads: dict[str, bool] = {}
    here = threading.get_ident()
    with fake_model("embed") as served:
        tokenizer = type(served.operations["embeddings"].processor.context.encoder._tokenizer)
        encode_batch = tokenizer.encode_batch

        def watched(self, *arguments, **options):
            threads["tokenize"] = threading.get_ident() == here
            return encode_batch(self, *arguments, **options)

        monkeypatch.setattr(tokenizer, "encode_batch", watched)

        def decode() -> EmbeddingsRequest:
            threads["pre"] = threading.get_ident() == here
            return EmbeddingsRequest(input=texts, truncate_prompt_tokens=8)

        asyncio.run(served.arun("embeddings", decode, lambda answer: answer, is_small=True))
    assert threads == in_loop


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
