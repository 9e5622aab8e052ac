"""Reading a model of images and texts, saved by transformers or by sentence-transformers."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from sentence_transformers import SentenceTransformer

from checkpoints import make_checkpoint, real_texts, write_json
from image_models import make_image_model, pictures
from poolkit import LLM, PoolingParams
from poolkit.config import PoolerConfig
from poolkit.contract import Expansion
from reading import read, refusal

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def clip(tmp_path):
    """A folder that the test may spoil."""
    return make_image_model(tmp_path / "clip", "clip")


def as_sentence_transformers_had_it(folder, into):
    """The layout of sentence-transformers/clip-ViT-B-32: the model lies in the folder of a module of its own."""
    shutil.copytree(folder, into / "0_CLIPModel")
    write_json(
        into / "modules.json",
        [{"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}],
    )
    return into


def test_a_config_that_leaves_out_all_that_is_usual_is_read_as_transformers_does(tmp_path):
    # as google/siglip-base-patch16-224 has it
    write_json(
        tmp_path / "config.json",
        {
            "architectures": ["SiglipModel"],
            "model_type": "siglip",
            "text_config": {"model_type": "siglip_text_model"},
            "vision_config": {"model_type": "siglip_vision_model"},
        },
    )
    write_json(tmp_path / "tokenizer_config.json", {"pad_token": {"content": "</s>"}, "model_max_length": 64})
    info = read(tmp_path)
    assert (info.max_model_len, info.embedding_size, info.vocab_size) == (64, 768, 32000)
    assert info.modalities["image"].patch_size == 16
    assert info.text.expansion == Expansion(length=64, token="</s>", attends=True, is_fixed=True)


def test_the_tokenizer_says_on_which_side_texts_are_filled_up(tmp_path):
    folder = make_image_model(tmp_path, "siglip2")
    assert read(folder).text.expansion.side == "left"  # as transformers' own tokenizer for it does
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    write_json(folder / "tokenizer_config.json", {**settings, "padding_side": "right"})
    assert read(folder).text.expansion.side == "right"


def test_without_a_token_to_fill_up_with_nothing_is_made_up(tmp_path):
    folder = make_image_model(tmp_path, "siglip")
    write_json(folder / "tokenizer_config.json", {})
    assert refusal(folder) == (
        f"{folder / 'tokenizer_config.json'} has no pad_token, with which this model's texts are filled up. Fetch the "
        "model again."
    )


def test_the_longest_text_is_the_shortest_limit(clip):
    assert read(clip).max_model_len == 64
    assert read(clip, max_model_len=20).max_model_len == 20
    assert refusal(clip, max_model_len=65) == (
        f"max_model_len is 65, but {clip} has positions for 64 tokens (config.json). Set it to that or less."
    )


def test_vectors_are_cut_where_the_operator_says_that_they_may_be(clip):
    pooler = PoolerConfig(matryoshka=True, dimensions=8)
    with LLM(str(clip), dtype="float32", pooler_config=pooler) as llm:
        text, image = (one.outputs.embedding for one in llm.embed(["a", pictures()[0]], use_tqdm=False))
    assert text.shape == image.shape == (8,)
    assert np.linalg.norm(image) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("layout", ["transformers", "old", "new"])
def test_every_layout_gives_sentence_transformers_numbers(layout, clip, tmp_path):
    folder = clip
    if layout == "old":
        folder = as_sentence_transformers_had_it(clip, tmp_path / "old")
    reference = SentenceTransformer(str(folder), device="cpu")
    if layout == "new":
        folder = tmp_path / "new"
        reference.save(str(folder), create_model_card=False)
    texts = [text for text in real_texts(20) if text]
    images = pictures()
    opened = [Image.open(_as_file(image, tmp_path / f"{place}.png")) for place, image in enumerate(images)]
    expected = [*reference.encode(texts, show_progress_bar=False), *reference.encode(opened, show_progress_bar=False)]
    raw = PoolingParams(use_activation=False, truncate_prompt_tokens=-1)
    with LLM(str(folder), dtype="float32") as llm:
        found = llm.embed([*texts, *images], pooling_params=raw, use_tqdm=False)
    for one, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.outputs.embedding, wanted, atol=1e-5)


def _as_file(image, path):
    path.write_bytes(image.data)
    return path


def test_modules_that_pool_what_the_model_has_pooled_are_refused(clip):
    modules = [("Transformer", ""), ("Pooling", "1_Pooling")]
    write_json(
        clip / "modules.json",
        [{"idx": 0, "path": path, "type": f"sentence_transformers.models.{kind}"} for kind, path in modules],
    )
    write_json(clip / "1_Pooling" / "config.json", {"word_embedding_dimension": 24, "pooling_mode": "mean"})
    assert refusal(clip) == (
        f"{clip} has sentence-transformers modules that pool the tokens of CLIPModel, which gives its vectors itself. "
        "Fetch the model again."
    )


def test_no_other_model_is_taken_for_one_that_pools_itself(tmp_path):
    folder = make_checkpoint(tmp_path, "bert")
    write_json(folder / "sentence_bert_config.json", {"module_output_name": "sentence_embedding"})
    assert refusal(folder) == (
        f"{folder / 'sentence_bert_config.json'} has module_output_name 'sentence_embedding', but BertModel gives "
        "token vectors: poolkit runs the families clip, colmodernvbert, colpali, colqwen2, siglip, siglip2 so."
    )


@pytest.mark.parametrize("family", ["clip", "siglip", "colpali", "colqwen2", "colmodernvbert"])
def test_bfloat16_keeps_directions(family, tmp_path):
    folder = str(make_image_model(tmp_path, family))
    prompts = [*pictures(), "A cat sat on the mat.", "Stock prices fell."]
    found = []
    for dtype in ("float32", "bfloat16"):
        with LLM(folder, dtype=dtype) as llm:
            found.append([one.outputs.data for one in llm.encode(prompts, use_tqdm=False)])
    for exact, rounded in zip(*found, strict=True):
        assert rounded.dtype == np.float32
        assert (exact * rounded).sum(axis=-1).min() >= 0.999
