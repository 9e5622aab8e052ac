"""The offline front on the packaged MiniLM: what goes in, what comes out, and what goes wrong."""

from collections.abc import Iterator

import numpy as np
import pytest

from closeness import assert_close
from poolkit import LLM, PoolerConfig, PoolingParams
from poolkit.errors import BatchError, ConfigError, ModelError, RequestError, UnknownTaskError

TEXTS = ["A cat sat on the mat.", "Stock prices fell sharply on Monday.", "The kitten slept on a rug."]


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM(dtype="float32") as llm:
        yield llm


def vectors(outputs) -> np.ndarray:
    return np.stack([output.outputs.embedding for output in outputs])


def test_similar_texts_have_similar_vectors(llm):
    cat, stocks, kitten = vectors(llm.embed(TEXTS, use_tqdm=False))
    assert cat @ kitten > cat @ stocks
    assert cat.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(cat), 1, atol=1e-6)


def test_one_text_gives_one_output_with_its_tokens(llm):
    [output] = llm.embed("A cat sat on the mat.", use_tqdm=False)
    assert output.outputs.embedding.shape == (384,)
    assert output.prompt_token_ids == [101, 1037, 4937, 2938, 2006, 1996, 13523, 1012, 102]


def test_token_ids_give_the_vector_of_their_text(llm):
    outputs = llm.embed(TEXTS, use_tqdm=False)
    of_ids = llm.embed([output.prompt_token_ids for output in outputs], use_tqdm=False)
    [of_one] = llm.embed(outputs[0].prompt_token_ids, use_tqdm=False)
    np.testing.assert_allclose(vectors(of_ids), vectors(outputs), atol=1e-6)
    np.testing.assert_allclose(of_one.outputs.embedding, outputs[0].outputs.embedding, atol=1e-6)


def test_texts_and_token_ids_may_be_mixed(llm):
    outputs = llm.embed([TEXTS[0], [101, 4937, 102]], use_tqdm=False)
    assert [len(output.prompt_token_ids) for output in outputs] == [9, 3]


def test_results_keep_the_order_of_many_prompts(llm):
    texts = [f"Number {number} " + "and more " * (number * 7 % 40) for number in range(200)]
    together = vectors(llm.embed(texts, use_tqdm=False))
    for number in (0, 1, 99, 100, 199):
        [alone] = vectors(llm.embed(texts[number], use_tqdm=False))
        np.testing.assert_allclose(together[number], alone, atol=1e-5)


def test_encode_gives_what_the_task_pools(llm):
    [embedded] = llm.embed(TEXTS[0], use_tqdm=False)
    [encoded] = llm.encode(TEXTS[0], pooling_task="embed", use_tqdm=False)
    assert_close(encoded.outputs.data, embedded.outputs.embedding)
    assert encoded.prompt_token_ids == embedded.prompt_token_ids


def test_a_wrong_pooling_task_is_a_value_error_that_says_what_to_do(llm):
    with pytest.raises(ValueError, match="Unsupported task") as error:
        llm.encode(TEXTS, pooling_task="classify", use_tqdm=False)
    assert str(error.value) == (
        "Unsupported task: 'classify'. This server serves 'embed'. "
        'Restart it with --task classify, or PoolerConfig(task="classify").'
    )


def test_without_its_activation_a_vector_keeps_its_length(llm):
    [raw] = llm.embed(TEXTS[0], pooling_params=PoolingParams(use_activation=False), use_tqdm=False)
    [unit] = llm.embed(TEXTS[0], use_tqdm=False)
    norm = np.linalg.norm(raw.outputs.embedding)
    assert abs(norm - 1) > 0.1
    np.testing.assert_allclose(raw.outputs.embedding / norm, unit.outputs.embedding, atol=1e-6)


def test_no_prompts_give_no_outputs(llm):
    assert llm.embed([], use_tqdm=False) == []


def test_an_empty_text_is_embedded_as_its_special_tokens(llm):
    [output] = llm.embed("", use_tqdm=False)
    assert output.prompt_token_ids == [101, 102]


def test_a_null_byte_is_embedded_as_the_tokenizer_reads_it(llm):
    with_null, without = llm.embed(["a cat\x00", "a cat"], use_tqdm=False)
    assert with_null.prompt_token_ids == without.prompt_token_ids


def test_a_lone_surrogate_is_refused(llm):
    with pytest.raises(RequestError) as error:
        llm.embed("a cat \ud800", use_tqdm=False)
    assert str(error.value) == (
        "Prompt 0: the text holds a lone surrogate (U+D800) at character 6; it is not valid Unicode"
    )


def test_a_text_that_is_too_long_is_refused_with_both_numbers(llm):
    with pytest.raises(RequestError) as error:
        llm.embed("cat " * 300_000, use_tqdm=False)
    assert str(error.value) == (
        "Prompt 0 has 300002 tokens; all-MiniLM-L6-v2 takes at most 256. Shorten it, or set truncate_prompt_tokens=-1 "
        "to have it cut to that length."
    )


def test_a_text_that_is_too_long_is_cut_when_asked(llm):
    [output] = llm.embed("cat " * 300_000, pooling_params=PoolingParams(truncate_prompt_tokens=-1), use_tqdm=False)
    assert len(output.prompt_token_ids) == 256


def test_the_operator_can_have_long_prompts_cut_where_the_request_says_nothing():
    text = "cat " * 1000
    with LLM(auto_truncate=True) as llm:
        [cut, shorter] = llm.embed(
            [text, text], pooling_params=[PoolingParams(), PoolingParams(truncate_prompt_tokens=9)], use_tqdm=False
        )
    with LLM(auto_truncate=True, enable=["chunking"]) as llm:
        [whole] = llm.embed(text, use_tqdm=False)
    assert [len(output.prompt_token_ids) for output in (cut, shorter)] == [256, 9]
    assert len(whole.prompt_token_ids) > 1000


def test_a_bad_prompt_fails_alone_and_the_other_results_are_kept(llm):
    with pytest.raises(BatchError) as error:
        llm.embed([TEXTS[0], [5, 999_999], TEXTS[1]], use_tqdm=False)
    assert str(error.value) == (
        "1 of 3 prompts failed: Prompt 1 holds token id 999999; the ids of all-MiniLM-L6-v2 go from 0 to 30521. Send "
        "text, or ids made by this model's own tokenizer (langchain's OpenAIEmbeddings sends another model's ids "
        "unless check_embedding_ctx_length=False)."
    )
    first, missing, third = error.value.outputs
    assert missing is None
    np.testing.assert_allclose(vectors([first, third]), vectors(llm.embed(TEXTS[:2], use_tqdm=False)), atol=1e-6)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (
            3,
            "input must be a string, an array of token ids, a pair {first, second}, an object of another modality such "
            "as {image}, or an array of these, got 3.",
        ),
        ([1.5, 2], "input[0] must be an integer, got 1.5."),
        ([1, "a"], "input[1] must be an integer, got 'a'."),
        (
            ["a", None],
            "input[1] must be a string, an array of token ids, a pair {first, second}, or an object of another "
            "modality such as {image}, got null.",
        ),
        ([["a"]], "input[0][0] must be an integer, got 'a'."),
        ([[1, -2]], "input[0][1] must be greater than or equal to 0, got -2."),
    ],
)
def test_input_of_the_wrong_kind_is_named(llm, prompts, message):
    with pytest.raises(RequestError) as error:
        llm.embed(prompts, use_tqdm=False)
    assert str(error.value) == message


def test_dimensions_are_refused_by_a_model_that_is_not_matryoshka(llm):
    with pytest.raises(RequestError) as error:
        llm.embed(TEXTS, pooling_params=PoolingParams(dimensions=64), use_tqdm=False)
    assert str(error.value) == (
        "all-MiniLM-L6-v2 is not a Matryoshka model: its vectors have 384 dimensions. Leave out dimensions."
    )


def test_an_operation_is_reached_by_name(llm):
    response = llm.run("embeddings", {"input": TEXTS}, use_tqdm=False)
    assert response.embeddings.shape == (3, 384)
    with pytest.raises(RequestError) as error:
        llm.run("embedings", {"input": TEXTS}, use_tqdm=False)
    assert str(error.value) == (
        "Unsupported operation: 'embedings'. Did you mean 'embeddings'? The served task 'embed' offers: embeddings, "
        "pooling, rerank, score."
    )


def test_token_ids_may_be_arrays_and_come_back_as_a_list_when_they_are_read(llm):
    ids = [101, 7592, 102]
    for prompts in (ids, [ids], np.array(ids), [np.array(ids, np.uint16)]):
        [output] = llm.embed(prompts, use_tqdm=False)
        assert (output.prompt_token_ids, output.token_ids.dtype) == (ids, np.int32)
        assert_close(output.outputs.embedding, llm.embed([ids], use_tqdm=False)[0].outputs.embedding)


@pytest.mark.parametrize(
    ("array", "problem"),
    [
        (np.array([[101, 102]]), "must be one row of integers, got an array of shape (1, 2) and type int64"),
        (np.array([101.0]), "must be one row of integers, got an array of shape (1,) and type float64"),
    ],
)
def test_an_array_that_holds_no_token_ids_is_refused(llm, array, problem):
    with pytest.raises(RequestError) as error:
        llm.embed([array], use_tqdm=False)
    assert str(error.value) == f"input[0] {problem}."
    with pytest.raises(RequestError) as error:
        llm.embed(np.array([101, -1]), use_tqdm=False)
    assert str(error.value) == "input[1] must be greater than or equal to 0, got -1."


def test_the_tokens_of_a_pair_are_those_of_its_query_and_its_document(llm):
    documents = TEXTS[1:]
    scored = llm.score(TEXTS[0], documents, use_tqdm=False)
    [query, *alone] = [output.prompt_token_ids for output in llm.embed(TEXTS, use_tqdm=False)]
    assert [output.prompt_token_ids for output in scored] == [[*query, *document] for document in alone]


def test_the_progress_bar_shows_the_count_and_the_rate(llm, capsys):
    llm.embed(TEXTS)
    shown = capsys.readouterr().err
    assert "3/3" in shown
    assert "prompts/s" in shown
    llm.embed(TEXTS, use_tqdm=False)
    assert capsys.readouterr().err == ""


def test_the_task_may_be_named_in_the_pooler_config():
    with LLM(pooler_config=PoolerConfig(task="embed")) as llm:
        assert llm.supported_tasks == ("embed",)


def test_the_report_says_which_path_the_model_takes_and_why():
    with LLM(engine="torch") as llm:
        report = {decision.name: decision for decision in llm.decisions}
    assert report["path"].value == "packed"
    assert report["path"].source.startswith("the self-check: packed agrees with padded")
    assert report["pooling"].value == "mean"
    assert report["pooling"].source == "1_Pooling/config.json"


@pytest.mark.parametrize(
    ("arguments", "error_type", "message"),
    [
        (
            {"dtype": "int4"},
            ConfigError,
            "dtype must be 'auto', 'float32', 'bfloat16', 'float16' or 'int8', got 'int4'.",
        ),
        (
            {"task": "embd"},
            UnknownTaskError,
            "no task named 'embd'. Did you mean 'embed'?\n"
            "  Enabled tasks: classify, embed, reward, token_classify, token_embed.",
        ),
        (
            {"task": "embed", "pooler_config": PoolerConfig(task="classify")},
            ConfigError,
            "task is 'embed' and pooler_config.task is 'classify'. Name one task.",
        ),
    ],
)
def test_a_wrong_argument_is_named(arguments, error_type, message):
    with pytest.raises(error_type) as error:
        LLM(**arguments)
    assert str(error.value) == message


def test_a_model_that_is_not_there_is_named():
    with pytest.raises(ModelError, match="no-such-folder"):
        LLM("./no-such-folder")
