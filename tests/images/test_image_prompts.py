"""Images as prompts: among texts, on the wire, through plugins, and what is said of those that cannot be read."""

from __future__ import annotations

import asyncio
import base64
import re
import sys

import numpy as np
import pytest

from closeness import assert_close
from image_models import IMAGE_FAMILIES, RETRIEVERS, TOWERS, picture, pictures
from poolkit import LLM, EmbeddingsRequest, ImagePrompt, PoolerConfig, PoolingParams
from poolkit.errors import BatchError, ConfigError, ModelError, RequestError
from poolkit.images import reader as reading
from poolkit.pipeline import served

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = ["A cat sat on the mat.", "a", "Stock prices fell, as they had the day before."]


def pool(llm, prompts, **params):
    outputs = llm.encode(prompts, pooling_params=PoolingParams(**params), use_tqdm=False)
    return [output.outputs.data for output in outputs]


def as_json(image):
    return {"image": base64.b64encode(image.data).decode()}


def refusal(llm, prompt):
    with pytest.raises(RequestError) as caught:
        llm.encode([prompt], use_tqdm=False)
    return str(caught.value)


@pytest.mark.parametrize("family", IMAGE_FAMILIES)
def test_an_image_gives_the_same_alone_and_among_texts_and_other_images(family, load):
    llm = load(family)
    images = pictures()
    alone = [pool(llm, [image])[0] for image in images]
    texts = pool(llm, TEXTS)
    together = pool(llm, [TEXTS[0], images[0], TEXTS[1], *images[1:], TEXTS[2]])
    expected = [texts[0], alone[0], texts[1], *alone[1:], texts[2]]
    for found, wanted in zip(together, expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)  # other sums where other images run along
    assert not np.allclose(alone[0], alone[3][: len(alone[0])], atol=1e-3)  # of one shape, but another picture


@pytest.mark.parametrize("family", IMAGE_FAMILIES)
def test_images_give_the_same_over_http(family, load, post):
    llm = load(family)
    images = pictures()
    expected = pool(llm, [TEXTS[0], *images])
    answer = post(family, "/pooling", {"input": [TEXTS[0], *map(as_json, images)]}).json()
    for found, wanted in zip(answer["data"], expected, strict=True):
        assert_close(found["data"], wanted)
    outputs = llm.encode([TEXTS[0], *images], use_tqdm=False)
    assert answer["usage"]["prompt_tokens"] == sum(len(output.prompt_token_ids) for output in outputs)


@pytest.mark.parametrize("family", ["clip", "colqwen2"])
@pytest.mark.parametrize("form", reading.FORMATS)
def test_every_format_is_told_by_its_content(family, form, load):
    [vectors] = pool(load(family), picture(40, 40, form=form))
    assert np.isfinite(vectors).all()


def test_a_format_that_another_program_would_decode_is_refused(load):
    assert "its format is none of" in refusal(load("clip"), picture(40, 40, form="EPS"))


def test_one_image_is_a_request_by_itself(load, post):
    image = picture(40, 60)
    [expected] = pool(load("clip"), image)
    data_uri = f"data:image/png;base64,{as_json(image)['image']}"
    answer = post("clip", "/v1/embeddings", {"input": {"image": data_uri}}).json()
    assert_close(answer["data"][0]["embedding"], expected)


def test_an_image_is_read_from_a_file(tmp_path):
    image = picture(40, 60)
    path = tmp_path / "picture.png"
    path.write_bytes(image.data)
    assert ImagePrompt.read(path) == image
    assert repr(image) == "ImagePrompt()"  # no megabytes in a log


def test_one_that_cannot_be_read_fails_alone(load):
    llm = load("clip")
    with pytest.raises(BatchError) as caught:
        llm.embed([picture(32, 32), ImagePrompt(b"GIF89a, or so it says"), "a"], use_tqdm=False)
    assert list(caught.value.errors) == [1]
    assert str(caught.value.errors[1]) == (
        "Prompt 1: it cannot be read as an image: it is damaged, or its format is none of PNG, JPEG, WEBP, GIF, BMP, "
        "TIFF."
    )
    assert [output is None for output in caught.value.outputs] == [False, True, False]


def test_one_that_is_cut_short_is_damaged(load):
    image = picture(64, 64)
    assert "it is damaged" in refusal(load("clip"), ImagePrompt(image.data[: len(image.data) // 2]))


def test_one_with_too_many_pixels_is_refused_before_it_is_decoded(load, monkeypatch):
    monkeypatch.setattr(reading, "MAX_PIXELS", 1000)
    assert refusal(load("clip"), picture(40, 60)) == (
        "Prompt 0: it is an image of 40 x 60 pixels, more than the 1000 that are decoded. Send a smaller one."
    )


def test_one_that_the_models_own_processor_refuses_is_the_callers_fault(load):
    llm = load("colqwen2")
    with pytest.raises(BatchError) as caught:
        llm.encode([picture(2000, 4), picture(40, 40)], use_tqdm=False)
    assert list(caught.value.errors) == [0]
    assert "refuses an image of 2000 x 4 pixels. Send one of another shape." in str(caught.value.errors[0])


def test_a_model_of_texts_says_that_it_reads_no_images(checkpoint):
    folder = str(checkpoint("bert"))
    with LLM(folder, dtype="float32") as llm:
        assert refusal(llm, picture(8, 8)) == (
            f"Prompt 0 is of modality 'image'; {folder} reads text. Send that, or serve a model that reads 'image'."
        )


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (
            "https://example.com/cat.png",
            "input[0].image must be the image itself, as base64 or a data: URI: poolkit fetches none",
        ),
        (
            "file:///etc/passwd",
            "input[0].image must be the image itself, as base64 or a data: URI: poolkit fetches none",
        ),
        ("data:image/svg+xml,<svg/>", "must be a data: URI that holds base64, data:image/png;base64,…"),
        ("no base64 at all!", "must be valid base64, or a data: URI that holds it"),
        (7, "input[0].image must be a string: base64, or a data: URI that holds it"),
    ],
)
def test_what_is_no_image_on_the_wire_is_told(image, told, post):
    response = post("clip", "/v1/embeddings", {"input": [{"image": image}]})
    assert response.status_code == 400
    assert told in response.json()["error"]["message"]


def test_a_path_is_no_image_on_the_wire(tmp_path, post):
    path = tmp_path / "picture.png"
    path.write_bytes(picture(8, 8).data)
    assert post("clip", "/v1/embeddings", {"input": [{"image": str(path)}]}).status_code == 400


def test_texts_of_siglip_are_filled_up_and_counted_as_they_run(load):
    [output] = load("siglip").embed("a", use_tqdm=False)
    assert len(output.prompt_token_ids) == 64


def test_the_images_of_a_large_request_do_not_all_wait_in_memory(load, monkeypatch):
    monkeypatch.setattr(served, "READ_CHUNK", 2)
    monkeypatch.setattr(served, "READ_AHEAD", 4)
    llm = load("clip")
    images = [picture(32, 32, seed=seed) for seed in range(24)]
    expected = pool(llm, images)
    engine = llm.served._scheduler._engine
    prepared, waiting = [], []
    read, forward = reading.ImageReader.read, engine.forward

    def count_read(reader, image):
        prepared.append(image)
        waiting.append(len(prepared) - len(done))
        return read(reader, image)

    def count_done(prompts):
        outputs = forward(prompts)
        done.extend(outputs)
        return outputs

    done = []
    monkeypatch.setattr(reading.ImageReader, "read", count_read)
    monkeypatch.setattr(engine, "forward", count_done)
    np.testing.assert_allclose(pool(llm, images), expected, atol=1e-5)
    workers = llm.served._readers
    assert max(waiting) <= 4 + 2 * workers  # those that may wait, and a chunk for each worker


def test_a_large_request_that_is_given_up_reads_no_more_images(load, monkeypatch):
    monkeypatch.setattr(served, "READ_CHUNK", 1)
    llm = load("clip")
    images = [*(picture(32, 32, seed=seed) for seed in range(200)), "a"]
    read = []

    def fail(_, image):
        read.append(image)
        raise RuntimeError("out of order")

    monkeypatch.setattr(reading.ImageReader, "read", fail)
    request = EmbeddingsRequest(input=images)
    with pytest.raises(RuntimeError, match="out of order"):
        asyncio.run(llm.served.arun("embeddings", lambda: request, lambda response: response))
    assert len(read) < 50


@pytest.mark.parametrize("plugin", ["cache", "chunking"])
@pytest.mark.parametrize("family", ["clip", "siglip", "colpali"])
def test_images_go_through_the_plugins_as_they_are(plugin, family, load, image_model, tmp_path):
    prompts = [*pictures(), *TEXTS]
    expected = pool(load(family), prompts)
    settings = {"cache": {"folder": str(tmp_path)}} if plugin == "cache" else {}
    with LLM(str(image_model(family)), dtype="float32", enable=[plugin], plugins=settings) as llm:
        for _ in range(2):
            for found, wanted in zip(pool(llm, prompts), expected, strict=True):
                np.testing.assert_allclose(found, wanted, atol=1e-6)
        runs = llm.served.stats().prompts_run
    assert runs == (len(prompts) if plugin == "cache" else 2 * len(prompts))


def test_pillow_is_asked_for_where_it_is_missing(image_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    folder = str(image_model("clip"))
    with pytest.raises(ModelError) as caught:
        LLM(folder)
    assert str(caught.value) == (
        f"{folder} reads images, which Pillow decodes. Run: python -m pip install 'poolkit[images]'"
    )


@pytest.mark.parametrize("family", IMAGE_FAMILIES)
def test_each_family_serves_one_task_and_says_what_it_is(family, load):
    llm = load(family)
    assert llm.supported_tasks == (("embed",) if family in TOWERS else ("token_embed",))
    decisions = {decision.name: decision.value for decision in llm.decisions}
    assert decisions["architecture"] == IMAGE_FAMILIES[family].architecture
    assert decisions["image"] == "in patches of 8 x 8 pixels"
    assert decisions["path"] == ("packed" if family == "clip" else "padded")


def test_queries_for_images_are_not_run_in_chunks(image_model):
    folder = str(image_model("colpali"))
    with pytest.raises(ConfigError, match="reads texts whole, as queries"):
        LLM(folder, pooler_config=PoolerConfig(enable_chunked_processing=True))
    with LLM(folder, dtype="float32", enable=["chunking"]) as llm:
        assert re.search(r"Prompt 0 has \d+ tokens; .* takes at most 512", refusal(llm, "word " * 400))


@pytest.mark.parametrize("family", ["siglip", *RETRIEVERS])
def test_what_cannot_run_packed_says_so(family, image_model):
    with pytest.raises(ModelError, match="cannot run packed"):
        LLM(str(image_model(family)), batching="packed")


def test_the_pooling_is_the_models_own(image_model):
    folder = str(image_model("clip"))
    with pytest.raises(ConfigError) as caught:
        LLM(folder, pooler_config=PoolerConfig(pooling_type="MEAN"))
    assert str(caught.value) == (
        f"pooler_config.pooling_type is 'MEAN', but task 'embed' of {folder} reads what its head was made to read. "
        "Leave pooling_type out."
    )
