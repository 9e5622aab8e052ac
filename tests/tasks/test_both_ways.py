"""Every standard operation gives the same numbers offline and over HTTP, and counts the same tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from importlib_metadata import entry_points

from checkpoints import real_texts
from closeness import assert_close, assert_ranks
from poolkit import LLM, PoolingParams, create_app
from poolkit.config import ModelConfig, PluginConfig
from poolkit.pipeline.served import load_model
from serving import ask

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = [text for text in real_texts(24) if text]
QUERY, *DOCUMENTS = TEXTS
CUT = PoolingParams(truncate_prompt_tokens=-1)

SEQUENCE = {"family": "bert", "head": "ForSequenceClassification", "sentence_transformers": False}
ONE_LABEL, THREE_LABELS = {**SEQUENCE, "num_labels": 1}, {**SEQUENCE, "num_labels": 3}
TOKENS = {**THREE_LABELS, "head": "ForTokenClassification"}
EMBEDDER = {"family": "bert"}


@dataclass(frozen=True)
class Case:
    """One operation: what is asked offline, what is sent, and where the numbers are in both answers."""

    task: str
    checkpoint: dict[str, object]
    offline: Callable[[LLM], Sequence[tuple[object, Sequence[int]]]]
    path: str
    body: dict[str, object]
    online: Callable[[dict[str, object]], Sequence[object]]
    shares_query: bool = False


def pooled(llm):
    return [(one.outputs.data, one.prompt_token_ids) for one in llm.encode(TEXTS, pooling_params=CUT, use_tqdm=False)]


def pooling(task, checkpoint):
    return Case(task, checkpoint, pooled, "/pooling", {"input": TEXTS, "task": task}, data("data"))


def data(field):
    return lambda answer: [item[field] for item in answer["data"]]


def embedded(llm):
    return [
        (one.outputs.embedding, one.prompt_token_ids) for one in llm.embed(TEXTS, pooling_params=CUT, use_tqdm=False)
    ]


def classified(llm):
    return [
        (one.outputs.probs, one.prompt_token_ids) for one in llm.classify(TEXTS, pooling_params=CUT, use_tqdm=False)
    ]


def found(llm):
    outputs = llm.token_classify(TEXTS, aggregation_strategy="simple", pooling_params=CUT, use_tqdm=False)
    return [([one.score for one in output.outputs.entities], output.prompt_token_ids) for output in outputs]


def scored(llm):
    outputs = llm.score(QUERY, DOCUMENTS, pooling_params=CUT, use_tqdm=False)
    return [(one.outputs.score, one.prompt_token_ids) for one in outputs]


def scoring(task, checkpoint):
    body = {"queries": QUERY, "documents": DOCUMENTS}
    return Case(task, checkpoint, scored, "/score", body, data("score"), shares_query=task != "classify")


CASES = [
    Case("embed", EMBEDDER, embedded, "/v1/embeddings", {"input": TEXTS}, data("embedding")),
    Case("classify", THREE_LABELS, classified, "/classify", {"input": TEXTS}, data("probs")),
    Case(
        "token_classify",
        TOKENS,
        found,
        "/token_classify",
        {"input": TEXTS, "aggregation_strategy": "simple"},
        lambda answer: [[one["score"] for one in item["entities"]] for item in answer["data"]],
    ),
    pooling("embed", EMBEDDER),
    pooling("token_embed", EMBEDDER),
    pooling("classify", THREE_LABELS),
    pooling("token_classify", TOKENS),
    pooling("reward", ONE_LABEL),
    scoring("embed", EMBEDDER),
    scoring("classify", ONE_LABEL),
    scoring("token_embed", EMBEDDER),
]


RERANKERS = [("embed", EMBEDDER), ("classify", ONE_LABEL), ("token_embed", EMBEDDER)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.task} {case.path}")
def test_an_operation_gives_the_same_numbers_offline_and_online(case, checkpoint):
    folder = str(checkpoint(**case.checkpoint))
    with LLM(folder, task=case.task, dtype="float32") as llm:
        offline = case.offline(llm)
    answer = send(folder, case.task, case.path, {**case.body, "truncate_prompt_tokens": -1})

    online = case.online(answer)
    assert len(online) == len(offline)
    for (numbers, _), others in zip(offline, online, strict=True):
        assert_close(numbers, others)
    tokens = sum(len(token_ids) for _, token_ids in offline)
    if case.shares_query:
        query = count_tokens(folder, case.task)
        tokens -= (len(offline) - 1) * query
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}


@pytest.mark.parametrize(("task", "made"), RERANKERS, ids=str)
def test_reranking_gives_the_same_order_offline_and_online(task, made, checkpoint):
    folder = str(checkpoint(**made))
    with LLM(folder, task=task, dtype="float32") as llm:
        offline = llm.rerank(QUERY, DOCUMENTS, top_n=7, pooling_params=CUT, use_tqdm=False)
        scores = [one.outputs.score for one in llm.score(QUERY, DOCUMENTS, pooling_params=CUT, use_tqdm=False)]
    body = {"query": QUERY, "documents": DOCUMENTS, "top_n": 7, "truncate_prompt_tokens": -1}
    results = send(folder, task, "/rerank", body)["results"]

    assert len(offline) == len(results) == 7
    assert_ranks([(one.index, one.relevance_score) for one in offline], scores)
    assert_ranks([(one["index"], one["relevance_score"]) for one in results], scores)
    assert [one.document for one in offline] == [DOCUMENTS[one.index] for one in offline]
    assert [one["document"] for one in results] == [{"text": DOCUMENTS[one["index"]]} for one in results]


def test_late_chunking_gives_the_same_offline_and_online(checkpoint):
    folder = str(checkpoint(**EMBEDDER))
    text = "Berlin is old. The city has parks."
    body = {"text": text, "chunks": [[0, 14], [15, len(text)]]}
    with LLM(folder, task="token_embed", dtype="float32") as llm:
        offline = llm.run("late_chunking", body, use_tqdm=False)
    online = send(folder, "token_embed", "/tasks/token_embed/late_chunking", body)

    assert_close(online["embeddings"], offline.embeddings)
    assert online["usage"] == offline.usage.model_dump()


def test_no_operation_of_a_built_in_task_is_left_out():
    asked = {(case.task, case.path.rpartition("/")[2]) for case in CASES} | {("token_embed", "late_chunking")}
    asked |= {(task, "rerank") for task, _ in RERANKERS}
    for entry_point in entry_points(group="poolkit.tasks"):
        if entry_point.dist.name == "poolkit":
            offered = {(entry_point.name, operation.name) for operation in entry_point.load().operations}
            assert offered <= asked


def count_tokens(folder, task):
    with LLM(folder, task=task, dtype="float32") as llm:
        [output] = llm.encode(QUERY, use_tqdm=False)
    return len(output.prompt_token_ids)


def send(folder, task, path, body):
    served = load_model(ModelConfig(model=folder, task=task, dtype="float32"), PluginConfig())
    try:
        response = ask(create_app(served), "POST", path, json=body)
    finally:
        served.close()
    assert response.status_code == 200, response.text
    return response.json()
