"""Scores are sentence-transformers': by bi-encoder, cross-encoder and late interaction, offline and over HTTP."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer
from sentence_transformers.util import pairwise_cos_sim

from checkpoints import real_texts, write_json
from closeness import assert_close, assert_ranks
from poolkit import LLM, PoolerConfig, PoolingParams, create_app
from poolkit.errors import BatchError, RequestError
from serving import ask, fake_model

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = [text[:300] for text in real_texts(40) if text.strip("\0 ")]
QUERIES, DOCUMENTS = TEXTS[:12], TEXTS[12:24]
TOLERANCE = 1e-5
"""The promise for what follows from vectors; sums in another order differ by 3e-6 at most here."""
LOGIT_TOLERANCE = 1e-4
"""The promise for what follows from logits; less than 1e-6 here."""

SCORERS = ("embed", "classify", "token_embed")


@pytest.fixture(scope="module")
def folders(checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a checkpoint for the scorer of each task."""
    multi_vector = tmp_path_factory.mktemp("multi_vector")
    plain = checkpoint("bert", sentence_transformers=False)
    MultiVectorEncoder(str(plain), device="cpu").save_pretrained(str(multi_vector))
    return {
        "embed": checkpoint("bert"),
        "classify": checkpoint("bert", head="ForSequenceClassification", sentence_transformers=False, num_labels=1),
        "token_embed": multi_vector,
    }


@pytest.fixture(scope="module")
def models(folders: dict[str, Path]) -> Iterator[dict[str, LLM]]:
    loaded = {task: LLM(str(folder), task=task, dtype="float32") for task, folder in folders.items()}
    yield loaded
    for llm in loaded.values():
        llm.close()


def scores(llm: LLM, queries: object, documents: object, **arguments: object) -> list[float]:
    return [output.outputs.score for output in llm.score(queries, documents, use_tqdm=False, **arguments)]


def with_settings(folder: Path, copy: Path, **settings: object) -> Path:
    """Return a copy of a checkpoint whose config_sentence_transformers.json holds these settings."""
    shutil.copytree(folder, copy)
    write_json(copy / "config_sentence_transformers.json", settings)
    return copy


def expected_scores(task: str, folder: Path) -> np.ndarray:
    """Return what sentence-transformers scores every query with every document. (queries, documents)"""
    if task == "classify":
        rows = [[(query, document) for document in DOCUMENTS] for query in QUERIES]
        model = CrossEncoder(str(folder), device="cpu")
        return np.stack([model.predict(row) for row in rows])
    kind = {"embed": SentenceTransformer, "token_embed": MultiVectorEncoder}[task]
    model = kind(str(folder), device="cpu")
    queries, documents = model.encode_query(QUERIES), model.encode_document(DOCUMENTS)
    return model.similarity(queries, documents).numpy()


@pytest.mark.parametrize("task", SCORERS)
def test_scores_are_those_of_sentence_transformers_in_every_shape(models, folders, task):
    llm, expected = models[task], expected_scores(task, folders[task])
    assert expected.std() > 0.005  # the pairs differ by far more than what is allowed
    tolerance = LOGIT_TOLERANCE if task == "classify" else TOLERANCE
    for query, row in zip(QUERIES, expected, strict=True):
        np.testing.assert_allclose(scores(llm, query, DOCUMENTS), row, atol=tolerance)
    np.testing.assert_allclose(scores(llm, QUERIES, DOCUMENTS), expected.diagonal(), atol=tolerance)
    np.testing.assert_allclose(scores(llm, QUERIES[3], DOCUMENTS[5]), [expected[3, 5]], atol=tolerance)
    np.testing.assert_allclose(scores(llm, [QUERIES[3]], [DOCUMENTS[5]]), [expected[3, 5]], atol=tolerance)


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan"])
@pytest.mark.parametrize("normalize", [True, False], ids=["normalised", "raw"])
def test_vectors_are_compared_as_the_models_files_say(checkpoint, tmp_path, name, normalize):
    folder = with_settings(checkpoint("bert", normalize=normalize), tmp_path / "model", similarity_fn_name=name)
    expected = expected_scores("embed", folder)
    with LLM(str(folder), dtype="float32") as llm:
        found = [scores(llm, query, DOCUMENTS) for query in QUERIES]
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_queries_and_documents_get_the_models_own_prompts(checkpoint, tmp_path):
    prompts = {"query": "find: ", "document": "passage: "}
    folder = with_settings(checkpoint("bert"), tmp_path / "model", prompts=prompts)
    expected = expected_scores("embed", folder)
    assert np.abs(expected - expected_scores("embed", checkpoint("bert"))).max() > 0.01
    with LLM(str(folder), dtype="float32") as llm:
        found = [scores(llm, query, DOCUMENTS) for query in QUERIES]
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)


@pytest.mark.parametrize("flash", [True, False])
def test_maxsim_is_a_mean_where_the_models_files_say_so(folders, tmp_path, flash):
    model = MultiVectorEncoder(str(folders["token_embed"]), device="cpu", similarity_fn_name="meanmaxsim")
    model.save_pretrained(str(tmp_path))
    expected = expected_scores("token_embed", tmp_path)
    pooler = PoolerConfig(enable_flash_late_interaction=flash)
    with LLM(str(tmp_path), task="token_embed", dtype="float32", pooler_config=pooler) as llm:
        np.testing.assert_allclose(scores(llm, QUERIES, DOCUMENTS), expected.diagonal(), atol=TOLERANCE)


@pytest.mark.parametrize("task", SCORERS)
def test_rerank_sorts_documents_by_their_scores(models, task):
    found = models[task].rerank(QUERIES[0], DOCUMENTS, use_tqdm=False)
    by_index = scores(models[task], QUERIES[0], DOCUMENTS)
    assert len(found) == len(DOCUMENTS)
    assert_ranks([(one.index, one.relevance_score) for one in found], by_index)
    assert [one.document for one in found] == [DOCUMENTS[one.index] for one in found]


def test_rerank_returns_so_many_as_are_wanted_and_equals_in_their_order():
    documents = ["b", "a", "b", "a", "b"]
    with fake_model("embed") as served:
        llm_answer = served.run("rerank", request("rerank", served, query="a", documents=documents))
        assert [one.index for one in llm_answer.results] == [1, 3, 0, 2, 4]
        for top_n, count in ((2, 2), (9, 5), (0, 5)):
            answer = served.run("rerank", request("rerank", served, query="a", documents=documents, top_n=top_n))
            assert len(answer.results) == count


def request(operation: str, served, **fields: object):
    return served.operations[operation].operation.request(**fields)


def token_ids(llm: LLM, text: str) -> list[int]:
    return list(llm.encode(text, use_tqdm=False)[0].prompt_token_ids)


def test_a_shared_query_runs_and_counts_once(models):
    llm = models["embed"]
    query, documents = token_ids(llm, QUERIES[0]), [token_ids(llm, text) for text in DOCUMENTS]
    response = llm.run("score", {"queries": QUERIES[0], "documents": DOCUMENTS}, use_tqdm=False)
    assert [ids.tolist() for ids in response.prompt_token_ids] == [[*query, *document] for document in documents]
    assert response.usage.prompt_tokens == len(query) + sum(map(len, documents))
    pairwise = llm.run("score", {"queries": [QUERIES[0]] * 12, "documents": DOCUMENTS}, use_tqdm=False)
    assert pairwise.usage == response.usage


def test_a_query_that_is_read_in_two_ways_runs_twice(models):
    llm = models["embed"]
    params = [PoolingParams(max_tokens_per_query=count, max_tokens_per_doc=5) for count in (2, 2, 3)]
    outputs = llm.score(TEXTS[30], DOCUMENTS[:3], pooling_params=params, use_tqdm=False)
    expected = [
        scores(llm, TEXTS[30], document, max_tokens_per_query=count, max_tokens_per_doc=5)[0]
        for document, count in zip(DOCUMENTS, (2, 2, 3), strict=False)
    ]
    np.testing.assert_allclose([output.outputs.score for output in outputs], expected, atol=TOLERANCE)
    fields = {"queries": TEXTS[30], "documents": DOCUMENTS[:3], "pooling_params": params}
    usage = llm.run("score", fields, use_tqdm=False).usage
    documents = sum(min(5, len(token_ids(llm, text)) - 2) + 2 for text in DOCUMENTS[:3])
    assert usage.prompt_tokens == (2 + 2) + (3 + 2) + documents


def test_a_cross_encoder_reads_the_query_with_each_document(models):
    response = models["classify"].run("score", {"queries": QUERIES[0], "documents": DOCUMENTS}, use_tqdm=False)
    assert response.usage.prompt_tokens == sum(map(len, response.prompt_token_ids))
    query = token_ids(models["classify"], QUERIES[0])
    assert all(ids[: len(query)].tolist() == query for ids in response.prompt_token_ids)


@pytest.mark.parametrize("task", SCORERS)
def test_queries_and_documents_are_cut_each_to_its_own_length(models, task):
    llm = models[task]
    [whole] = llm.score(TEXTS[30], TEXTS[31], use_tqdm=False)
    [cut] = llm.score(TEXTS[30], TEXTS[31], max_tokens_per_query=3, max_tokens_per_doc=4, use_tqdm=False)
    special = 3 if task == "classify" else 4
    assert len(cut.prompt_token_ids) <= 3 + 4 + special + 2  # a multi-vector model has markers of its own
    assert len(cut.prompt_token_ids) < len(whole.prompt_token_ids)
    assert abs(cut.outputs.score - whole.outputs.score) > TOLERANCE


def test_a_cross_encoders_logits_are_shifted_and_scaled_before_they_are_activated(models, folders):
    raw = scores(models["classify"], QUERIES, DOCUMENTS, pooling_params=PoolingParams(use_activation=False))
    shifted = (np.array(raw) - 0.25) / 2
    pooler = PoolerConfig(logit_mean=0.25, logit_sigma=2)
    with LLM(str(folders["classify"]), dtype="float32", pooler_config=pooler) as llm:
        np.testing.assert_allclose(scores(llm, QUERIES, DOCUMENTS), 1 / (1 + np.exp(-shifted)), atol=1e-6)


@pytest.mark.parametrize("task", SCORERS)
def test_nothing_to_score_gives_nothing(models, task):
    assert models[task].score("a", [], use_tqdm=False) == []
    assert models[task].score([], [], use_tqdm=False) == []
    assert models[task].rerank("a", [], use_tqdm=False) == []


@pytest.mark.parametrize("task", SCORERS)
@pytest.mark.parametrize(("queries", "documents"), [(2, 3), (0, 1), (3, 1)])
def test_other_numbers_of_queries_and_documents_are_refused(models, task, queries, documents):
    with pytest.raises(RequestError) as error:
        models[task].score(QUERIES[:queries], DOCUMENTS[:documents], use_tqdm=False)
    assert str(error.value) == (
        f"Input lengths must be either 1:1, 1:N or N:N; there are {queries} queries and {documents} documents."
    )


@pytest.mark.parametrize("task", SCORERS)
def test_an_instruction_is_refused_where_no_template_has_a_place_for_it(models, folders, task):
    with pytest.raises(RequestError) as error:
        models[task].rerank("a", ["b"], instruction="Find it.", use_tqdm=False)
    assert str(error.value) == (
        f"{folders[task]} reads queries and documents without a template that has a place for an instruction. "
        "Leave it out."
    )
    assert error.value.param == "instruction"


def test_parameters_for_another_number_of_pairs_are_refused(models):
    with pytest.raises(RequestError) as error:
        models["embed"].score("a", ["b", "c"], pooling_params=[PoolingParams()] * 3, use_tqdm=False)
    assert str(error.value).startswith("pooling_params has 3 items for 2 prompts.")


def test_a_classifier_with_more_labels_than_one_does_not_score(checkpoint):
    folder = checkpoint("bert", head="ForSequenceClassification", sentence_transformers=False, num_labels=3)
    with LLM(str(folder), dtype="float32") as llm, pytest.raises(RequestError) as error:
        llm.score("a", "b", use_tqdm=False)
    assert str(error.value) == (
        f"{folder} has 3 labels, and only a model with one label can score pairs. Ask it to classify, or serve another "
        "model."
    )


def test_a_bad_pair_fails_alone_where_each_pair_is_a_prompt(models):
    documents = [DOCUMENTS[0], "cat " * 2000, DOCUMENTS[1]]
    with pytest.raises(BatchError) as error:
        models["classify"].score(QUERIES[0], documents, use_tqdm=False)
    assert list(error.value.errors) == [1]
    first, missing, third = error.value.outputs
    kept = [first.outputs.data.item(), third.outputs.data.item()]
    np.testing.assert_allclose(kept, scores(models["classify"], QUERIES[0], DOCUMENTS[:2]), atol=TOLERANCE)
    assert missing is None
    with pytest.raises(RequestError, match=r"^Prompt 1 has \d+ tokens") as refusal:
        models["classify"].rerank(QUERIES[0], documents, use_tqdm=False)
    assert not isinstance(refusal.value, BatchError)


@pytest.fixture(scope="module")
def apps(models: dict[str, LLM]) -> dict:
    return {task: create_app(llm) for task, llm in models.items()}


@pytest.mark.parametrize("task", SCORERS)
@pytest.mark.parametrize(
    "sides", [("queries", "documents"), ("queries", "items"), ("data_1", "data_2"), ("text_1", "text_2")]
)
def test_the_route_gives_the_same_scores_in_every_spelling(models, apps, folders, task, sides):
    body = dict(zip(sides, (QUERIES[0], DOCUMENTS), strict=True))
    answer = ask(apps[task], "POST", "/score", json={**body, "model": str(folders[task]), "unknown": 1}).json()
    assert answer["id"].startswith("score-")
    assert (answer["object"], answer["model"]) == ("list", str(folders[task]))
    assert [(one["index"], one["object"]) for one in answer["data"]] == [(i, "score") for i in range(len(DOCUMENTS))]
    assert_close([one["score"] for one in answer["data"]], scores(models[task], QUERIES[0], DOCUMENTS))
    usage = models[task].run("score", {"queries": QUERIES[0], "documents": DOCUMENTS}, use_tqdm=False).usage
    assert answer["usage"] == usage.model_dump()


@pytest.mark.parametrize("task", SCORERS)
@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank", "/tasks/{task}/rerank"])
def test_the_route_sorts_as_offline(models, apps, task, path):
    body = {"query": QUERIES[0], "documents": DOCUMENTS, "top_n": 5}
    answer = ask(apps[task], "POST", path.format(task=task), json=body).json()
    found = models[task].rerank(QUERIES[0], DOCUMENTS, top_n=5, use_tqdm=False)
    assert len(answer["results"]) == len(found) == 5
    expected = scores(models[task], QUERIES[0], DOCUMENTS)
    assert_ranks([(one["index"], one["relevance_score"]) for one in answer["results"]], expected)
    assert_ranks([(one.index, one.relevance_score) for one in found], expected)


def test_rerank_answers_as_jina_does(apps, folders):
    body = {"query": "a", "documents": ["b", {"text": "c d"}], "top_n": 1, "model": str(folders["embed"])}
    answer = ask(apps["embed"], "POST", "/v1/rerank", json=body).json()
    assert sorted(answer) == ["id", "model", "results", "usage"]
    [result] = answer["results"]
    assert sorted(result) == ["document", "index", "relevance_score"]
    assert result["document"] == {"text": ["b", "c d"][result["index"]]}
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] == 3 + 3 + 4
    bare = ask(apps["embed"], "POST", "/v1/rerank", json={**body, "return_documents": False}).json()
    [alone] = bare["results"]
    score = pytest.approx(result["relevance_score"], abs=TOLERANCE)
    assert alone == {"index": result["index"], "relevance_score": score}


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        (
            "/score",
            {"queries": "a", "data_2": "b"},
            "The two sides must be queries and documents, or queries and items, or data_1 and data_2, or text_1 and "
            "text_2; this request has queries and data_2.",
        ),
        (
            "/score",
            {"text_1": "a"},
            "The two sides must be queries and documents, or queries and items, or data_1 and data_2, or text_1 and "
            "text_2; this request has text_1.",
        ),
        (
            "/score",
            {"querys": "a", "documents": ["b"]},
            "The two sides must be queries and documents, or queries and items, or data_1 and data_2, or text_1 and "
            "text_2; this request has documents. Did you mean 'queries'?",
        ),
        (
            "/score",
            {"text_1": "a", "text_2": ["b", 1]},
            "text_2[1] must be a string or an object of another modality such as {image}, got 1.",
        ),
        (
            "/score",
            {"text_1": "a", "text_2": []},
            "There is nothing to score. Send at least one query and one document.",
        ),
        ("/rerank", {"query": "a", "documents": []}, "documents is empty. Send at least one document."),
        (
            "/rerank",
            {"query": "a", "documents": ["b"], "top_n": -1},
            "top_n must be greater than or equal to 0, got -1.",
        ),
        (
            "/rerank",
            {"query": "a", "documents": ["b", 3]},
            "documents[1] must be a string or an object of another modality such as {image}, got 3.",
        ),
        (
            "/rerank",
            {"query": "a", "documents": [{"body": "b"}]},
            "documents[0] must be a string or {image}, got an object with 'body'.",
        ),
        ("/rerank", {"documents": ["b"]}, "query is required."),
    ],
)
def test_a_wrong_request_is_told_in_the_clients_words(apps, path, body, message):
    response = ask(apps["embed"], "POST", path, json=body)
    assert response.json()["error"]["message"] == message
    assert response.status_code == 400


def test_a_task_that_does_not_score_says_what_would():
    with fake_model("token_classify") as served:
        response = ask(create_app(served), "POST", "/rerank", json={"query": "a", "documents": ["b"]})
    assert response.status_code == 400
    assert response.json()["error"]["message"].endswith(
        "Restart it with --task embed or --task classify or --task token_embed."
    )


def test_a_pair_scores_what_its_vectors_say(models):
    first, second = (models["embed"].embed(text, use_tqdm=False)[0].outputs.embedding for text in TEXTS[:2])
    [score] = scores(models["embed"], TEXTS[0], TEXTS[1])
    assert abs(score - float(pairwise_cos_sim(first[None], second[None]))) <= TOLERANCE
