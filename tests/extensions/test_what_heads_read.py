"""A task may ask for the logits of some tokens, for layers in the middle of the model, and for parameters of its own.

The contract's lines "logits of chosen tokens at the last position" (`PoolingTask.label_tokens`), "layer taps"
(`PoolingTask.taps`, `States.taps`) and "params of a head" (`PoolingTask.extra`, `PoolingParams.extra`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import transformers

from checkpoints import real_texts
from poolkit import LLM, Decision, PoolingParams, create_app
from poolkit.errors import ModelError, RequestError
from serving import ask

Install = Callable[..., None]

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = [text[:200] for text in real_texts(30)[1:]]
TOLERANCE = 1e-4
"""The promise of fidelity.md for logits; sums in another order differ by 5e-6 at most here."""

OPERATIONS = """
from poolkit import Activation, Operation, Output, PoolingRequest, PoolingResponse, PoolingTask

def operations(processor="poolkit:PoolingProcessor"):
    return (
        Operation(name="pooling", request=PoolingRequest, response=PoolingResponse, io_processor=processor),
    )
"""

GUARD = f"""{OPERATIONS}
GUARD = PoolingTask(
    name="guard",
    api=1,
    summary="How safe a text is.",
    output=Output.LABEL_LOGITS,
    label_tokens=("1", "0"),
    activation=Activation.SOFTMAX,
    operations=operations(),
)
"""

PROBE = f"""{OPERATIONS}
import torch
from poolkit import PooledRows

PROBE = PoolingTask(
    name="probe",
    api=1,
    summary="Two layers side by side.",
    output=Output.HIDDEN,
    taps=(1, 2),
    head="probe:create_head",
    operations=operations(),
)

def create_head(context):
    def pool(states, batch):
        return PooledRows(torch.cat([states.taps[1], states.taps[2]], dim=1), states.segments.sizes)

    return pool
"""


EXTRA = """
import torch
from pydantic import BaseModel, ConfigDict
from poolkit import (
    Activation, Operation, Output, PooledRows, PoolingParams, PoolingProcessor, PoolingRequest, PoolingResponse,
    PoolingTask,
)
from dataclasses import replace

class Mix(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: tuple[float, float]

class MixRequest(PoolingRequest):
    mix: Mix

class MixProcessor(PoolingProcessor):
    def pre_process(self, request):
        return replace(super().pre_process(request), params=PoolingParams(extra=request.mix))

EXTRA = PoolingTask(
    name="extra",
    api=1,
    summary="A mixture of two layers, whose weights each request says.",
    output=Output.VECTOR,
    activation=Activation.NORMALIZE,
    taps=(1, 3),
    head="extra:create_head",
    extra=Mix,
    operations=(
        Operation(
            name="pooling", request=PoolingRequest, response=PoolingResponse, io_processor="poolkit:PoolingProcessor"
        ),
        Operation(name="mix", request=MixRequest, response=PoolingResponse, io_processor="extra:MixProcessor"),
    ),
)

def create_head(context):
    def pool(states, batch):
        first, last = (states.segments.split(states.taps[layer].float()) for layer in (1, 3))
        weights = [params.extra.weights for params in batch.params]
        return PooledRows(torch.stack([
            lower * low.mean(0) + upper * high.mean(0)
            for (lower, upper), low, high in zip(weights, first, last, strict=True)
        ]))

    return pool
"""


def add(install: Install, task: str, source: str) -> dict[str, object]:
    """Install a task; return the settings that serve it."""
    install(f"poolkit-{task}", {task: source}, tasks={task: f"{task}:{task.upper()}"})
    return {"task": task, "enable": [f"poolkit-{task}"], "dtype": "float32"}


def ids_of(folder, texts=TEXTS):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return [tokenizer(text)["input_ids"] for text in texts]


@pytest.fixture(scope="module")
def causal_folder(tmp_path_factory, checkpoint):
    """A tiny causal LM in several files whose output layer is its embedding."""
    folder = tmp_path_factory.mktemp("guard")
    made = checkpoint("qwen3", head="ForCausalLM", sentence_transformers=False, tie_word_embeddings=True)
    transformers.AutoModelForCausalLM.from_pretrained(made).save_pretrained(folder, max_shard_size="100KB")
    transformers.AutoTokenizer.from_pretrained(made).save_pretrained(folder)
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


@pytest.mark.parametrize("batching", ["packed", "padded"])
def test_a_guard_answers_with_the_logits_of_its_label_tokens(install, causal_folder, batching):
    model = transformers.AutoModelForCausalLM.from_pretrained(causal_folder).eval()
    labels = transformers.AutoTokenizer.from_pretrained(causal_folder).convert_tokens_to_ids(["1", "0"])
    with LLM(str(causal_folder), batching=batching, **add(install, "guard", GUARD)) as llm, torch.inference_mode():
        for output, ids in zip(llm.encode(TEXTS, use_tqdm=False), ids_of(causal_folder), strict=True):
            expected = model(torch.tensor([ids])).logits[0, -1, labels].softmax(0)
            np.testing.assert_allclose(output.outputs.data, expected, atol=TOLERANCE)
        answer = ask(create_app(llm), "POST", "/pooling", json={"input": TEXTS[-1]}).json()
        np.testing.assert_allclose(answer["data"][0]["data"], expected, atol=TOLERANCE)


def test_a_label_that_is_no_token_is_told_at_start_up(install, causal_folder):
    with pytest.raises(ModelError) as caught:
        LLM(str(causal_folder), **add(install, "guard", GUARD.replace('"0"', '"unsafe"')))
    assert str(caught.value) == (
        f"Task 'guard' reads the logits of the token 'unsafe', but the tokenizer of {causal_folder} has none of that "
        "name."
    )


@pytest.mark.parametrize("family", ["bert", "mpnet", "modernbert", "qwen3"])
@pytest.mark.parametrize("batching", ["packed", "padded"])
def test_a_probe_reads_two_layers_as_transformers_gives_them(install, checkpoint, family, batching):
    folder = checkpoint(family)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with LLM(str(folder), batching=batching, **add(install, "probe", PROBE)) as llm, torch.inference_mode():
        for output, ids in zip(llm.encode(TEXTS, use_tqdm=False), ids_of(folder), strict=True):
            layers = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
            expected = torch.cat([layers[1], layers[2]], 2)[0]
            np.testing.assert_allclose(output.outputs.data, expected, atol=TOLERANCE)
        answer = ask(create_app(llm), "POST", "/pooling", json={"input": TEXTS[-1]}).json()
        np.testing.assert_allclose(answer["data"][0]["data"], expected, atol=TOLERANCE)


def test_a_layer_that_the_model_does_not_have_is_told_at_start_up(install, checkpoint):
    folder = checkpoint("bert")
    with pytest.raises(ModelError) as caught:
        LLM(str(folder), **add(install, "probe", PROBE.replace("(1, 2)", "(1, 9)")))
    assert str(caught.value) == "There is no layer 9 to tap: the model has 0 to 3."


@pytest.mark.parametrize("batching", ["packed", "padded"])
def test_a_head_reads_the_parameters_of_each_prompt(install, checkpoint, batching):
    folder = checkpoint("bert")
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with LLM(str(folder), batching=batching, **add(install, "extra", EXTRA)) as llm, torch.inference_mode():
        mix = llm.served.task.extra
        weights = [(round(0.1 * place, 1), 1.0) for place in range(len(TEXTS))]
        params = [PoolingParams(extra=mix(weights=each)) for each in weights]
        outputs = llm.encode(TEXTS, pooling_params=params, use_tqdm=False)
        for output, ids, (lower, upper) in zip(outputs, ids_of(folder), weights, strict=True):
            layers = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
            row = lower * layers[1][0].mean(0) + upper * layers[3][0].mean(0)
            np.testing.assert_allclose(output.outputs.data, row / row.norm(), atol=TOLERANCE)
        body = {"input": TEXTS[-1], "mix": {"weights": weights[-1]}}
        answer = ask(create_app(llm), "POST", "/tasks/extra/mix", json=body).json()
        np.testing.assert_allclose(answer["data"][0], outputs[-1].outputs.data, atol=TOLERANCE)


def test_a_request_without_parameters_that_the_head_needs_is_told_which(install, checkpoint):
    expected = "extra is missing: the task 'extra' takes a Mix, which needs weights."
    with LLM(str(checkpoint("bert")), **add(install, "extra", EXTRA)) as llm:
        with pytest.raises(RequestError) as caught:
            llm.encode("a cat", use_tqdm=False)
        assert (str(caught.value), caught.value.param) == (expected, "extra")
        answer = ask(create_app(llm), "POST", "/pooling", json={"input": "a cat"})
        assert (answer.status_code, answer.json()["error"]["message"]) == (400, expected)


def test_parameters_of_another_task_are_refused(install, checkpoint):
    with LLM(str(checkpoint("bert")), **add(install, "extra", EXTRA)) as llm:
        mix = llm.served.task.extra(weights=(0.5, 0.5))
        with pytest.raises(RequestError) as caught:
            llm.encode("a cat", pooling_params=PoolingParams(extra=Decision("a", "b", "c")), use_tqdm=False)
        assert str(caught.value) == "extra is a Decision; the task 'extra' takes a Mix."
    with LLM(str(checkpoint("bert")), task="embed", dtype="float32") as llm, pytest.raises(RequestError) as caught:
        llm.embed("a cat", pooling_params=PoolingParams(extra=mix), use_tqdm=False)
    assert str(caught.value) == "extra is a Mix; the task 'embed' takes none. Leave it out."
