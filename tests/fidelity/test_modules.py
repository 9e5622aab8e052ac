"""Every module between hidden states and vectors gives what it gives in sentence-transformers, in both schemas."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Router, Transformer
from sentence_transformers.sentence_transformer.modules import Dropout, LayerNorm, Pooling, WeightedLayerPooling

from checkpoints import WIDTH, real_texts, write_json
from engines import TOLERANCE, decision, encode_prompts, largest_difference, load_encoder, load_engine
from poolkit.contract import Decision, PoolingParams, Similarity
from poolkit.errors import ModelError
from reading import read

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = list(real_texts(40))


def drawn(module):
    """The module with weights that would show if they were lost."""
    with torch.random.fork_rng():
        torch.manual_seed(4)
        for weight in module.parameters():
            torch.nn.init.normal_(weight, mean=0.1, std=0.5)
    return module


def dense(takes, gives, **settings):
    return drawn(Dense(takes, gives, **settings))


@pytest.fixture
def bert(checkpoint):
    return str(checkpoint("bert", sentence_transformers=False))


def save(folder, *modules, is_old=False, **settings):
    """Save a model, its modules under the names of old if asked."""
    SentenceTransformer(modules=list(modules), device="cpu", **settings).save(str(folder), create_model_card=False)
    if is_old:
        listed = json.loads((folder / "modules.json").read_text())
        for entry in listed:
            entry["type"] = "sentence_transformers.models." + entry["type"].rpartition(".")[2]
        write_json(folder / "modules.json", listed)
    return folder


def answer(folder, input_type=None, **settings):
    engine = load_engine(folder, **settings)
    params = [PoolingParams(use_activation=False, truncate_prompt_tokens=-1, input_type=input_type)] * len(TEXTS)
    return [
        output.data for output in engine.forward(encode_prompts(load_encoder(folder), TEXTS, params, first_index=0))
    ]


def assert_alike(actual, expected):
    """Numbers larger than 1, which vectors have before they are normalised, may be off in proportion."""
    assert largest_difference(actual, expected) <= TOLERANCE * max(1.0, float(abs(expected).max()))


def check(folder, *, path="packed"):
    """All texts give the reference's vectors, packed and padded."""
    expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    assert decision(load_engine(folder), "path")[0] == path
    assert_alike(answer(folder), expected)
    assert_alike(answer(folder, batching="padded"), expected)


@pytest.mark.parametrize("is_old", [True, False], ids=["old", "new"])
def test_layers_after_pooling_run_in_their_order(tmp_path, bert, is_old):
    folder = save(
        tmp_path,
        Transformer(bert),
        Pooling(WIDTH, "mean"),
        Normalize(),
        dense(WIDTH, 24),
        Dropout(0.5),
        drawn(LayerNorm(24)),
        dense(24, 20, use_residual=True, activation_function=torch.nn.GELU()),
        dense(20, 20, use_residual=True, bias=False),
        is_old=is_old,
    )
    check(folder)
    info = read(folder)
    assert (info.embedding_size, info.token_vector_size, info.pooling.normalizes) == (20, WIDTH, False)
    assert [one for one in info.decisions if one.name == "layer"] == [
        Decision("layer", "Normalize", "2_Normalize/config.json"),
        Decision("layer", "48 to 24, Tanh", "3_Dense/config.json"),
        Decision("layer", "LayerNorm of 24", "5_LayerNorm/config.json"),
        Decision("layer", "24 to 20, GELU, added to what it takes", "6_Dense/config.json"),
        Decision("layer", "20 to 20, Tanh, added to what it takes", "7_Dense/config.json"),
    ]


def test_layers_before_pooling_work_on_token_vectors(tmp_path, bert):
    tokens = "token_embeddings"
    folder = save(
        tmp_path,
        Transformer(bert),
        dense(WIDTH, 24, module_input_name=tokens),
        Normalize(module_input_name=tokens),
        Pooling(24, ["mean", "max"]),
        dense(48, 16),
    )
    check(folder)
    info = read(folder)
    assert (info.embedding_size, info.token_vector_size) == (16, 24)


@pytest.mark.parametrize("is_old", [True, False], ids=["old", "new"])
@pytest.mark.parametrize("family", ["bert", "modernbert", "mpnet"])
def test_token_vectors_may_be_a_weighted_mean_of_layers(tmp_path, checkpoint, family, is_old):
    transformer = Transformer(
        str(checkpoint(family, sentence_transformers=False)), config_kwargs={"output_hidden_states": True}
    )
    mix = WeightedLayerPooling(WIDTH, num_hidden_layers=3, layer_start=1)
    with torch.no_grad():
        mix.layer_weights.copy_(torch.tensor([0.5, 2.0, 1.0]))
    folder = save(tmp_path, transformer, mix, Pooling(WIDTH, "mean"), is_old=is_old)
    check(folder)


def test_a_mean_of_layers_that_the_base_does_not_give_changes_nothing(tmp_path, bert):
    folder = save(tmp_path, Transformer(bert), WeightedLayerPooling(WIDTH, 3, 1), Pooling(WIDTH, "mean"))
    check(folder)
    report = read(folder).decisions
    assert Decision("token vectors", "the last layer's", "config.json has no output_hidden_states") in report


@pytest.mark.parametrize("is_old", [True, False], ids=["old", "new"])
def test_queries_and_documents_take_their_own_routes(tmp_path, bert, is_old):
    routes = Router.for_query_document(
        query_modules=[dense(WIDTH, 24), Normalize()],
        document_modules=[dense(WIDTH, 30), dense(30, 24, activation_function=torch.nn.Identity())],
    )
    folder = save(tmp_path, Transformer(bert), Pooling(WIDTH, "mean"), routes, drawn(LayerNorm(24)), is_old=is_old)
    if is_old:
        (folder / "2_Router" / "router_config.json").rename(folder / "2_Router" / "config.json")
        listed = json.loads((folder / "modules.json").read_text())
        listed[2]["type"] = "sentence_transformers.models.Asym"
        write_json(folder / "modules.json", listed)
    reference = SentenceTransformer(str(folder), device="cpu")
    for input_type, expected in {
        "query": reference.encode_query(TEXTS),
        "document": reference.encode_document(TEXTS),
        None: reference.encode(TEXTS),
    }.items():
        assert_alike(answer(folder, input_type), expected)
        assert_alike(answer(folder, input_type, batching="padded"), expected)
    mixed = [PoolingParams(use_activation=False, input_type=kind) for kind in ("query", "document", "query")]
    encoded = encode_prompts(load_encoder(folder), TEXTS[5:8], mixed, first_index=0)
    together = [output.data for output in load_engine(folder).forward(encoded)]
    alone = [answer(folder, one.input_type)[5 + i] for i, one in enumerate(mixed)]
    assert_alike(together, np.stack(alone))


def test_routes_may_begin_with_the_same_base(tmp_path, bert):
    base, pooling = Transformer(bert), Pooling(WIDTH, "mean")
    routes = Router.for_query_document([base, pooling, dense(WIDTH, 24)], [base, pooling], default_route="query")
    folder = save(tmp_path, routes)
    with pytest.raises(ModelError) as caught:
        read(folder)
    assert str(caught.value) == (
        f"The last layers of {folder} give queries 24 numbers and documents 48; poolkit runs models that give both "
        "alike."
    )
    routes = Router.for_query_document([base, pooling, dense(WIDTH, WIDTH)], [base, pooling], default_route="query")
    folder = save(tmp_path / "alike", routes)
    reference = SentenceTransformer(str(folder), device="cpu")
    assert_alike(answer(folder, "document"), reference.encode_document(TEXTS))
    assert_alike(answer(folder, None), reference.encode(TEXTS))
    assert read(folder).text.default_input_type == "query"


def test_routes_with_bases_of_their_own_are_refused(tmp_path, bert):
    routes = Router.for_query_document(
        [Transformer(bert), Pooling(WIDTH, "mean")], [Transformer(bert), Pooling(WIDTH, "mean")]
    )
    folder = save(tmp_path, routes)
    with pytest.raises(ModelError) as caught:
        read(folder)
    assert str(caught.value) == (
        f"{folder / 'modules.json'} lists Transformer, Pooling, Transformer, Pooling; it must be one Transformer, the "
        "same for all routes, then what works on its token vectors."
    )


def test_routes_that_are_neither_for_queries_nor_documents_are_refused(tmp_path, bert):
    routes = Router({"left": [dense(WIDTH, 8)], "right": [dense(WIDTH, 8)]})
    folder = save(tmp_path, Transformer(bert), Pooling(WIDTH, "mean"), routes)
    with pytest.raises(ModelError) as caught:
        read(folder)
    assert str(caught.value) == (
        f"{folder / '2_Router' / 'router_config.json'} has the routes 'left', 'right' and none for query texts; "
        "poolkit routes queries and documents."
    )


def test_routes_are_found_by_their_mappings(tmp_path, bert):
    routes = Router(
        {"left": [dense(WIDTH, 8)], "right": [dense(WIDTH, 8, activation_function=torch.nn.ReLU())]},
        route_mappings={("query", None): "right", (None, "text"): "left"},
    )
    folder = save(tmp_path, Transformer(bert), Pooling(WIDTH, "mean"), routes)
    reference = SentenceTransformer(str(folder), device="cpu")
    assert_alike(answer(folder, "query"), reference.encode_query(TEXTS))
    assert_alike(answer(folder, "document"), reference.encode_document(TEXTS))


def test_vectors_are_cut_where_the_saved_model_cuts_them(tmp_path, bert):
    folder = save(tmp_path, Transformer(bert), Pooling(WIDTH, "mean"), truncate_dim=16)
    expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    assert expected.shape[1] == 16
    assert_alike(answer(folder), expected)
    info = read(folder)
    assert (info.embedding_size, info.vector.dimensions, info.vector.matryoshka_dimensions) == (WIDTH, 16, (16,))
    source = "config_sentence_transformers.json truncate_dim"
    assert Decision("dimensions", "16", source) in info.decisions


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan"])
def test_the_similarity_is_the_one_that_was_saved(tmp_path, bert, name):
    folder = save(tmp_path, Transformer(bert), Pooling(WIDTH, "mean"), similarity_fn_name=name)
    info = read(folder)
    assert info.vector.similarity is Similarity(name)
    assert Decision("similarity", name, "config_sentence_transformers.json") in info.decisions
