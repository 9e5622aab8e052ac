"""Entities are those of transformers' pipeline "token-classification": every strategy, every kind of tokenizer."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import transformers

from checkpoints import VOCABULARY, real_texts, write_json
from closeness import assert_close
from poolkit import LLM, AggregationStrategy, PoolerConfig, PoolingParams, TextPair, create_app
from poolkit.errors import BatchError, RequestError, UnsupportedTaskError
from serving import ask, fake_model

pytestmark = pytest.mark.usefixtures("one_thread")

LABELS = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC", 4: "I-LOC", 5: "MISC", 6: "B-A-B"}
STRATEGIES = [strategy.value for strategy in AggregationStrategy]
TEXTS = [
    "",
    " ",
    "Ada Lovelace was born in London.",
    "  spaces   around  and between  ",
    "naïve café, ÅNGSTRÖM and e\u0301te\u0301",
    "東京タワー is in 東京.",
    "😀 ok 👩‍👩‍👧 family 🏳️‍🌈",
    "tabs\tand\nnew lines\r\nand \u00a0 hard spaces",
    "[CLS] special </s> <s> tokens [SEP] in the text",
    "zero\u200bwidth and \u202eright-to-left and ﬁ ligature",
    *(text[:200] for text in real_texts(40)[10:]),
]
TOLERANCE = 1e-5
"""Of scores: sums in another order differ by less than 1e-6 here; the promise for what follows from logits is 1e-4."""


@pytest.fixture(scope="module")
def folders(checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    settings = {
        "head": "ForTokenClassification",
        "sentence_transformers": False,
        "num_labels": len(LABELS),
        "id2label": LABELS,
    }
    unigram = tmp_path_factory.mktemp("unigram") / "model"
    shutil.copytree(checkpoint("xlm_roberta", **settings), unigram)
    save_unigram_tokenizer(unigram)
    return {
        "word pieces": checkpoint("bert", **settings),
        "bytes": checkpoint("roberta", **settings),
        "no special token before": checkpoint("qwen3", **settings),
        "unigram": unigram,
    }


def save_unigram_tokenizer(folder: Path) -> None:
    """Save a tokenizer as SentencePiece's are: spaces become a character, pieces have scores, and some are unknown."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=VOCABULARY, special_tokens=specials, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator([text for text in real_texts(400) if text.isascii()], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=512, pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(folder)


@pytest.fixture(scope="module")
def models(folders: dict[str, Path]) -> Iterator[dict[str, LLM]]:
    loaded = {name: LLM(str(folder), dtype="float32") for name, folder in folders.items()}
    yield loaded
    for llm in loaded.values():
        llm.close()


@pytest.fixture(scope="module")
def references(folders: dict[str, Path]) -> dict[str, transformers.Pipeline]:
    return {name: transformers.pipeline("token-classification", str(folder)) for name, folder in folders.items()}


KINDS = ["word pieces", "bytes", "no special token before", "unigram"]


@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words:UserWarning")
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", KINDS)
def test_entities_are_those_of_the_pipeline(models, references, kind, strategy):
    texts = TEXTS if kind != "no special token before" else TEXTS[1:]
    outputs = models[kind].token_classify(texts, aggregation_strategy=strategy, use_tqdm=False)
    found = 0
    for text, output in zip(texts, outputs, strict=True):
        expected = references[kind](text, aggregation_strategy=strategy)
        entities = [entity.model_dump() for entity in output.outputs.entities]
        assert [without_score(entity) for entity in entities] == [without_score(entity) for entity in expected], text
        scores = [entity["score"] for entity in entities], [entity["score"] for entity in expected]
        np.testing.assert_allclose(*scores, atol=TOLERANCE, rtol=0)
        found += len(entities)
    assert found > 100


def without_score(entity):
    return {name: value for name, value in entity.items() if name != "score"}


@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words:UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_entities_of_a_truncated_text_are_where_they_are_in_it(models, references, kind):
    text = "Ada Lovelace was born in London, and 東京 is far away from there."
    params = {"truncate_prompt_tokens": 12}
    [whole] = models[kind].token_classify(text, use_tqdm=False)
    tokenizer = references[kind].tokenizer
    places = set(tokenizer(text, return_offsets_mapping=True)["offset_mapping"])
    for side in ("left", "right"):
        cut = PoolingParams(**params, truncation_side=side)
        [output] = models[kind].token_classify(text, pooling_params=cut, use_tqdm=False)
        assert len(output.prompt_token_ids) == 12 < len(whole.prompt_token_ids)
        entities = output.outputs.entities
        assert entities
        assert {(entity.start, entity.end) for entity in entities} <= places
        assert (min(entity.start for entity in entities) > 5) is (side == "left")


@pytest.mark.parametrize("kind", KINDS[:2])
def test_places_are_counted_in_the_text_where_a_prompt_goes_before_it(folders, references, tmp_path, kind):
    prompt, text = "entities: ", "Ada was born in London."
    folder = tmp_path / "model"
    shutil.copytree(folders[kind], folder)
    transformer = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
    write_json(folder / "modules.json", [transformer])
    write_json(folder / "config_sentence_transformers.json", {"prompts": {"find": prompt}})
    with LLM(str(folder), dtype="float32") as llm:
        found = llm.token_classify(text, pooling_params=PoolingParams(prompt_name="find"), use_tqdm=False)
    expected = [
        {**entity, "start": max(0, entity["start"] - len(prompt)), "end": entity["end"] - len(prompt)}
        for entity in references[kind](prompt + text)
        if entity["end"] > len(prompt)
    ]
    assert expected
    assert [without_score(one.model_dump()) for one in found[0].outputs.entities] == list(map(without_score, expected))


def test_without_its_activation_a_score_is_the_logit(models):
    [raw] = models["bytes"].token_classify(
        "Ada was born.", pooling_params=PoolingParams(use_activation=False), use_tqdm=False
    )
    [logits] = models["bytes"].encode(
        "Ada was born.", pooling_params=PoolingParams(use_activation=False), use_tqdm=False
    )
    assert raw.outputs.entities
    for entity in raw.outputs.entities:
        assert entity.score == pytest.approx(float(logits.outputs.data[entity.index].max()), abs=1e-6)


def test_encode_gives_the_scores_of_every_label_for_every_token(models, folders):
    model = transformers.AutoModelForTokenClassification.from_pretrained(folders["bytes"]).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders["bytes"])
    text = "Ada was born in London."
    [output] = models["bytes"].encode(text, pooling_task="token_classify", use_tqdm=False)
    expected = model(**tokenizer(text, return_tensors="pt")).logits[0].softmax(-1).detach().numpy()
    np.testing.assert_allclose(output.outputs.data, expected, atol=TOLERANCE)


@pytest.mark.parametrize("prompts", [[5, 6, 7], [TextPair("a", "b")]])
def test_what_is_no_text_is_refused_and_the_way_out_is_named(models, prompts):
    with pytest.raises(RequestError) as error:
        models["bytes"].token_classify(prompts, use_tqdm=False)
    assert str(error.value) == (
        "Prompt 0 is no text, and entities are places in a text. Send the text, or ask /pooling (offline LLM.encode) "
        "for the scores of each token."
    )


def test_a_strategy_that_does_not_exist_is_named(models):
    with pytest.raises(RequestError) as error:
        models["bytes"].token_classify("a", aggregation_strategy="best", use_tqdm=False)
    assert str(error.value) == (
        "aggregation_strategy must be 'none', 'simple', 'first', 'average' or 'max', got 'best'."
    )


def test_a_text_that_fails_leaves_the_logits_of_the_others(models):
    with pytest.raises(BatchError) as error:
        models["bytes"].token_classify(["Ada was born.", "Ada " * 1000], use_tqdm=False)
    kept, missing = error.value.outputs
    assert missing is None
    [alone] = models["bytes"].encode(
        "Ada was born.", pooling_params=PoolingParams(use_activation=False), use_tqdm=False
    )
    np.testing.assert_allclose(kept.outputs.data, alone.outputs.data, atol=1e-5)


def test_a_tokenizer_that_tells_no_characters_finds_entities_without_a_place(folders, tmp_path):
    """ByT5's tokenizer is written in Python."""
    folder = tmp_path / "model"
    shutil.copytree(folders["bytes"], folder)
    for file in folder.glob("*token*"):
        file.unlink()
    transformers.ByT5Tokenizer(extra_ids=0, model_max_length=512).save_pretrained(folder)
    pipeline = transformers.pipeline("token-classification", str(folder))
    with LLM(str(folder), dtype="float32") as llm:
        for strategy in ("none", "simple"):
            [output] = llm.token_classify("Ada was naïve.", aggregation_strategy=strategy, use_tqdm=False)
            expected = pipeline("Ada was naïve.", aggregation_strategy=strategy)
            entities = [entity.model_dump() for entity in output.outputs.entities]
            assert [without_score(one) for one in entities] == [without_score(one) for one in expected]
            assert {one["start"] for one in entities} == {None}
        with pytest.raises(RequestError) as error:
            llm.token_classify("Ada was naïve.", aggregation_strategy="first", use_tqdm=False)
    assert str(error.value) == (
        f"aggregation_strategy is 'first', but the tokenizer of {folder} does not tell which tokens make up a word. "
        "Use 'simple' or 'none'."
    )


def test_the_route_answers_what_the_offline_call_does(models):
    llm = models["word pieces"]
    app = create_app(llm)
    for strategy in STRATEGIES:
        outputs = llm.token_classify(TEXTS[2:5], aggregation_strategy=strategy, use_tqdm=False)
        body = {"model": llm.served.name, "input": TEXTS[2:5], "aggregation_strategy": strategy}
        answer = ask(app, "POST", "/token_classify", json=body).json()
        assert answer["object"] == "list"
        assert answer["usage"]["prompt_tokens"] == sum(len(output.prompt_token_ids) for output in outputs)
        assert [item["index"] for item in answer["data"]] == [0, 1, 2]
        for item, output in zip(answer["data"], outputs, strict=True):
            expected = [entity.model_dump() for entity in output.outputs.entities]
            assert list(map(without_score, item["entities"])) == list(map(without_score, expected))
            assert_close([one["score"] for one in item["entities"]], [one["score"] for one in expected])
        fields = {"score", "word", "start", "end"} | ({"entity", "index"} if strategy == "none" else {"entity_group"})
        assert {frozenset(entity) for item in answer["data"] for entity in item["entities"]} == {frozenset(fields)}


def test_pooling_answers_the_scores_of_each_token(models):
    llm = models["word pieces"]
    app = create_app(llm)
    answer = ask(app, "POST", "/pooling", json={"input": TEXTS[2], "task": "token_classify"}).json()
    [output] = llm.encode(TEXTS[2], use_tqdm=False)
    assert_close(answer["data"][0]["data"], output.outputs.data)


def test_a_route_of_another_task_says_what_serves_it():
    with fake_model("embed") as served:
        response = ask(create_app(served), "POST", "/token_classify", json={"input": "a"})
    assert response.status_code == 400
    assert response.json()["error"]["message"] == (
        "/token_classify needs the operation 'token_classify'. This server serves the task 'embed', which offers: "
        f"{', '.join(sorted(served.operations))}. Restart it with --task token_classify."
    )


def test_a_model_that_answers_steps_is_served_as_reward(folders):
    with pytest.raises(UnsupportedTaskError) as error:
        LLM(str(folders["bytes"]), task="token_classify", pooler_config=PoolerConfig(pooling_type="STEP"))
    assert str(error.value).startswith(
        f"model {str(folders['bytes'])!r} cannot serve 'token_classify': its pooling_type is STEP, which answers steps "
        "and not tokens; serve it as reward.\n"
    )
