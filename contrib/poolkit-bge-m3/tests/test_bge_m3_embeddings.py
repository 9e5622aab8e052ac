"""The three embeddings are those of a plain transformers computation, and come from one forward pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from m3_reference import COLBERT_WIDTH, Expected, reference, texts
from poolkit_bge_m3 import EmbeddingsM3Response

from poolkit import LLM

TOLERANCE = 1e-5
"""In a packed batch the same float32 sums are added up in another order than for a text alone."""

ALL = {"return_dense": True, "return_sparse": True, "return_multi_vector": True}


@pytest.fixture(scope="module")
def expected(m3: Path) -> list[Expected]:
    return reference(m3, texts())


@pytest.fixture(params=["packed", "padded"])
def llm(request: pytest.FixtureRequest, m3: Path):
    with LLM(
        str(m3),
        task="bge_m3",
        enable=["poolkit-bge-m3"],
        dtype="float32",
        device="cpu",
        batching=request.param,
        max_num_batched_tokens=1024,
    ) as llm:
        yield llm


def ask(llm: LLM, inputs: list[str], **fields: object) -> EmbeddingsM3Response:
    fields = {"input": inputs, "truncate_prompt_tokens": -1, **fields}
    response = llm.run("embeddings_m3", fields, use_tqdm=False)
    assert isinstance(response, EmbeddingsM3Response)
    return response


def assert_same_weights(ours: dict[str, float], theirs: dict[str, float]) -> None:
    # A weight that is 0 up to rounding may be there or not.
    assert all(weight > 0 for weight in ours.values())
    assert ours | dict.fromkeys(theirs.keys() - ours.keys(), 0.0) == pytest.approx(
        theirs | dict.fromkeys(ours.keys() - theirs.keys(), 0.0), abs=TOLERANCE
    )


def test_all_three_are_what_plain_transformers_gives(llm, expected):
    ours = ask(llm, texts(), **ALL).data

    assert len(ours) == len(expected)
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(one.dense, other.dense, rtol=0, atol=TOLERANCE)
        assert_same_weights(one.sparse, other.sparse)
        np.testing.assert_allclose(one.multi_vector, other.multi_vector, rtol=0, atol=TOLERANCE)
        assert one.multi_vector.shape[1] == COLBERT_WIDTH


def test_the_comparison_says_something(expected):
    dense = np.stack([one.dense for one in expected])
    similarities = dense @ dense.T - 2 * np.eye(len(dense))
    assert similarities.max() < 1 - 100 * TOLERANCE
    assert sum(len(one.sparse) for one in expected) > 100
    assert any(len(one.sparse) < len(one.multi_vector) - 1 for one in expected)


def test_a_text_in_many_kinds_is_one_forward_pass(llm, monkeypatch):
    from transformers import XLMRobertaModel

    passes = []
    forward = XLMRobertaModel.forward

    def counted(self: XLMRobertaModel, *args: object, **kwargs: object) -> object:
        passes.append(kwargs["input_ids"].shape)
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(XLMRobertaModel, "forward", counted)
    response = ask(llm, ["to be or not to be"], **ALL)

    assert passes == [(1, response.usage.prompt_tokens)]
    [one] = response.data
    assert all(kind is not None for kind in (one.dense, one.sparse, one.multi_vector))


@pytest.mark.parametrize("kind", ["dense", "sparse", "multi_vector"])
def test_only_what_is_asked_is_returned(llm, expected, kind):
    wishes = {f"return_{name}": name == kind for name in ("dense", "sparse", "multi_vector")}

    for one, other in zip(ask(llm, texts(), **wishes).data, expected, strict=True):
        for name in ("dense", "sparse", "multi_vector"):
            if name != kind:
                assert getattr(one, name) is None
        if kind == "sparse":
            assert_same_weights(one.sparse, other.sparse)
        else:
            np.testing.assert_allclose(getattr(one, kind), getattr(other, kind), rtol=0, atol=TOLERANCE)


def test_a_vector_is_returned_where_nothing_else_is_asked(llm, expected):
    [one] = ask(llm, texts()[:1]).data

    np.testing.assert_allclose(one.dense, expected[0].dense, rtol=0, atol=TOLERANCE)
    assert (one.sparse, one.multi_vector) == (None, None)


def test_special_tokens_have_vectors_but_no_weights(llm, m3):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(m3)
    text = "a <mask> b <unk> c </s> d"
    ids = tokenizer(text)["input_ids"]
    [one] = ask(llm, [text], **ALL).data

    assert len(one.multi_vector) == len(ids) - 1
    assert {"0", "1", "2", "3"}.isdisjoint(one.sparse)
    assert {str(token_id) for token_id in ids} >= one.sparse.keys()


def test_a_word_said_twice_has_its_highest_weight(llm, m3):
    text = "to be or not to be"
    weights = _token_weights(m3, text)
    [one] = ask(llm, [text], return_sparse=True).data

    assert any(len(values) > 1 and max(values) - min(values) > 1e-3 for values in weights.values())
    assert_same_weights(one.sparse, {key: max(values) for key, values in weights.items()})


@torch.no_grad()
def _token_weights(folder: Path, text: str) -> dict[str, list[float]]:
    """Return the weights above zero of each token id at all of its places."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    state = torch.load(folder / "sparse_linear.pt", weights_only=True)
    encoded = tokenizer(text, return_tensors="pt")
    hidden = AutoModel.from_pretrained(folder).eval()(**encoded).last_hidden_state[0]
    weights = hidden @ state["weight"][0] + state["bias"]
    found: dict[str, list[float]] = {}
    for token_id, weight in zip(encoded["input_ids"][0].tolist()[1:-1], weights.tolist()[1:-1], strict=True):
        if weight > 0 and token_id != tokenizer.unk_token_id:
            found.setdefault(str(token_id), []).append(weight)
    return found
