"""Token embeddings are transformers' last hidden states, cut and normalised."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers

from checkpoints import WIDTH, real_texts
from closeness import assert_close
from poolkit import LLM, PoolingParams, create_app
from poolkit.errors import RequestError
from serving import ask

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = [text[:300] for text in real_texts(30)]
TOLERANCE = 1e-5
"""The promise of fidelity.md for vectors; sums in another order differ by 1e-6 at most here."""


@pytest.fixture(scope="module")
def folder(checkpoint):
    return checkpoint("bert", sentence_transformers=False, is_matryoshka=True)


@pytest.fixture(scope="module")
def llm(folder):
    with LLM(str(folder), task="token_embed", dtype="float32") as llm:
        yield llm


@pytest.fixture(scope="module")
def expected(folder):
    """The hidden states of each text's tokens."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        return [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0] for text in TEXTS]


@pytest.mark.parametrize("dimensions", [None, 16])
@pytest.mark.parametrize("use_activation", [None, False])
def test_each_token_has_its_vector(llm, expected, dimensions, use_activation):
    params = PoolingParams(dimensions=dimensions, use_activation=use_activation)
    outputs = llm.encode(TEXTS, pooling_task="token_embed", pooling_params=params, use_tqdm=False)
    for output, hidden in zip(outputs, expected, strict=True):
        rows = hidden[:, :dimensions]
        if use_activation is None:
            rows = torch.nn.functional.normalize(rows, dim=-1)
        assert output.outputs.data.shape == (len(output.prompt_token_ids), dimensions or WIDTH)
        np.testing.assert_allclose(output.outputs.data, rows, atol=TOLERANCE)


def test_pooling_answers_the_same(llm):
    [output] = llm.encode("A cat.", use_tqdm=False)
    app = create_app(llm)
    [item] = ask(app, "POST", "/pooling", json={"input": "A cat.", "task": "token_embed"}).json()["data"]
    assert_close(item["data"], output.outputs.data)


def test_an_embedder_gives_one_vector_a_text_unless_asked_for_more(folder):
    with LLM(str(folder)) as llm:
        assert llm.supported_tasks == ("embed",)


def test_a_parameter_that_the_task_does_not_know_is_refused_with_those_that_it_does(llm):
    with pytest.raises(RequestError) as error:
        llm.encode("a", pooling_params=PoolingParams(step_tag_id=3), use_tqdm=False)
    assert str(error.value) == (
        "The task 'token_embed' does not know step_tag_id. It knows dimensions, use_activation, "
        "truncate_prompt_tokens, truncation_side, max_tokens_per_query, max_tokens_per_doc, add_special_tokens, "
        "prompt_name, input_type."
    )


WHOLE = "Berlin is old. The city has parks."
CHUNKS = [(0, 14), (15, 34), (0, 34)]


def test_late_chunking_averages_the_vectors_of_the_tokens_in_each_chunk(llm, folder):
    model = transformers.AutoModel.from_pretrained(folder).eval()
    features = transformers.AutoTokenizer.from_pretrained(folder)(
        WHOLE, return_tensors="pt", return_offsets_mapping=True
    )
    offsets = features.pop("offset_mapping")[0].tolist()
    with torch.inference_mode():
        hidden = model(**features).last_hidden_state[0]
    expected = torch.stack(
        [
            hidden[[start < stop and start >= first and stop <= last for start, stop in offsets]].mean(dim=0)
            for first, last in CHUNKS
        ]
    )
    response = llm.run("late_chunking", {"text": WHOLE, "chunks": CHUNKS}, use_tqdm=False)
    normalized = torch.nn.functional.normalize(expected, dim=-1)
    np.testing.assert_allclose(response.embeddings, normalized, atol=TOLERANCE)
    raw = llm.run("late_chunking", {"text": WHOLE, "chunks": CHUNKS, "use_activation": False}, use_tqdm=False)
    np.testing.assert_allclose(raw.embeddings, expected, atol=TOLERANCE)
    assert response.usage.prompt_tokens == len(offsets)


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([[0, 14], [30, 99]], "chunks[1] is 30 to 99; the text has characters 0 to 34."),
        ([[5, 5]], "chunks[0] is 5 to 5; the text has characters 0 to 34."),
    ],
)
def test_a_chunk_outside_of_the_text_is_refused(llm, chunks, message):
    with pytest.raises(RequestError) as caught:
        llm.run("late_chunking", {"text": WHOLE, "chunks": chunks}, use_tqdm=False)
    assert str(caught.value) == message


def test_a_chunk_without_a_token_is_refused(llm, folder):
    with pytest.raises(RequestError) as caught:
        llm.run("late_chunking", {"text": WHOLE, "chunks": [[0, 6], [14, 15]]}, use_tqdm=False)
    assert str(caught.value) == (
        f"No token of the text lies in chunks[1], as {folder} reads it. Leave that chunk out, or join it to another."
    )
