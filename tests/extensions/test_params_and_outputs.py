"""A task may take parameters of its own for each prompt, and define a kind of output of its own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import transformers
from pydantic import BaseModel, ConfigDict

from checkpoints import real_texts
from poolkit import LLM, PoolingParams, PoolingRequest, create_app
from poolkit.testing import fake_model
from serving import ask

Install = Callable[..., None]

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = [text[:200] for text in real_texts(12)[1:]]
TOLERANCE = 1e-4
"""Sums over a batch's rows are added up in an order that depends on the batch; hidden states are of the order of 3."""

POWER = """
import torch
from poolkit import Operation, Output, PooledRows, PoolingIOProcessor, PoolingParams, PoolingTask, Prepared
from pydantic import BaseModel, ConfigDict

class Exponent(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    exponent: float = 2

class Request(BaseModel):
    texts: list[str]
    exponents: list[float]

class Response(BaseModel):
    means: list[float]

class Processor(PoolingIOProcessor[Request, Response]):
    def pre_process(self, request):
        return Prepared(request.texts, [PoolingParams(extra=Exponent(exponent=one)) for one in request.exponents])
    def post_process(self, prepared, outputs):
        return Response(means=[output.data[0] for output in outputs])

def create_head(context):
    def pool(states, batch):
        texts = zip(states.segments.split(states.tokens.float()), batch.params, strict=True)
        return PooledRows(torch.stack([text.abs().pow(params.extra.exponent).mean()[None] for text, params in texts]))
    return pool

MEANS = Operation(name="means", request=Request, response=Response, io_processor="power:Processor")
POWER = PoolingTask(
    name="power", api=1, summary="Means of powers.", output=Output.HIDDEN, head="power:create_head", extra=Exponent,
    operations=(MEANS,),
)
"""

EXTENT = """
import numpy as np
import torch
from poolkit import POOLING, Output, OutputKind, PooledOutput, PooledRows, PoolingTask

def join(outputs, combine):
    low, high = np.stack([output.data for output in outputs], axis=1)
    token_ids = np.concatenate([output.prompt_token_ids for output in outputs])
    return PooledOutput(np.stack([low.min(), high.max()]), token_ids)

def draw(generator, model, tokens):
    return PooledOutput(np.sort(generator.random(2, np.float32)), np.zeros(0, np.int32))

def create_head(context):
    def pool(states, batch):
        texts = states.segments.split(states.tokens.float())
        return PooledRows(torch.stack([torch.stack([text.min(), text.max()]) for text in texts]))
    return pool

EXTENT = PoolingTask(
    name="extent", api=1, summary="The least and the greatest number.", output=Output.HIDDEN, head="extent:create_head",
    kind=OutputKind(name="extent", shape="(2,)", join=join, fake=draw), operations=(POOLING,),
)
"""


def add(install: Install, task: str, source: str) -> dict[str, object]:
    """Install a task; return the settings that serve it."""
    install(f"poolkit-{task}", {task: source}, tasks={task: f"{task}:{task.upper()}"})
    return {"task": task, "enable": [f"poolkit-{task}"], "dtype": "float32"}


def hidden_states(folder, token_ids) -> np.ndarray:
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        return model(torch.tensor([token_ids])).last_hidden_state[0].numpy()


def test_each_prompt_has_its_own_parameters_of_the_tasks_head(install, checkpoint):
    folder = checkpoint("bert")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    exponents = [1.0, 2.0, 3.0] * 4
    expected = [
        (np.abs(hidden_states(folder, tokenizer(text)["input_ids"])) ** exponent).mean()
        for text, exponent in zip(TEXTS, exponents, strict=False)
    ]
    body = {"texts": TEXTS, "exponents": exponents[: len(TEXTS)]}

    with LLM(str(folder), **add(install, "power", POWER)) as llm:
        offline = llm.run("means", body, use_tqdm=False).means
        online = ask(create_app(llm), "POST", "/tasks/power/means", json=body).json()["means"]

    np.testing.assert_allclose(offline, expected, rtol=TOLERANCE)
    np.testing.assert_allclose(online, expected, rtol=TOLERANCE)


def test_the_cache_tells_prompts_apart_by_their_parameters_of_the_head(install, checkpoint, tmp_path):
    settings = add(install, "power", POWER)
    settings = {**settings, "enable": ["cache", *settings["enable"]], "plugins": {"cache": {"folder": str(tmp_path)}}}
    with LLM(str(checkpoint("bert")), **settings) as llm:

        def means(*exponents: float) -> list[float]:
            body = {"texts": TEXTS[:1] * len(exponents), "exponents": exponents}
            return llm.run("means", body, use_tqdm=False).means

        first = means(1, 2, 1)
        assert llm.served.stats().prompts_run == 2
        assert means(2, 1, 3)[:2] == [first[1], first[0]]
        assert llm.served.stats().prompts_run == 3


def test_parameters_that_cannot_be_told_apart_are_refused_where_they_are_made():
    class Labels(BaseModel):
        model_config = ConfigDict(frozen=True)
        labels: list[str]

    with pytest.raises(TypeError) as caught:
        PoolingParams(extra=Labels(labels=["a"]))
    assert str(caught.value) == (
        "extra is a Labels that cannot be hashed: unhashable type: 'list'. Freeze the model, and give its fields "
        "tuples in place of lists."
    )


def test_a_prompt_without_parameters_of_the_tasks_head_gets_their_defaults(install, checkpoint):
    folder = checkpoint("bert")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    expected = [(hidden_states(folder, tokenizer(text)["input_ids"]) ** 2).mean() for text in TEXTS]

    source = POWER.replace(
        "[PoolingParams(extra=Exponent(exponent=one)) for one in request.exponents]", "PoolingParams()"
    )
    with LLM(str(folder), **add(install, "power", source)) as llm:
        found = llm.run("means", {"texts": TEXTS, "exponents": []}, use_tqdm=False).means

    np.testing.assert_allclose(found, expected, rtol=TOLERANCE)


def test_a_tasks_own_kind_of_output_is_what_its_head_makes(install, checkpoint):
    folder = checkpoint("bert")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    states = [hidden_states(folder, tokenizer(text)["input_ids"]) for text in TEXTS]

    with LLM(str(folder), **add(install, "extent", EXTENT)) as llm:
        outputs = llm.encode(TEXTS, use_tqdm=False)

    found = [output.outputs.data for output in outputs]
    np.testing.assert_allclose(found, [(numbers.min(), numbers.max()) for numbers in states], rtol=TOLERANCE)


def test_a_tasks_own_kind_of_output_is_put_together_from_the_chunks_of_a_long_text(install, checkpoint):
    folder = checkpoint("bert", max_seq_length=32)
    settings = add(install, "extent", EXTENT)
    text = " ".join(TEXTS)
    [cls, *body, sep] = transformers.AutoTokenizer.from_pretrained(folder)(text, verbose=False)["input_ids"]
    chunks = [[cls, *body[start : start + 30], sep] for start in range(0, len(body), 30)]
    numbers = np.concatenate([hidden_states(folder, chunk) for chunk in chunks])

    with LLM(str(folder), **{**settings, "enable": ["chunking", *settings["enable"]]}) as llm:
        [output] = llm.encode(text, use_tqdm=False)

    assert len(chunks) > 3
    np.testing.assert_allclose(output.outputs.data, [numbers.min(), numbers.max()], rtol=TOLERANCE)


def test_a_kind_that_draws_its_outputs_is_served_without_a_model(install):
    add(install, "extent", EXTENT)
    with fake_model("extent", plugin="poolkit-extent") as served:
        data = served.run("pooling", PoolingRequest(input=["a", "b c"])).data

    assert [0 <= low <= high <= 1 for low, high in data] == [True, True]
