"""Errors for wrong files of a multi-vector model or of its similarity."""

from __future__ import annotations

import json

import pytest

from checkpoints import make_checkpoint, write_json
from poolkit.contract import Similarity
from reading import read, refusal

SHARED = "config_sentence_transformers.json"


def edit(path, **changes):
    write_json(path, {**(json.loads(path.read_text()) if path.exists() else {}), **changes})


@pytest.fixture
def colbert(tmp_path):
    """A model as PyLate saves it, which the test may spoil."""
    folder = make_checkpoint(tmp_path / "bert", "bert", dense=20, normalize=False)
    edit(folder / "tokenizer_config.json", mask_token="[MASK]")
    listed = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "2_Dense", "type": "pylate.models.Dense.Dense"},
    ]
    write_json(folder / "modules.json", listed)
    write_json(folder / SHARED, {"query_prefix": "[Q] ", "document_prefix": "[D] ", "query_length": 32})
    return folder


@pytest.fixture
def stanford(tmp_path):
    """A checkpoint of Stanford's ColBERT but for its projection."""
    folder = make_checkpoint(tmp_path / "bert", "bert", sentence_transformers=False)
    edit(folder / "tokenizer_config.json", mask_token="[MASK]")
    edit(folder / "config.json", architectures=["HF_ColBERT"])
    return folder


def test_what_the_user_says_of_the_length_holds_for_documents(colbert):
    assert read(colbert).longest("document") == 256
    info = read(colbert, max_model_len=40)
    assert (info.longest("query"), info.longest("document"), info.max_model_len) == (32, 40, 40)
    assert read(colbert, max_model_len=400).longest("document") == 400


def test_a_length_that_queries_do_not_fit_in_is_refused(colbert):
    assert refusal(colbert, max_model_len=20) == (
        f"Queries are filled up to 32 tokens ({SHARED}), but at most 20 fit. Set max_model_len to 32 or more."
    )


def test_a_tokenizer_without_a_mask_token_cannot_fill_up_queries(colbert):
    edit(colbert / "tokenizer_config.json", mask_token=None)
    assert refusal(colbert) == (
        f"{colbert / 'tokenizer_config.json'} names no mask_token, with which this model fills up queries. Fetch the "
        "model again."
    )
    edit(colbert / "special_tokens_map.json", mask_token={"content": "[MASK]"})
    assert read(colbert).multi_vector.expansion.token == "[MASK]"


def test_an_expansion_of_another_kind_is_refused(colbert):
    edit(colbert / SHARED, query_expansion={"strategy": "double", "length": 8})
    assert refusal(colbert) == (
        f"query_expansion of the model in {colbert} is {{'strategy': 'double', 'length': 8}}; poolkit knows the "
        "strategies fixed and min."
    )
    edit(colbert / SHARED, query_expansion={"strategy": "min"})
    assert refusal(colbert) == f"query_expansion of the model in {colbert} must have a whole number length."


def test_expansion_without_its_mask_is_refused(colbert):
    edit(colbert / SHARED, model_type="MultiVectorEncoder")
    assert refusal(colbert) == (
        f"{colbert / 'modules.json'} lists no MultiVectorMask, without which query expansion is lost."
    )


def test_a_checkpoint_of_stanford_must_say_how_wide_its_vectors_are(stanford):
    assert refusal(stanford) == (
        f"{stanford} holds no model.safetensors with linear.weight, and artifact.metadata says no dim: how wide the "
        "token vectors are is unknown. Fetch the model again."
    )
    write_json(stanford / "artifact.metadata", {"dim": 128})
    assert read(stanford).token_vector_size == 128


def test_metadata_that_is_not_json_is_refused(stanford):
    (stanford / "artifact.metadata").write_text("{")
    assert refusal(stanford) == (
        f"{stanford / 'artifact.metadata'} cannot be read as JSON: Expecting property name enclosed in double quotes: "
        "line 1 column 2 (char 1). Fetch the model again."
    )


def test_weights_that_are_not_safetensors_are_refused(stanford):
    (stanford / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0no")
    assert refusal(stanford) == (
        f"{stanford / 'model.safetensors'} cannot be read as safetensors: Expecting value: line 1 column 1 (char 0). "
        "Fetch the model again."
    )


def test_a_similarity_of_another_kind_is_refused(tmp_path, colbert):
    folder = make_checkpoint(tmp_path / "other", "bert")
    write_json(folder / SHARED, {"similarity_fn_name": "cosin"})
    assert refusal(folder) == (
        f"{SHARED} has similarity_fn_name 'cosin', which poolkit does not know. Did you mean 'cosine'? It knows "
        "cosine, dot, euclidean, manhattan."
    )
    edit(colbert / SHARED, similarity_fn_name="meanmaxsim")
    assert read(colbert).vector.similarity is Similarity.MEAN_MAXSIM
    edit(colbert / SHARED, similarity_fn_name="cosine")
    assert read(colbert).vector.similarity is Similarity.MAXSIM
