"""The weights are those of a plain transformers computation and of sentence-transformers' SparseEncoder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from splade_reference import dense, make_checkpoint, reference, texts

from poolkit import LLM
from poolkit.errors import UnsupportedTaskError

COUNT = 60
TOLERANCE = 1e-4
"""In a packed batch, and in a block of other texts, the same float32 sums are added up in another order."""


def embed(folder: Path, inputs: list[str], **settings: object) -> list[dict[str, float]]:
    with LLM(str(folder), task="splade", enable=["poolkit-splade"], dtype="float32", device="cpu", **settings) as llm:
        fields = {"input": inputs, "truncate_prompt_tokens": -1}
        return llm.run("sparse_embeddings", fields, use_tqdm=False).embeddings


@pytest.fixture(scope="module")
def expected(tiny_splade) -> NDArray[np.float32]:
    return reference(tiny_splade, texts(COUNT))


@pytest.mark.parametrize("batching", ["packed", "padded"])
def test_a_real_model_gives_what_plain_transformers_gives(tiny_splade, expected, batching):
    ours = embed(tiny_splade, texts(COUNT), batching=batching, max_num_batched_tokens=1024)

    np.testing.assert_allclose(dense(ours, tiny_splade), expected, rtol=0, atol=TOLERANCE)
    # Else the comparison would say nothing: the weights are sparse, and differ from text to text.
    assert 10 < np.median((expected > 0).sum(axis=1)) < 500
    assert len(np.unique(expected.round(3), axis=0)) == COUNT


def test_a_real_model_gives_what_sentence_transformers_gives(tiny_splade):
    from sentence_transformers import SparseEncoder

    inputs = texts(20)
    encoder = SparseEncoder(str(tiny_splade), device="cpu")
    expected = encoder.encode(inputs, convert_to_sparse_tensor=False, show_progress_bar=False).numpy()

    ours = embed(tiny_splade, inputs)

    np.testing.assert_allclose(dense(ours, tiny_splade), expected, rtol=0, atol=TOLERANCE)
    [decoded] = encoder.decode(encoder.encode(["A cat sat on the mat."], show_progress_bar=False))
    [cat] = embed(tiny_splade, ["A cat sat on the mat."])
    assert list(cat) == [token for token, _ in decoded]


@pytest.mark.parametrize("batching", ["packed", "padded"])
def test_random_weights_give_what_plain_transformers_gives(tmp_path, tiny_splade, batching):
    folder = make_checkpoint(tmp_path, like=tiny_splade)
    inputs = texts(20)
    expected = reference(folder, inputs)

    np.testing.assert_allclose(
        dense(embed(folder, inputs, batching=batching), folder), expected, rtol=0, atol=TOLERANCE
    )
    assert expected.max() > 0.5


@pytest.mark.parametrize(("pooling", "activation", "log1ps"), [("max", "relu", 1), ("sum", "log1p_relu", 2)])
def test_a_text_of_more_tokens_than_a_block_gives_the_same(tmp_path, tiny_splade, pooling, activation, log1ps):
    folder = make_checkpoint(tmp_path, like=tiny_splade, longest=600)
    write_modules(folder, pooling_strategy=pooling, activation_function=activation)
    inputs = ["short", " ".join(texts(40))]
    expected = reference(folder, inputs, pooling=pooling, log1ps=log1ps)

    ours = dense(embed(folder, inputs), folder)

    # A sum over 600 tokens has rounding errors of its own, in proportion to its size.
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=TOLERANCE)


@pytest.mark.parametrize(("pooling", "activation", "log1ps"), [("sum", "relu", 1), ("max", "log1p_relu", 2)])
def test_the_models_own_pooling_and_activation_are_used(tmp_path, tiny_splade, pooling, activation, log1ps):
    folder = save_with_sentence_transformers(
        tmp_path, tiny_splade, pooling_strategy=pooling, activation_function=activation
    )
    inputs = texts(10)

    ours = dense(embed(folder, inputs), folder)

    expected = reference(folder, inputs, pooling=pooling, log1ps=log1ps)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=TOLERANCE)
    assert not np.allclose(ours, reference(folder, inputs), atol=0.01)


def test_the_models_own_limit_of_weights_is_kept(tmp_path, tiny_splade):
    folder = save_with_sentence_transformers(tmp_path, tiny_splade, max_active_dims=4)

    [limited] = embed(folder, ["A cat sat on the mat."])

    assert list(limited) == ["mat", "cat", "sat", "cats"]


def test_the_names_that_sentence_transformers_had_before_are_read(tmp_path, tiny_splade):
    folder = make_checkpoint(tmp_path, like=tiny_splade)
    write_modules(folder, pooling_strategy="sum")
    expected = embed(folder, texts(3))
    types = ["models.MLMTransformer.MLMTransformer", "models.SpladePooling.SpladePooling"]
    listed = json.loads((folder / "modules.json").read_text())
    named = [
        {**one, "type": f"sentence_transformers.sparse_encoder.{kind}"} for one, kind in zip(listed, types, strict=True)
    ]
    (folder / "modules.json").write_text(json.dumps(named), "utf-8")

    assert embed(folder, texts(3)) == expected


def test_without_the_plugin_the_model_has_no_vectors_to_give(tmp_path, tiny_splade):
    folder = make_checkpoint(tmp_path, like=tiny_splade)
    write_modules(folder)

    with pytest.raises(UnsupportedTaskError) as caught:
        LLM(str(folder), task="embed")

    assert str(caught.value) == (
        f"model {str(folder)!r} cannot serve 'embed': {folder / 'modules.json'} lists 'SpladePooling': module "
        "'SpladePooling' is provided by poolkit-splade 0.1.0, which is installed but not enabled.\n"
        '  Enable it with  enable = ["poolkit-splade"]  in poolkit.toml, or --plugin poolkit-splade.\n'
        "  The model produces hidden. It can serve: none of the enabled tasks."
    )


def write_modules(folder: Path, **pooling: str) -> None:
    """Write what sentence-transformers writes beside a SparseEncoder's checkpoint."""
    kinds = {"": "base.modules.transformer.Transformer", "1_SpladePooling": "sparse_encoder.modules.splade_pooling"}
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": f"sentence_transformers.{kinds['']}"},
        {
            "idx": 1,
            "name": "1",
            "path": "1_SpladePooling",
            "type": f"sentence_transformers.{kinds['1_SpladePooling']}.SpladePooling",
        },
    ]
    (folder / "modules.json").write_text(json.dumps(modules), "utf-8")
    (folder / "1_SpladePooling").mkdir()
    (folder / "1_SpladePooling" / "config.json").write_text(json.dumps(pooling), "utf-8")


def save_with_sentence_transformers(
    folder: Path, model: Path, *, max_active_dims: int | None = None, **pooling: str
) -> Path:
    """Let sentence-transformers save a SparseEncoder over a model, and return the folder."""
    from sentence_transformers import SparseEncoder

    encoder = SparseEncoder(str(model), device="cpu", max_active_dims=max_active_dims)
    for name, value in pooling.items():
        setattr(encoder[1], name, value)
    encoder.save(str(folder), create_model_card=False)
    return folder
