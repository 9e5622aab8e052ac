"""A task whose outputs are of a kind of its own: served by the operation `pooling`, chunked, and examined by the kit.

The contract's line "a task may define its own: `OutputKind(name, shape, finish, join, to_json, fake)`".
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers

from checkpoints import real_texts
from poolkit import LLM, PoolingRequest, create_app
from poolkit.errors import EngineError, RequestError
from poolkit.testing import check_plugin, fake_model
from serving import ask

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = [text[:200] for text in real_texts(12)[1:]]
TOLERANCE = 1e-4
"""Sums in another order differ by 5e-6 at most here."""

MOMENTS = '''
from dataclasses import replace

from poolkit import POOLING, Output, OutputKind, PooledOutput, PoolingTask


def finish(output, params):
    """Make the standard deviation of the mean of squares."""
    import numpy as np

    mean, squares = output.data
    return replace(output, data=np.stack([mean, np.sqrt(np.maximum(squares - mean**2, 0))]))


def join(outputs, combine):
    """Return the moments of all chunks' tokens together."""
    import numpy as np

    weights = [len(output.prompt_token_ids) for output in outputs]
    moments = np.average([[mean, deviation**2 + mean**2] for mean, deviation in (o.data for o in outputs)], 0, weights)
    token_ids = np.concatenate([output.prompt_token_ids for output in outputs])
    return finish(PooledOutput(moments.astype(np.float32), token_ids), None)


def to_json(output):
    mean, deviation = output.data.tolist()
    return {"mean": mean, "deviation": deviation}


def fake(generator, model, tokens):
    import numpy as np

    row = generator.random(model.hidden_size, np.float32)
    return PooledOutput(np.stack([row, row**2 + tokens]), np.zeros(0, np.int32))


MOMENTS = PoolingTask(
    name="moments",
    api=1,
    summary="Mean and standard deviation of the token vectors.",
    output=Output.HIDDEN,
    kind=OutputKind(name="moments", shape="(2, hidden)", finish=finish, join=join, to_json=to_json, fake=fake),
    head="moments_head:create_head",
    operations=(POOLING,),
)
'''
MOMENTS_HEAD = """
import torch
from poolkit import PooledRows

def create_head(context):
    def pool(states, batch):
        rows = []
        for tokens in states.segments.split(states.tokens.float()):
            rows += [tokens.mean(0), tokens.square().mean(0)]
        return PooledRows(torch.stack(rows), [2] * len(batch))

    return pool
"""


@pytest.fixture
def settings(install):
    modules = {"moments": MOMENTS, "moments_head": MOMENTS_HEAD}
    install("poolkit-moments", modules, tasks={"moments": "moments:MOMENTS"}, requires=["poolkit>=0.1,<0.2"])
    return {"task": "moments", "enable": ["poolkit-moments"], "dtype": "float32"}


def moments_of(folder, *chunks):
    """Return the moments of the token vectors that transformers gives for some chunks."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        tokens = torch.cat([model(torch.tensor([ids])).last_hidden_state[0] for ids in chunks]).numpy()
    return tokens.mean(0), tokens.std(0)


def assert_moments(found, expected):
    mean, deviation = expected
    assert list(found) == ["mean", "deviation"]
    np.testing.assert_allclose(found["mean"], mean, atol=TOLERANCE)
    np.testing.assert_allclose(found["deviation"], deviation, atol=TOLERANCE)


def test_the_operation_pooling_writes_it_offline_and_online(settings, checkpoint):
    folder = checkpoint("bert")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with LLM(str(folder), **settings) as llm:
        offline = [output.outputs.data for output in llm.encode(TEXTS, use_tqdm=False)]
        app = create_app(llm)
        vllm = ask(app, "POST", "/pooling", json={"input": TEXTS}).json()["data"]
        native = ask(app, "POST", "/tasks/moments/pooling", json={"input": TEXTS}).json()["data"]
        base64 = ask(app, "POST", "/pooling", json={"input": TEXTS, "encoding_format": "base64"})
    for text, *answers in zip(TEXTS, offline, [item["data"] for item in vllm], native, strict=True):
        for answer in answers:
            assert_moments(answer, moments_of(folder, tokenizer(text)["input_ids"]))
    assert (base64.status_code, base64.json()["error"]["message"]) == (
        400,
        "encoding_format is 'base64', but the output of task 'moments' is moments, which is no array. Leave it out.",
    )


def test_chunks_are_put_together_as_it_says(settings, checkpoint):
    folder = checkpoint("bert")
    text = " ".join(TEXTS)
    settings["enable"] = [*settings["enable"], "chunking"]
    cls, *body, sep = transformers.AutoTokenizer.from_pretrained(folder)(text)["input_ids"]
    chunks = [[cls, *body[start : start + 30], sep] for start in range(0, len(body), 30)]
    assert len(chunks) > 3
    with LLM(str(folder), plugins={"chunking": {"max_chunk_tokens": 32}}, **settings) as llm:
        [output] = llm.encode(text, use_tqdm=False)
    assert_moments(output.outputs.data, moments_of(folder, *chunks))


def test_a_kind_that_cannot_be_joined_is_not_chunked(install, checkpoint):
    modules = {"moments": MOMENTS.replace("join=join, ", ""), "moments_head": MOMENTS_HEAD}
    install("poolkit-moments", modules, tasks={"moments": "moments:MOMENTS"})
    enable = ["poolkit-moments", "chunking"]
    with (
        LLM(str(checkpoint("bert")), task="moments", enable=enable, max_model_len=32) as llm,
        pytest.raises(RequestError, match=r"^Prompt 0 has \d+ tokens"),
    ):
        llm.encode(" ".join(TEXTS), use_tqdm=False)


@pytest.mark.usefixtures("settings")
def test_the_kit_examines_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    results = check_plugin("poolkit-moments")
    assert {result.name: result.message for result in results if result.verdict in ("failed", "warned")} == {}
    assert sum(result.verdict == "passed" for result in results) > 20


def test_a_finish_that_asks_to_exit_fails_its_prompts_and_not_the_engine(install):
    source = MOMENTS.replace("mean, squares = output.data", "raise SystemExit")
    install("poolkit-moments", {"moments": source}, tasks={"moments": "moments:MOMENTS"})
    with fake_model("moments", plugin="poolkit-moments") as served:
        for _ in range(2):
            with pytest.raises(EngineError) as caught:
                served.run("pooling", PoolingRequest(input="a"))
            assert str(caught.value) == "The engine, or what the task does to its outputs, asked to exit."
        assert served.is_alive
