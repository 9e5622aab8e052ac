"""The operator's pooling settings are honoured, or refused at start-up with what would go instead."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from checkpoints import real_texts
from closeness import assert_close
from poolkit import LLM, PoolerConfig
from poolkit.config import ModelConfig, PluginConfig, Reference
from poolkit.contract import Decision
from poolkit.errors import BatchError, ConfigError
from poolkit.pipeline import prepare_model


def prepare(
    folder: Path | str, *, task: str | None = None, plugins: PluginConfig | None = None, **pooler: object
) -> None:
    config = ModelConfig(model=str(folder), task=task, pooler_config=PoolerConfig(**pooler))
    prepare_model(config, plugins or PluginConfig()).task.close()


def refusal(folder: Path | str, **settings: object) -> str:
    with pytest.raises(ConfigError) as caught:
        prepare(folder, **settings)
    return str(caught.value)


@pytest.fixture
def classifier(checkpoint):
    return checkpoint("bert", head="ForSequenceClassification", sentence_transformers=False)


@pytest.fixture
def tagger(checkpoint):
    return checkpoint("bert", head="ForTokenClassification", sentence_transformers=False)


def test_a_pooling_that_does_not_go_with_the_task_is_refused_with_what_does(minilm, classifier, tagger):
    assert refusal(minilm, task="token_embed", pooling_type="MEAN") == (
        f"pooler_config.pooling_type is 'MEAN', but task 'token_embed' of {minilm} goes with ALL. Take one, or another "
        "task."
    )
    assert refusal(tagger, task="reward", pooling_type="CLS") == (
        f"pooler_config.pooling_type is 'CLS', but task 'reward' of {tagger} goes with ALL or STEP. Take one, or "
        "another task."
    )
    assert refusal(classifier, pooling_type="LAST") == (
        f"pooler_config.pooling_type is 'LAST', but task 'classify' of {classifier} reads what its head was made to "
        "read. Leave pooling_type out."
    )


def test_all_fields_that_have_no_effect_are_told_together(minilm):
    assert refusal(minilm, logit_sigma=2.0, step_tag_id=5, returned_token_ids=(1, 2), max_embed_len=999).split(
        "\n"
    ) == [
        "pooler_config.step_tag_id is 5, but task 'embed' does not know step_tag_id. Leave it out.",
        "pooler_config.returned_token_ids is (1, 2), but task 'embed' does not know returned_token_ids. Leave it out.",
        "pooler_config.logit_sigma is 2.0, but task 'embed' has no logits of whole texts. Leave it out.",
        "pooler_config.max_embed_len is 999, but longer prompts run in chunks only with "
        "pooler_config.enable_chunked_processing. Set that too, or set max_model_len.",
    ]


def test_vectors_settings_are_refused_for_scores(classifier):
    assert refusal(classifier, dimensions=8, matryoshka=True).split("\n") == [
        "pooler_config.dimensions is 8, but task 'classify' does not know dimensions. Leave it out.",
        "pooler_config.matryoshka is True, but task 'classify' does not know dimensions. Leave it out.",
    ]


def test_chunks_need_outputs_that_can_be_put_together(tagger):
    assert refusal(tagger, enable_chunked_processing=True) == (
        "pooler_config.enable_chunked_processing is True, but what task 'token_classify' answers for the chunks of a "
        "text cannot be put together. Leave it out."
    )


def test_chunks_need_their_plugin(minilm):
    plugins = PluginConfig(disable=(Reference("chunking", "--no-plugin"),))
    assert refusal(minilm, enable_chunked_processing=True, plugins=plugins) == (
        "pooler_config.enable_chunked_processing needs the plugin poolkit-chunking, which is disabled by --no-plugin. "
        "Leave out one or the other."
    )


def test_long_prompts_run_in_chunks_up_to_the_longest_that_is_allowed():
    text = " ".join(text for text in real_texts(60) if len(text) > 100)[:2000]
    with LLM(enable=["chunking"], dtype="float32") as llm:
        [expected] = llm.embed(text, use_tqdm=False)
    length = len(expected.prompt_token_ids)
    assert length > 256
    pooler = PoolerConfig(enable_chunked_processing=True, max_embed_len=length)
    with LLM(dtype="float32", pooler_config=pooler) as llm:
        [output] = llm.embed(text, use_tqdm=False)
        assert_close(output.outputs.embedding, expected.outputs.embedding)
        with pytest.raises(BatchError) as caught:
            llm.embed([text, text * 2], use_tqdm=False)
        refusal = str(caught.value.errors[1])
        assert refusal.startswith("Prompt 1 has ")
        assert refusal.endswith(
            f" tokens; in chunks all-MiniLM-L6-v2 is given at most {length} (pooler_config.max_embed_len). Shorten it, "
            "or set truncate_prompt_tokens=-1 to have it cut to the model's maximum."
        )
        line = Decision("long prompts", f"in chunks, up to {length} tokens", "pooler_config.enable_chunked_processing")
        assert line in llm.decisions


def test_any_model_can_be_said_to_be_matryoshka():
    with LLM(dtype="float32") as llm:
        [whole] = llm.embed("A cat sat on the mat.", use_tqdm=False)
    with LLM(dtype="float32", pooler_config=PoolerConfig(matryoshka=True, dimensions=64)) as llm:
        [cut] = llm.embed("A cat sat on the mat.", use_tqdm=False)
    expected = whole.outputs.embedding[:64]
    assert np.abs(cut.outputs.embedding - expected / np.linalg.norm(expected)).max() <= 1e-6


def test_late_interaction_that_is_switched_off_for_a_task_without_any_is_told():
    with LLM(dtype="float32", pooler_config=PoolerConfig(enable_flash_late_interaction=False)) as llm:
        report = {one.name: (one.value, one.source) for one in llm.decisions}
    assert report["late interaction"] == (
        "not used: task 'embed' has none",
        "pooler_config.enable_flash_late_interaction",
    )


def test_every_pooler_field_can_be_given_on_the_command_line():
    from typer.main import get_command

    from poolkit.cli.main import app

    options = {name for one in get_command(app).commands["inspect"].params for name in one.opts}
    flags = {f"--pooler-config.{field.replace('_', '-')}" for field in PoolerConfig.model_fields}
    assert flags <= options


def test_a_template_for_a_task_that_reads_none_is_refused():
    with pytest.raises(ConfigError) as caught:
        prepare_model(ModelConfig(score_template="mine.jinja"), PluginConfig())
    assert str(caught.value) == (
        "score_template is 'mine.jinja', but task 'embed' reads no queries and documents together. Leave it out, or "
        "serve classify."
    )
