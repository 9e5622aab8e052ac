"""The model's prompts, put before texts and left out of pooling, give the vectors of sentence-transformers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer

from checkpoints import make_checkpoint, real_texts, write_json
from engines import TOLERANCE, encode_prompts, largest_difference, load_encoder, load_engine
from poolkit.contract import PoolingParams

PROMPTS = {"query": "Find what answers this question: ", "document": "passage: ", "bare": ""}
MODES = ["cls", "mean", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
LAST = {"bert": {"sep_token": "[SEP]"}, "roberta": {"eos_token": "</s>"}, "qwen3": {"eos_token": "</s>"}}
TEXTS = [text for text in real_texts(60) if text][:40]


def make(folder: Path, family: str, *, include_prompt: bool) -> Path:
    make_checkpoint(folder, family, pooling=MODES)
    write_json(folder / "config_sentence_transformers.json", {"prompts": PROMPTS, "default_prompt_name": "query"})
    pooling = folder / "1_Pooling" / "config.json"
    write_json(pooling, {**json.loads(pooling.read_text()), "include_prompt": include_prompt})
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens(LAST[family])  # sentence-transformers asks the tokenizer whether the last token is one
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, bool], Path]:
    return {
        (family, include): make(tmp_path_factory.mktemp("prompts"), family, include_prompt=include)
        for family in ("bert", "roberta", "qwen3")
        for include in (True, False)
    }


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("include_prompt", [True, False])
@pytest.mark.parametrize("family", ["bert", "roberta", "qwen3"])
@pytest.mark.parametrize("batching", ["packed", "padded"])
def test_every_way_to_choose_a_prompt_gives_the_references_vectors(models, family, include_prompt, batching):
    folder = models[family, include_prompt]
    reference = SentenceTransformer(str(folder), device="cpu")
    encoder, engine = load_encoder(folder), load_engine(folder, batching=batching)
    expected = {
        PoolingParams(): reference.encode(TEXTS),
        PoolingParams(prompt_name="document"): reference.encode(TEXTS, prompt_name="document"),
        PoolingParams(prompt_name="bare"): reference.encode(TEXTS, prompt_name="bare"),
        PoolingParams(input_type="query"): reference.encode_query(TEXTS),
        PoolingParams(input_type="document"): reference.encode_document(TEXTS),
    }
    asked = [(params, index) for index in range(len(TEXTS)) for params in expected]  # all kinds in one batch
    params = [replace(one, truncate_prompt_tokens=-1) for one, _ in asked]
    encoded = encode_prompts(encoder, [TEXTS[index] for _, index in asked], params, first_index=0)
    outputs = [output.data for output in engine.forward(encoded)]
    assert largest_difference(outputs, np.stack([expected[one][index] for one, index in asked])) <= TOLERANCE
