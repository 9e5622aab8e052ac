"""Rerankers that answer with a token give the scores of transformers and of sentence-transformers."""

from __future__ import annotations

import json

import numpy as np
import pytest

from checkpoints import real_texts
from poolkit import LLM
from poolkit.errors import RequestError
from rerankers import KNOWN, QWEN3, expect, make_reranker

pytestmark = pytest.mark.usefixtures("one_thread")

TOLERANCE = 1e-4
"""The promise of fidelity.md for logits."""

QUERY = "How is a graph made of its edges?"
DOCUMENTS = [text for text in real_texts(60) if 0 < len(text) < 300][:16]
FRAMES = {"packed": {}, "padded": {"batching": "padded"}}

CHAT_TEMPLATE = (
    "<|im_start|>{{ messages | selectattr('role', 'eq', 'system') | map(attribute='content') | first | "
    "default('Judge.') }}\nQ: {{ (messages | selectattr('role', 'eq', 'query') | first).content }}\n"
    "D: {{ (messages | selectattr('role', 'eq', 'document') | first).content }}<|im_end|>\nRelevant:"
)


@pytest.fixture(scope="module")
def make(tmp_path_factory, checkpoint):
    made = {family.name: make_reranker(tmp_path_factory.mktemp("made"), checkpoint, family) for family in KNOWN}
    return lambda family: made[family.name]


@pytest.fixture(scope="module")
def save_cross_encoder(make, tmp_path_factory):
    """Save a CrossEncoder with a LogitScore as sentence-transformers does, and return its folder."""
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.cross_encoder.modules.logit_score import LogitScore
    from transformers import AutoTokenizer

    def save(*, template=None, false_token="no", max_length=None, **settings):
        folder = make(QWEN3)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        yes, no = tokenizer.convert_tokens_to_ids(["yes", false_token or "no"])
        processing = {"chat_template": template, **({"model_max_length": max_length} if max_length else {})}
        transformer = Transformer(str(folder), transformer_task="text-generation", processor_kwargs=processing)
        modules = [transformer, LogitScore(yes, no if false_token else None)]
        saved = tmp_path_factory.mktemp("saved")
        CrossEncoder(modules=modules, device="cpu", **settings).save_pretrained(str(saved))
        return saved

    return save


def score(folder, query, documents, *, decisions=(), use_activation=False, fields=None, **settings):
    with LLM(str(folder), dtype="float32", **settings) as llm:
        found = {one.name: one.value for one in llm.decisions}
        for name, value in dict(decisions).items():
            assert found[name] == value
        request = {"queries": query, "documents": documents, "use_activation": use_activation, **(fields or {})}
        return llm.run("score", request, use_tqdm=False).scores


def difference(actual, expected):
    return float(np.abs(np.asarray(actual) - np.asarray(expected)).max())


@pytest.mark.parametrize("batching", ["packed", "padded"])
@pytest.mark.parametrize("family", KNOWN, ids=lambda family: family.name)
def test_a_known_family_gives_the_scores_of_transformers_without_a_setting(make, family, batching):
    folder = make(family)
    actual = score(folder, QUERY, DOCUMENTS, batching=batching, decisions={"path": batching})
    prompts = [family.prompt(family.instruction, QUERY, document) for document in DOCUMENTS]
    expected = expect(folder, prompts, family.answers)
    assert difference(actual, expected) <= TOLERANCE
    assert np.ptp(expected) > 0.1
    alone = [score_one for document in DOCUMENTS[:3] for score_one in score(folder, QUERY, [document])]
    assert difference(alone, expected[:3]) <= TOLERANCE
    activated = score(folder, QUERY, DOCUMENTS, use_activation=True)
    assert difference(activated, 1 / (1 + np.exp(-np.array(expected)))) <= 1e-5


@pytest.mark.parametrize("family", KNOWN, ids=lambda family: family.name)
def test_an_instruction_goes_where_the_family_has_it(make, family):
    instruction = "Find what says the opposite"
    actual = score(make(family), QUERY, DOCUMENTS[:4], fields={"instruction": instruction})
    prompts = [family.prompt(instruction, QUERY, document) for document in DOCUMENTS[:4]]
    assert difference(actual, expect(make(family), prompts, family.answers)) <= TOLERANCE


@pytest.mark.parametrize("batching", ["packed", "padded"])
@pytest.mark.parametrize(
    "settings",
    [
        {"template": CHAT_TEMPLATE},
        {"template": CHAT_TEMPLATE, "false_token": None},
        {"template": CHAT_TEMPLATE, "prompts": {"web": "Find the answer."}, "default_prompt_name": "web"},
        {},
        {"prompts": {"web": "Find the answer. "}, "default_prompt_name": "web"},
    ],
    ids=["yes and no", "yes alone", "a default prompt", "no template", "a default prompt and no template"],
)
def test_what_sentence_transformers_saved_gives_its_scores(save_cross_encoder, settings, batching):
    from sentence_transformers import CrossEncoder

    folder = save_cross_encoder(**settings)
    actual = score(folder, QUERY, DOCUMENTS, use_activation=True, batching=batching)
    expected = CrossEncoder(str(folder), device="cpu").predict([(QUERY, document) for document in DOCUMENTS])
    assert difference(actual, expected) <= 1e-5
    assert np.ptp(expected) > 0.01


def test_a_classifier_with_a_chat_template_gives_the_scores_of_sentence_transformers(checkpoint, tmp_path):
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Transformer

    plain = checkpoint("qwen3", head="ForSequenceClassification", sentence_transformers=False, num_labels=1)
    task = {"transformer_task": "sequence-classification", "processor_kwargs": {"chat_template": CHAT_TEMPLATE}}
    CrossEncoder(modules=[Transformer(str(plain), **task)], device="cpu").save_pretrained(str(tmp_path))
    actual = score(tmp_path, QUERY, DOCUMENTS, use_activation=True)
    expected = CrossEncoder(str(tmp_path), device="cpu").predict([(QUERY, document) for document in DOCUMENTS])
    assert difference(actual, expected) <= 1e-5
    assert np.ptp(expected) > 0.01


def test_a_document_is_cut_as_sentence_transformers_cuts_it(save_cross_encoder):
    """The end of the prompt survives: it is what the model answers after."""
    from sentence_transformers import CrossEncoder

    folder = save_cross_encoder(template=CHAT_TEMPLATE, max_length=96)
    assert json.loads((folder / "tokenizer_config.json").read_text())["model_max_length"] == 96
    long = [" ".join(DOCUMENTS[i:] + DOCUMENTS[:i]) for i in range(6)]
    actual = score(folder, QUERY, [*long, DOCUMENTS[0]], fields={"truncate_prompt_tokens": -1})
    reference = CrossEncoder(str(folder), device="cpu")
    from torch.nn import Identity

    expected = reference.predict([(QUERY, document) for document in (*long, DOCUMENTS[0])], activation_fn=Identity())
    assert difference(actual, expected) <= TOLERANCE
    with pytest.raises(RequestError):
        score(folder, QUERY, long[:1])


def test_a_query_is_cut_before_it_is_put_into_the_template(make):
    from transformers import AutoTokenizer

    folder = make(QWEN3)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(QUERY, add_special_tokens=False)["input_ids"][:5]
    actual = score(folder, QUERY, DOCUMENTS[:4], fields={"max_tokens_per_query": 5})
    prompts = [QWEN3.prompt(QWEN3.instruction, tokenizer.decode(ids), document) for document in DOCUMENTS[:4]]
    assert difference(actual, expect(folder, prompts, QWEN3.answers)) <= TOLERANCE


def test_the_operators_template_is_used_offline(make, tmp_path):
    template = tmp_path / "mine.jinja"
    template.write_text("{{ query }} | {{ document }} ?")
    actual = score(make(QWEN3), QUERY, DOCUMENTS[:4], score_template=template)
    prompts = [f"{QUERY} | {document} ?" for document in DOCUMENTS[:4]]
    assert difference(actual, expect(make(QWEN3), prompts, QWEN3.answers)) <= TOLERANCE
