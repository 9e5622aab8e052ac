"""A task's own head gets the hidden states of one forward pass, and what it gives comes back prompt by prompt."""

# ruff: noqa: ARG001, ARG005 - a head, and what makes it, are given more than most of these need

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
import transformers

from closeness import assert_close
from engines import as_encoded, decision, load_engine, make_task
from poolkit import PooledRows, load_masked_lm_head
from poolkit.contract import Activation, Output, PoolingParams
from poolkit.errors import EngineError, ModelError

pytestmark = pytest.mark.usefixtures("one_thread")

PROMPTS = [[5, 9, 11], [7], [5, 9, 11, 400, 12], [8, 8, 8]]
TOLERANCE = 1e-4


def task(name, activation=Activation.IDENTITY, output=Output.HIDDEN):
    return make_task(output, activation, head=f"{__name__}:{name}")


def run(engine, params=None):
    return engine.forward([as_encoded(engine, ids, params) for ids in PROMPTS])


def splade(context):
    to_logits = load_masked_lm_head(context)

    def pool(states, batch):
        parts = states.segments.split(states.tokens)
        return PooledRows(torch.stack([to_logits(part).amax(0).relu().log1p() for part in parts]))

    return pool


def three_outputs(context):
    def pool(states, batch):
        arrays, sizes = batch.on(states.tokens.device), batch.segments.sizes
        is_first = torch.zeros(len(states.tokens), dtype=torch.bool).index_fill(0, arrays.segments.starts, True)
        parts = {
            "tokens": PooledRows(states.tokens[~is_first] * 2, [size - 1 for size in sizes]),
            "ids": PooledRows(arrays.token_ids, sizes),
        }
        return PooledRows(states.tokens[arrays.segments.starts], parts=parts)

    return pool


def per_token(context):
    return lambda states, batch: PooledRows(states.tokens, states.segments.sizes)


def too_few(context):
    return lambda states, batch: PooledRows(states.tokens[:1])


def uneven(context):
    return lambda states, batch: PooledRows(states.tokens, [1, 2, 3, 4])


def flat(context):
    return lambda states, batch: PooledRows(states.tokens[:, 0], states.segments.sizes)


def infinite_part(context):
    return lambda states, batch: PooledRows(
        states.tokens, states.segments.sizes, parts={"odd": PooledRows(states.tokens[:4] / 0)}
    )


def leaves(context):
    return lambda states, batch: sys.exit("enough")


def broken(context):
    raise ValueError("no such layer")


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "xlm_roberta", "modernbert"])
@pytest.mark.parametrize("batching", ["packed", "padded"])
def test_the_masked_lm_head_of_a_checkpoint_gives_its_logits(checkpoint, family, batching):
    folder = checkpoint(family, head="ForMaskedLM", sentence_transformers=False)
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    outputs = run(load_engine(folder, task=task("splade"), batching=batching))
    for ids, output in zip(PROMPTS, outputs, strict=True):
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids])).logits[0]
        expected = logits.relu().log1p().amax(0).numpy()
        assert output.data.shape == (800,)
        assert np.abs(output.data - expected).max() <= TOLERANCE


def test_the_masked_lm_head_follows_the_overrides_of_config_json(checkpoint):
    folder = checkpoint("bert", head="ForMaskedLM", sentence_transformers=False)
    overrides = {"hidden_act": "relu"}  # the base's, and that of the dense layer in the head
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder, **overrides).eval()
    outputs = run(load_engine(folder, task=task("splade"), hf_overrides=overrides))
    for ids, output in zip(PROMPTS, outputs, strict=True):
        with torch.inference_mode():
            expected = model(input_ids=torch.tensor([ids])).logits[0].amax(0).relu().log1p().numpy()
        assert np.abs(output.data - expected).max() <= TOLERANCE


def test_a_checkpoint_without_a_language_model_head_has_none_to_load(checkpoint):
    folder = checkpoint("bert", sentence_transformers=False)
    with pytest.raises(ModelError, match=r"^The weights in .* lack \d+ tensors of BertForMaskedLM, 'cls\.predictions"):
        load_engine(folder, task=task("splade"))


def test_one_forward_pass_gives_several_outputs_in_prompt_order(checkpoint):
    folder = checkpoint("xlm_roberta")
    outputs = run(load_engine(folder, task=task("three_outputs", Activation.NORMALIZE)))
    hidden = run(load_engine(folder, task=make_task(Output.HIDDEN)))
    for ids, output, plain in zip(PROMPTS, outputs, hidden, strict=True):
        assert list(output.prompt_token_ids) == ids
        assert np.allclose(output.data, plain.data[0] / np.linalg.norm(plain.data[0]), atol=1e-6)
        assert np.allclose(output.parts["tokens"], plain.data[1:] * 2, atol=1e-6)
        assert output.parts["ids"].tolist() == ids
        assert {array.dtype for array in (output.data, *output.parts.values())} == {np.dtype(np.float32)}


def test_data_is_cut_and_activated_as_asked_and_parts_are_not(checkpoint):
    engine = load_engine(checkpoint("bert"), task=task("three_outputs", Activation.SIGMOID))
    raw = run(engine, PoolingParams(use_activation=False))
    cut = run(engine, PoolingParams(dimensions=5))
    for one, other in zip(cut, raw, strict=True):
        assert np.allclose(one.data, 1 / (1 + np.exp(-other.data[:5])), atol=1e-6)
        assert_close(one.parts["tokens"], other.parts["tokens"])


def test_each_prompt_gets_the_parts_that_it_asks_for(checkpoint):
    engine = load_engine(checkpoint("bert"), task=task("three_outputs"))
    whole = run(engine)
    asked = [(), ("ids",), None, ("tokens",)]
    outputs = engine.forward(
        [as_encoded(engine, ids, PoolingParams(parts=names)) for ids, names in zip(PROMPTS, asked, strict=True)]
    )
    for output, other, names in zip(outputs, whole, asked, strict=True):
        assert set(output.parts) == set(other.parts if names is None else names)
        for name, array in output.parts.items():
            assert_close(array, other.parts[name])


def test_a_head_may_give_as_many_rows_as_it_likes(checkpoint):
    folder = checkpoint("bert")
    rows = run(load_engine(folder, task=task("per_token", Activation.NORMALIZE)))
    own = run(load_engine(folder, task=make_task(Output.TOKEN_VECTORS, Activation.NORMALIZE)))
    for ids, one, other in zip(PROMPTS, rows, own, strict=True):
        assert one.data.shape == (len(ids), 48)
        assert np.allclose(one.data, other.data, atol=1e-6)
        assert np.allclose(np.linalg.norm(one.data, axis=1), 1, atol=1e-6)


def test_a_head_gets_the_models_own_path(checkpoint):
    assert decision(load_engine(checkpoint("bert"), task=task("per_token")), "path")[0] == "packed"


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("too_few", "shape (1, 48) and no lengths"),
        ("uneven", "shape (12, 48) and 4 lengths that add up to 10"),
        ("flat", "shape (12,) and 4 lengths that add up to 12"),
    ],
)
def test_a_head_that_gives_the_wrong_shapes_is_named(checkpoint, name, given):
    engine = load_engine(checkpoint("bert"), task=task(name))
    with pytest.raises(EngineError) as caught:
        run(engine)
    assert str(caught.value) == (
        f"The task's head gave rows of {given} for 4 prompts. It must give one row (dim,) for each, or in lengths how "
        "many rows each has; with indices, one value for each index."
    )


def test_an_infinite_part_is_not_an_answer(checkpoint):
    folder = checkpoint("bert")
    with pytest.raises(EngineError) as caught:
        run(load_engine(folder, task=task("infinite_part")))
    assert str(caught.value) == (
        f"The head on {folder} gave NaN or infinity, and the hidden states that it was given have none. That is the "
        "fault of the head, or of the plugin that brings it, not the prompt's."
    )


def test_a_head_that_asks_to_exit_fails_its_prompts_and_not_the_engine(checkpoint):
    folder = checkpoint("bert")
    with pytest.raises(EngineError) as caught:
        run(load_engine(folder, task=task("leaves")))
    assert str(caught.value) == f"The task's head asked to exit while it served {folder}."


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("broken", "ValueError: no such layer"),
        ("missing", f"AttributeError: module '{__name__}' has no attribute 'missing'"),
    ],
)
def test_a_head_that_cannot_be_made_is_named(checkpoint, name, reason):
    folder = checkpoint("bert")
    with pytest.raises(ModelError) as caught:
        load_engine(folder, task=task(name))
    assert str(caught.value) == f"The head '{__name__}:{name}' of task 'try' cannot be made for {folder}: {reason}"
