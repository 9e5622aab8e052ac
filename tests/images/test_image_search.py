"""Scoring with images: texts that search images, images that search either, next to the model and after it."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from closeness import assert_close, assert_ranks
from image_models import RETRIEVERS, TOWERS, pictures
from poolkit import LLM, PoolerConfig, PoolingParams
from poolkit.errors import BatchError, RequestError

pytestmark = pytest.mark.usefixtures("one_thread")

QUERY = "Where did the cat sit?"
PLAIN = PoolerConfig(enable_flash_late_interaction=False)


def vectors(llm, prompts):
    return [output.outputs.data for output in llm.encode(prompts, use_tqdm=False)]


def scores(llm, query, documents, **options):
    return [output.outputs.score for output in llm.score(query, documents, use_tqdm=False, **options)]


def as_json(image):
    return {"image": base64.b64encode(image.data).decode()}


@pytest.mark.parametrize("family", TOWERS)
def test_texts_and_images_are_compared_in_one_space(family, load):
    llm = load(family)
    images = pictures()
    [query], [image] = vectors(llm, [QUERY]), vectors(llm, images[:1])
    documents = vectors(llm, [*images, "a text"])
    np.testing.assert_allclose(scores(llm, QUERY, [*images, "a text"]), np.stack(documents) @ query, atol=1e-5)
    found = scores(llm, images[0], [*images, "a text"])
    np.testing.assert_allclose(found, np.stack(documents) @ image, atol=1e-5)
    assert found[0] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("family", RETRIEVERS)
def test_pages_are_scored_by_maxsim_next_to_the_model_and_after_it(family, load):
    llm = load(family)
    images = pictures()
    [query], pages = vectors(llm, [QUERY]), vectors(llm, images)
    expected = [(query @ page.T).max(axis=1).sum() for page in pages]
    np.testing.assert_allclose(scores(llm, QUERY, images), expected, atol=1e-4)
    np.testing.assert_allclose(scores(load(family, pooler_config=PLAIN), QUERY, images), expected, atol=1e-4)
    assert llm.served._engine.queries_kept == 0


@pytest.mark.parametrize("family", RETRIEVERS)
def test_an_image_that_searches_pages_finds_itself(family, load):
    images = pictures()
    best, *_ = load(family).rerank(images[2], images, use_tqdm=False)
    assert (best.index, best.document) == (2, None)


@pytest.mark.parametrize("family", ["clip", "colpali"])
def test_reranking_images_gives_the_same_over_http(family, load, post):
    images = pictures()
    llm = load(family)
    offline = llm.rerank(QUERY, images, top_n=3, use_tqdm=False)
    body = {"query": QUERY, "documents": [as_json(image) for image in images], "top_n": 3}
    results = post(family, "/rerank", body).json()["results"]
    assert {frozenset(one) for one in results} == {frozenset({"index", "relevance_score"})}
    assert len(results) == len(offline) == 3
    expected = scores(llm, QUERY, images)
    assert_ranks([(one["index"], one["relevance_score"]) for one in results], expected)
    assert_ranks([(one.index, one.relevance_score) for one in offline], expected)


def test_scoring_images_gives_the_same_over_http(load, post):
    images = pictures()
    expected = scores(load("colqwen2"), QUERY, images)
    answer = post("colqwen2", "/score", {"queries": QUERY, "documents": [as_json(image) for image in images]}).json()
    assert_close([item["score"] for item in answer["data"]], expected)
    one = post("colqwen2", "/score", {"data_1": QUERY, "data_2": as_json(images[0])}).json()
    assert one["data"][0]["score"] == pytest.approx(expected[0], abs=1e-4)


@pytest.mark.parametrize("family", RETRIEVERS)
def test_a_long_query_is_cut_inside_what_stands_around_it(family, load):
    llm = load(family)
    long = "word " * 400
    with pytest.raises(RequestError, match=r"Prompt \d+ has \d+ tokens"):
        llm.encode([long], use_tqdm=False)
    [whole] = llm.encode([QUERY], use_tqdm=False)
    [cut] = llm.encode([long], pooling_params=PoolingParams(max_tokens_per_query=5), use_tqdm=False)
    fillers = whole.prompt_token_ids[-4:-2]
    assert fillers[0] == fillers[1]
    assert list(cut.prompt_token_ids).count(fillers[0]) == 10
    assert len(cut.prompt_token_ids) < len(whole.prompt_token_ids) + 10
    [fits] = llm.encode([long], pooling_params=PoolingParams(truncate_prompt_tokens=-1), use_tqdm=False)
    assert list(fits.prompt_token_ids).count(fillers[0]) == 10
    assert 500 <= len(fits.prompt_token_ids) <= 512


def test_a_text_is_no_document_of_a_model_that_searches_images(load):
    llm = load("colpali")
    with pytest.raises((RequestError, BatchError)) as caught:
        llm.score(QUERY, ["a text"], use_tqdm=False)
    assert "reads texts as queries alone. Send documents of modality image." in str(caught.value)


def test_a_cross_encoder_says_that_it_reads_no_images(checkpoint):
    folder = str(checkpoint("bert", head="ForSequenceClassification", sentence_transformers=False, num_labels=1))
    with LLM(folder, dtype="float32") as llm, pytest.raises(RequestError) as caught:
        llm.score(QUERY, pictures(), use_tqdm=False)
    assert str(caught.value) == (
        "The served model scores texts alone, and one of the inputs is of modality 'image'. Send texts."
    )
