"""Recognising rerankers that answer with a token, and refusing the rest."""

from __future__ import annotations

import json

import pytest

from checkpoints import write_json
from poolkit.contract import Activation, Decision, LogitScore, Output
from poolkit.errors import ConfigError, ModelError
from reading import read
from rerankers import GEMMA, KNOWN, MXBAI, QWEN3

BEST_IS_LOGITS = (Output.LOGITS, Output.VECTOR, Output.TOKEN_VECTORS, Output.HIDDEN, Output.LABEL_LOGITS)
CONFIG = {"hidden_size": 48, "vocab_size": 800, "max_position_embeddings": 512}
NO_TEMPLATE = Decision("score template", "none: query and document as the tokenizer joins two texts", "no file")


def make(folder, *, model_type="qwen3", architecture="Qwen3ForCausalLM", chat_template=None, **config):
    """The files that say what a model is; nothing here reads weights."""
    write_json(folder / "config.json", {"model_type": model_type, "architectures": [architecture], **CONFIG, **config})
    write_json(folder / "tokenizer_config.json", {"model_max_length": 512, "bos_token": "<s>"})
    if chat_template is not None:
        (folder / "chat_template.jinja").write_text(chat_template)
    return folder


def add_logit_score(folder, **settings):
    names = ["base.modules.transformer.Transformer", "cross_encoder.modules.logit_score.LogitScore"]
    write_json(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": "1_LogitScore" if i else "", "type": f"sentence_transformers.{name}"}
            for i, name in enumerate(names)
        ],
    )
    write_json(folder / "1_LogitScore" / "config.json", settings)
    forward = {"method": "forward", "method_output_name": "logits"}
    modalities = {"text": forward, "message": {**forward, "format": "flat"}}
    write_json(
        folder / "sentence_bert_config.json",
        {"transformer_task": "text-generation", "modality_config": modalities, "module_output_name": "causal_logits"},
    )
    return folder


def decisions(info):
    return [one for one in info.decisions if one.name in ("score", "score template", "label activation")]


@pytest.mark.parametrize("family", KNOWN, ids=lambda family: family.name)
def test_the_known_families_are_recognised_by_their_names(tmp_path, family):
    architecture = f"{family.made_of.capitalize()}ForCausalLM"
    folder = make(tmp_path / family.name, model_type=family.made_of, architecture=architecture)
    info = read(folder)
    assert info.reranker.logit_score == LogitScore(*family.answers)
    assert (info.outputs, info.num_labels, info.label_activation) == (BEST_IS_LOGITS, 1, Activation.SIGMOID)
    words = " less that of ".join(repr(token) for token in family.answers)
    assert decisions(info) == [
        Decision("score", f"the logit of {words}", f"the name {family.name!r}"),
        Decision("score template", f"{family.template}, shipped with poolkit", f"the name {family.name!r}"),
        Decision("label activation", "sigmoid", "one label, single_label_classification"),
    ]


def test_a_copy_in_the_hubs_cache_has_the_name_of_its_repository(tmp_path):
    cached = make(tmp_path / "models--Qwen--Qwen3-Reranker-4B" / "snapshots" / "0123abc")
    assert read(cached).reranker.logit_score == LogitScore("yes", "no")


def test_a_renamed_copy_is_recognised_by_its_chat_template(tmp_path):
    template = QWEN3.prompt("{{ i }}", "{{ q }}", "{{ d }}")
    info = read(make(tmp_path / "mine", chat_template=template))
    assert info.reranker.logit_score == LogitScore("yes", "no")
    assert decisions(info)[0].source == "its chat template"


def test_a_finetune_is_recognised_by_the_model_that_it_was_made_of(tmp_path):
    info = read(make(tmp_path / "mine", _name_or_path="Qwen/Qwen3-Reranker-0.6B"))
    assert decisions(info)[0].source == "the name 'Qwen3-Reranker-0.6B'"


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("Qwen3-0.6B", {"chat_template": "{{ messages }}"}),
        ("my-reranker", {}),
        ("Qwen3-Embedding-0.6B", {}),
        ("Qwen3-VL-Reranker-2B", {"model_type": "qwen3_vl", "architecture": "Qwen3VLForConditionalGeneration"}),
        ("Qwen3-Reranker-0.6B", {"model_type": "llama", "architecture": "LlamaForCausalLM"}),
        ("bge-reranker-v2-m3", {"model_type": "xlm-roberta", "architecture": "XLMRobertaModel", "pad_token_id": 1}),
    ],
)
def test_no_other_model_is_taken_for_a_reranker(tmp_path, name, settings):
    info = read(make(tmp_path / name, **settings))
    assert (info.reranker.logit_score, info.reranker.prompt, info.label_names) == (None, None, None)
    assert info.outputs[0] is Output.VECTOR


def test_an_embedder_with_a_pooling_module_stays_one_whatever_its_name(tmp_path):
    folder = make(tmp_path / "Qwen3-Reranker-0.6B")
    types = [f"sentence_transformers.models.{kind}" for kind in ("Transformer", "Pooling")]
    write_json(folder / "modules.json", [{"path": f"{i or ''}", "type": kind} for i, kind in enumerate(types)])
    write_json(folder / "1" / "config.json", {"pooling_mode": "lasttoken"})
    info = read(folder)
    assert (info.reranker.logit_score, info.reranker.prompt, info.outputs[0]) == (None, None, Output.VECTOR)


def test_a_converted_checkpoint_keeps_its_classifier_and_gets_the_template(tmp_path):
    folder = make(tmp_path / "Qwen3-Reranker-0.6B-seq-cls", architecture="Qwen3ForSequenceClassification", num_labels=1)
    info = read(folder)
    assert info.reranker.logit_score is None
    assert info.reranker.prompt is not None
    assert info.outputs[0] is Output.LOGITS
    assert decisions(info)[0] == Decision(
        "score template", "qwen3_reranker.jinja, shipped with poolkit", "the name 'Qwen3-Reranker-0.6B-seq-cls'"
    )


def test_what_sentence_transformers_saved_goes_before_the_name(tmp_path):
    template = "{{ messages[0].content }} {{ messages[1].content }}"
    folder = add_logit_score(
        make(tmp_path / MXBAI.name, model_type="qwen2", architecture="Qwen2ForCausalLM", chat_template=template),
        true_token_id=16,
        false_token_id=None,
        module_input_name="causal_logits",
    )
    write_json(
        folder / "config_sentence_transformers.json",
        {"activation_fn": "torch.nn.modules.linear.Identity", "prompts": {"web": "Find"}, "default_prompt_name": "web"},
    )
    info = read(folder)
    assert info.reranker.logit_score == LogitScore(16)
    assert info.label_activation is Activation.IDENTITY
    assert info.reranker.prompt is not None
    assert (info.reranker.prompt.template, info.reranker.prompt.instruction) == (template, "Find")
    assert decisions(info) == [
        Decision("score", "the logit of 16", "1_LogitScore/config.json"),
        Decision("score template", "the model's chat template", "sentence_bert_config.json"),
        Decision("label activation", "identity", "config_sentence_transformers.json activation_fn"),
    ]


def test_without_a_chat_template_the_tokenizer_joins_query_and_document(tmp_path):
    info = read(add_logit_score(make(tmp_path / "mine"), true_token_id=16, false_token_id=15))
    assert (info.reranker.logit_score, info.reranker.prompt) == (LogitScore(16, 15), None)
    assert decisions(info)[1] == NO_TEMPLATE


@pytest.mark.parametrize(
    ("named", "tokens"),
    [
        ({"classifier_from_token": ["no", "yes"], "method": "from_2_way_softmax"}, LogitScore("yes", "no")),
        ({"classifier_from_token": ["no", "yes"]}, LogitScore("yes", "no")),
        ({"classifier_from_token": ["Yes"], "method": "no_post_processing"}, LogitScore("Yes")),
    ],
    ids=str,
)
def test_the_words_of_vllm_are_understood(tmp_path, named, tokens):
    saved = read(make(tmp_path / "mine", **named))
    assert saved.reranker.logit_score == tokens
    assert decisions(saved)[:2] == [Decision("score", str(tokens), "config.json classifier_from_token"), NO_TEMPLATE]
    overridden = read(
        make(tmp_path / "chat"), hf_overrides={"architectures": ["Qwen3ForSequenceClassification"], **named}
    )
    assert overridden.reranker.logit_score == tokens
    assert decisions(overridden)[0].source == "hf_overrides classifier_from_token"


def test_an_original_qwen3_reranker_gets_its_template_whatever_its_name(tmp_path):
    overrides = {"classifier_from_token": ["no", "yes"], "is_original_qwen3_reranker": True}
    info = read(make(tmp_path / "mine"), hf_overrides=overrides)
    assert decisions(info)[1] == Decision(
        "score template", "qwen3_reranker.jinja, shipped with poolkit", "hf_overrides is_original_qwen3_reranker"
    )


def test_the_operators_template_goes_before_every_other(tmp_path):
    template = tmp_path / "mine.jinja"
    template.write_text("{{ query }} {{ document }}")
    folder = make(tmp_path / GEMMA.name, model_type="gemma", architecture="GemmaForCausalLM")
    info = read(folder, score_template=template)
    assert info.reranker.prompt is not None
    assert info.reranker.prompt.template == "{{ query }} {{ document }}"
    assert decisions(info)[1] == Decision("score template", str(template), "score_template")


def refusal(folder, error=ModelError, **settings):
    with pytest.raises(error) as caught:
        read(folder, **settings)
    return str(caught.value)


def test_a_template_that_is_not_there_is_refused(tmp_path):
    missing = tmp_path / "missing.jinja"
    assert refusal(make(tmp_path / QWEN3.name), ConfigError, score_template=missing) == (
        f"score_template is {str(missing)!r}, which cannot be read: No such file or directory."
    )


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ({"classifier_from_token": ["no", "maybe", "yes"]}, "['no', 'maybe', 'yes']"),
        (
            {"classifier_from_token": ["no", "yes"], "method": "no_post_processing"},
            "['no', 'yes'] with method 'no_post_processing'",
        ),
        (
            {"classifier_from_token": ["yes"], "method": "from_2_way_softmax"},
            "['yes'] with method 'from_2_way_softmax'",
        ),
        ({"classifier_from_token": "yes"}, "'yes'"),
    ],
    ids=str,
)
def test_tokens_that_make_no_one_score_are_refused(tmp_path, named, words):
    folder = make(tmp_path / "mine", **named)
    assert refusal(folder) == (
        f"config.json of the model in {folder} has classifier_from_token {words}; poolkit makes one score: of "
        "[no, yes] (from_2_way_softmax), or of [yes] alone (no_post_processing)."
    )


def test_an_unknown_method_is_refused(tmp_path):
    folder = make(tmp_path / "mine", classifier_from_token=["yes"], method="magic")
    assert refusal(folder) == (
        f"config.json of the model in {folder} has method 'magic', which poolkit does not know. It knows "
        "from_2_way_softmax, no_post_processing."
    )


def test_a_logit_score_without_a_token_is_refused(tmp_path):
    folder = add_logit_score(make(tmp_path / "mine"), false_token_id=3)
    assert refusal(folder) == (
        f"{folder}/1_LogitScore/config.json must have a whole number true_token_id, and false_token_id or null. Fetch "
        "it again."
    )


def test_what_is_handed_to_a_chat_template_must_be_known(tmp_path):
    folder = add_logit_score(make(tmp_path / "mine", chat_template="{{ messages }}"), true_token_id=1)
    path = folder / "sentence_bert_config.json"
    handed = {"chat_template": {"add_generation_prompt": True, "enable_thinking": False}}
    write_json(path, {**json.loads(path.read_text()), "processing_kwargs": handed})
    assert refusal(folder) == (
        f"{path} hands 'enable_thinking' to the chat template; poolkit knows add_generation_prompt and restore_suffix. "
        "Set score_template to a template of your own."
    )
