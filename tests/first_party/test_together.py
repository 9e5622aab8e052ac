"""The first-party plugins around each other, whichever was enabled first."""

from __future__ import annotations

import numpy as np
import pytest

from poolkit import EmbeddingsRequest
from serving import ids_in

ORDERS = [("cache", "chunking"), ("chunking", "cache")]
LONG = " ".join(f"w{number}" for number in range(80))
TOLERANCE = 1e-5
"""Sums in another order differ in float32 by 6e-7 at most here; the promise is 1e-5."""


@pytest.fixture
def settings(tmp_path):
    return {"cache": {"folder": str(tmp_path / "results")}}


def embed(served, *prompts: object):
    return served.run("embeddings", EmbeddingsRequest(input=list(prompts)))


@pytest.mark.parametrize("order", ORDERS, ids=" around ".join)
def test_they_give_what_chunking_alone_gives(serve, settings, order):
    texts = ["short", LONG, "short", LONG, "another"]
    with serve("chunking") as served:
        expected = embed(served, *texts)
    with serve(*order, settings=settings) as served:
        answers = [embed(served, *texts) for _ in range(2)]
    for answer in answers:
        assert np.abs(answer.embeddings - expected.embeddings).max() < TOLERANCE
        assert (ids_in(answer), answer.usage) == (ids_in(expected), expected.usage)


@pytest.mark.parametrize("order", ORDERS, ids=" around ".join)
def test_short_texts_are_kept(serve, settings, order):
    with serve(*order, settings=settings) as served:
        embed(served, "short", "other")
        embed(served, "other", "short")
        assert served.stats().prompts_run == 2


def test_a_cache_around_chunking_keeps_the_chunks(serve, settings):
    with serve("cache", "chunking", settings=settings) as served:
        embed(served, LONG)
        count = served.stats().prompts_run
        assert count > 1
        embed(served, LONG, "short")
        assert served.stats().prompts_run == count + 1


def test_a_cache_inside_of_chunking_keeps_nothing_that_depends_on_how_texts_are_cut(serve, settings):
    with serve("chunking", "cache", settings=settings) as served:
        embed(served, LONG)
    with serve("chunking") as served:
        expected = embed(served, LONG)
    smaller = {"chunking": {"max_chunk_tokens": 16}}
    with serve("chunking", settings=smaller) as served:
        expected = embed(served, LONG)
    with serve("chunking", "cache", settings={**settings, **smaller}) as served:
        got = embed(served, LONG)
    assert ids_in(got) == ids_in(expected)
    assert np.abs(got.embeddings - expected.embeddings).max() < TOLERANCE
