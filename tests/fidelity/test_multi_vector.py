"""Multi-vector models answer what sentence-transformers' MultiVectorEncoder answers, whoever saved them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Normalize
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

from checkpoints import WIDTH, real_texts, write_json
from engines import TOLERANCE, decision, encode_prompts, load_encoder, load_engine, make_task
from multi_vector import MISSING, PUNCTUATION, QUERIES, QUERY_LENGTH, dense, save_native, save_pylate, save_stanford
from poolkit.contract import Activation, EncodedPrompt, Output, PoolingParams
from poolkit.errors import ModelError
from reading import read

pytestmark = pytest.mark.usefixtures("one_thread")

TOKEN_EMBED = make_task(Output.TOKEN_VECTORS, Activation.NORMALIZE)


def texts():
    """Real texts, full of punctuation."""
    return [*real_texts(60), "No... wait!? (a, b), [c]; {d}: e/f."]


def answer(folder, texts, input_type, *, size=1000, **settings):
    engine = load_engine(folder, task=TOKEN_EMBED, **settings)
    params = [PoolingParams(input_type=input_type, truncate_prompt_tokens=-1)] * len(texts)
    encoded = encode_prompts(load_encoder(folder), texts, params, first_index=0)
    assert all(isinstance(prompt, EncodedPrompt) for prompt in encoded)
    blocks = [encoded[start : start + size] for start in range(0, len(encoded), size)]
    return engine, [output.data for block in blocks for output in engine.forward(block)]


def difference(actual, expected):
    assert [array.shape for array in actual] == [array.shape for array in expected]
    return max(float(np.abs(one - other).max()) for one, other in zip(actual, expected, strict=True) if one.size)


def check(folder, *, path="packed"):
    """Queries and documents give the reference's vectors, packed and padded, together and a few at a time."""
    reference = MultiVectorEncoder(str(folder), device="cpu")
    wanted = {
        "query": (list(QUERIES), reference.encode_query(list(QUERIES), convert_to_numpy=True)),
        "document": (texts(), reference.encode_document(texts(), convert_to_numpy=True)),
    }
    for input_type, (prompts, expected) in wanted.items():
        engine, vectors = answer(folder, prompts, input_type)
        assert decision(engine, "path")[0] == path
        assert difference(vectors, expected) <= TOLERANCE
        assert difference(answer(folder, prompts, input_type, size=3)[1], expected) <= TOLERANCE
        assert difference(answer(folder, prompts, input_type, batching="padded")[1], expected) <= TOLERANCE
    return {input_type: expected for input_type, (_, expected) in wanted.items()}


@pytest.mark.parametrize("attends", [False, True], ids=["unattended", "attended"])
@pytest.mark.parametrize("family", ["bert", "modernbert", "roberta", "mpnet", "qwen3"])
def test_a_native_model_answers_as_multi_vector_encoder_does(tmp_path, family, attends):
    expansion = {"strategy": "fixed", "attend": attends, "length": QUERY_LENGTH}
    folder = save_native(tmp_path, family, query_expansion=expansion, mask=MultiVectorMask(PUNCTUATION))
    expected = check(folder)
    assert {len(vectors) for vectors in expected["query"]} == {QUERY_LENGTH}


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_long_queries_pass_where_the_fillers_only_set_a_least_length(tmp_path, family):
    folder = save_native(tmp_path, family, query_expansion={"strategy": "min", "length": 8}, query_length=24)
    lengths = {len(vectors) for vectors in check(folder)["query"]}
    assert min(lengths) == 8
    assert 8 < max(lengths) <= 24


def test_several_dense_layers_with_residuals_answer_as_in_multi_vector_encoder(tmp_path):
    layers = (
        dense(WIDTH, WIDTH, use_residual=True, activation_function=torch.nn.GELU()),
        Normalize(module_input_name="token_embeddings"),
        dense(WIDTH, 24, use_residual=True),
        dense(24, 16, bias=False),
    )
    mask = MultiVectorMask(["the", ",", "."], skiplist_tasks=["query", "document"])
    check(save_native(tmp_path, "bert", modules=layers, mask=mask, prompts={}))


def test_only_the_kept_tokens_of_a_document_are_answered(tmp_path):
    folder = save_native(tmp_path, "bert", mask=MultiVectorMask(keep_only_token_ids=[2, 3, 40, 41, 42, 43]))
    shortest = min(len(vectors) for vectors in check(folder)["document"])
    assert shortest == 2


@pytest.mark.parametrize("attends", [False, True], ids=["unattended", "attended"])
@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_a_model_of_pylate_answers_as_in_multi_vector_encoder(tmp_path, family, attends):
    folder = save_pylate(tmp_path, family, layers=2, attend_to_expansion_tokens=attends)
    expected = check(folder)
    assert {len(vectors) for vectors in expected["query"]} == {QUERY_LENGTH}


def test_a_model_of_pylate_without_expansion_answers_as_in_multi_vector_encoder(tmp_path):
    expected = check(save_pylate(tmp_path, "bert", do_query_expansion=False, skiplist_words=[], query_length=12))
    assert max(len(vectors) for vectors in expected["query"]) <= 12


def test_an_old_model_of_pylate_that_names_no_type_answers_as_in_multi_vector_encoder(tmp_path):
    check(save_pylate(tmp_path, "bert", model_type=MISSING, skiplist_words=MISSING))


METADATA = {"dim": 16, "query_maxlen": 24, "doc_maxlen": 60, "mask_punctuation": True, "attend_to_mask_tokens": False}


@pytest.mark.parametrize("metadata", [None, METADATA, {**METADATA, "mask_punctuation": False, "query_token_id": "[Q]"}])
def test_a_checkpoint_of_stanford_answers_as_in_multi_vector_encoder(tmp_path, metadata):
    check(save_stanford(tmp_path, "bert", metadata=metadata))


def test_a_checkpoint_of_stanford_with_another_base_answers_as_in_multi_vector_encoder(tmp_path):
    check(save_stanford(tmp_path, "xlm_roberta", metadata=METADATA))


def test_a_token_vector_model_is_served_for_its_token_vectors(tmp_path):
    folder = save_pylate(tmp_path, "bert")
    info = read(folder)
    assert info.outputs == (Output.TOKEN_VECTORS, Output.HIDDEN)
    assert info.token_vector_size == 24
    assert (info.max_model_len, info.longest("query"), info.longest(None)) == (90, 32, 90)
    report = {decision.name: (decision.value, decision.source) for decision in info.decisions}
    said = "config_sentence_transformers.json"
    assert report["max length"] == ("32 tokens a query, 90 a document", said)
    assert report["query expansion"] == ("to 32 tokens with [MASK], not seen by the query's own", said)
    assert report["skiplist"] == ("32 tokens in every document", said)
    assert report["pooling"] == ("none: each token has its vector", said)
    assert report["token layer"] == ("48 to 24, Identity", "1_Dense/config.json")
    assert report["similarity"] == ("maxsim", "sentence-transformers' default")
    assert report["dimensions"] == ("24", "config.json")


def test_a_query_that_is_longer_than_queries_may_be_is_refused_or_cut(tmp_path):
    folder = save_pylate(tmp_path, "bert")
    encoder = load_encoder(folder)
    long_text = "a " * 60
    [document] = encode_prompts(encoder, [long_text], [PoolingParams()], first_index=0)
    assert len(document.token_ids) == 63  # two special tokens and the marker
    [error] = encode_prompts(encoder, [long_text], [PoolingParams(input_type="query")], first_index=0)
    assert str(error) == (
        f"Prompt 0 has 63 tokens; {folder} takes at most 32. Shorten it, or set truncate_prompt_tokens=-1 to have it "
        "cut to that length."
    )
    [cut] = encode_prompts(
        encoder, [long_text], [PoolingParams(input_type="query", truncate_prompt_tokens=-1)], first_index=0
    )
    assert len(cut.token_ids) == 32
    assert cut.attention_length is None


def test_a_query_that_was_filled_up_already_gives_the_same_vectors_as_token_ids(tmp_path):
    folder = save_pylate(tmp_path, "bert")
    engine, [vectors] = answer(folder, [QUERIES[0]], "query")
    params = PoolingParams(input_type="query")
    [once] = encode_prompts(load_encoder(folder), [QUERIES[0]], [params], first_index=0)
    [twice] = encode_prompts(load_encoder(folder), [once.token_ids], [params], first_index=0)
    np.testing.assert_array_equal(twice.token_ids, once.token_ids)
    assert twice.attention_length == once.attention_length
    assert difference([engine.forward([twice])[0].data], [vectors]) <= TOLERANCE


def test_a_text_that_nobody_calls_a_query_is_a_document(tmp_path):
    folder = save_pylate(tmp_path, "bert")
    _, documents = answer(folder, texts(), "document")
    _, unsaid = answer(folder, texts(), None)
    assert difference(unsaid, documents) <= TOLERANCE


def test_a_filler_that_the_tokenizer_does_not_know_is_refused(tmp_path):
    folder = save_native(tmp_path, "bert", query_expansion={"strategy": "fixed", "length": 8})
    path = folder / "sentence_bert_config.json"
    settings = json.loads(path.read_text())
    write_json(path, {**settings, "query_expansion": {"strategy": "fixed", "length": 8, "token": "[FILL]"}})
    with pytest.raises(ModelError) as caught:
        load_encoder(folder)
    assert str(caught.value) == (
        f"{folder} fills up texts with '[FILL]', which is no token of its tokenizer in {folder}. Fetch the model again."
    )
