"""A package adds a modality, with the family of models that reads it: recordings, and CLAP."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from checkpoints import SPREAD, byte_level
from poolkit import LLM, create_app
from poolkit.errors import BatchError, ConfigError, ModelError, RequestError
from serving import ask

pytestmark = pytest.mark.usefixtures("one_thread")

AUDIO = """
import hashlib
from dataclasses import dataclass
from typing import ClassVar
import numpy as np
from pydantic import Base64Bytes
from poolkit import Modality, ModalityInput, ModalityPrompt
from poolkit.errors import RequestError

@dataclass(frozen=True)
class AudioPrompt(ModalityPrompt):
    modality: ClassVar[str] = "audio"
    audio: Base64Bytes
    sampling_rate: int = 8000

    def digest(self):
        return hashlib.blake2b(self.audio + self.sampling_rate.to_bytes(4, "little")).digest()

class Reader:
    query_frame = None

    def __init__(self, info):
        from transformers import ClapFeatureExtractor
        self._extract = ClapFeatureExtractor.from_pretrained(info.path)

    def read(self, prompt):
        rate = self._extract.sampling_rate
        if prompt.sampling_rate != rate:
            raise RequestError(f"it has {prompt.sampling_rate} samples a second; the model hears {rate}")
        samples = np.frombuffer(prompt.audio, "<f4")
        arrays = self._extract(samples, sampling_rate=rate, return_tensors="np")
        return np.empty(0, np.int32), ModalityInput("audio", dict(arrays), cost=arrays["input_features"].shape[2])

AUDIO = Modality(prompt=AudioPrompt, load_reader=Reader)
"""
"""Recordings: float32 samples, in JSON as base64."""

CLAP = """
from poolkit import ModelFamily, Output

def read_config(files):
    text = files.hf_config["text_config"]
    return {"hidden_size": files.hf_config["projection_dim"], **{key: text[key] for key in KEYS}}

KEYS = ("vocab_size", "max_position_embeddings")
CLAP = ModelFamily(
    matches=lambda files: files.architecture == "ClapModel",
    config=read_config,
    outputs=lambda files: (Output.VECTOR,),
    pools_itself=True,
    position_offset=lambda files: 2,
    modalities={"audio": lambda files: "mel spectrograms"},
    adapters={"torch": "poolkit_clap_torch:CLAP"},
)
"""

TORCH = """
import numpy as np
import torch
import transformers
from poolkit import Decision, States, TorchFamily

class Towers:
    def __init__(self, model, placement):
        self.decisions = (*placement.decisions, Decision("path", "one text at a time", "poolkit-clap"))
        self._model = model

    def __call__(self, batch):
        if batch.modality == "audio":
            names = batch.inputs[0].arrays
            arrays = {name: np.concatenate([one.arrays[name] for one in batch.inputs]) for name in names}
            tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
            return States(rows=self._model.get_audio_features(**tensors).pooler_output)
        texts = [torch.from_numpy(ids[None].astype(np.int64)) for ids in batch.segments.split(batch.token_ids)]
        return States(rows=torch.cat([self._model.get_text_features(input_ids=ids).pooler_output for ids in texts]))

def load(info, placement, *, taps):
    if taps:
        return "its vectors are those of its own projection"
    return Towers(transformers.ClapModel.from_pretrained(info.path, dtype=placement.dtype).eval(), placement)

CLAP = TorchFamily(load=load)
"""

RATE = 8000
TEXTS = ["a dog barks", "rain on a tin roof, and thunder far away"]
TOLERANCE = 1e-5
"""The promise of fidelity.md."""


@pytest.fixture(scope="module")
def clap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny CLAP with random weights."""
    folder = tmp_path_factory.mktemp("clap")
    tokenizer = byte_level("<s>", "</s>", ("<s>", "<pad>", "</s>", "<unk>"))
    text = {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 96,
        "max_position_embeddings": 66,
        "pad_token_id": 1,
    }
    audio = {
        "patch_embeds_hidden_size": 8,
        "depths": [1, 1],
        "num_attention_heads": [2, 2],
        "hidden_size": 16,
        "projection_hidden_size": 16,
        "spec_size": 64,
        "window_size": 4,
        "num_mel_bins": 16,
    }
    config = transformers.ClapConfig(text_config=text, audio_config=audio, projection_dim=24)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.ClapModel(config)
        for weight in model.parameters():
            if weight.ndim > 1:
                torch.nn.init.normal_(weight, std=SPREAD)
    model.save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=64, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
    transformers.ClapFeatureExtractor(
        feature_size=16,
        sampling_rate=RATE,
        max_length_s=1,
        hop_length=80,
        fft_window_size=256,
        frequency_max=RATE // 2,
        truncation="rand_trunc",
    ).save_pretrained(folder)
    return folder


@pytest.fixture
def recording(install: Callable[..., None]) -> Callable[..., object]:
    """Install the package, and return a function that makes prompts of it, each of other noise."""
    modules = {"poolkit_clap_audio": AUDIO, "poolkit_clap": CLAP, "poolkit_clap_torch": TORCH}
    install(
        "poolkit-clap",
        modules=modules,
        modalities={"audio": "poolkit_clap_audio:AUDIO"},
        models={"family.clap": "poolkit_clap:CLAP"},
    )

    def make(seed: int, **fields: object) -> object:
        from poolkit_clap_audio import AudioPrompt

        return AudioPrompt(noise(seed).tobytes(), **fields)

    return make


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(3000 + 1000 * seed).astype("<f4")


def load(folder: Path, *, enable: tuple[str, ...] = ("poolkit-clap",), **settings: object) -> LLM:
    return LLM(str(folder), dtype="float32", device="cpu", enable=enable, **settings)


def vectors(llm: LLM, prompts: list[object]) -> np.ndarray:
    return np.stack([output.outputs.embedding for output in llm.embed(prompts, use_tqdm=False)])


def reference(folder: Path) -> np.ndarray:
    """Return transformers' vectors of two recordings and the two texts."""
    model = transformers.ClapModel.from_pretrained(folder).eval()
    extract = transformers.ClapFeatureExtractor.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        heard = [
            model.get_audio_features(**extract(noise(seed), sampling_rate=RATE, return_tensors="pt")).pooler_output[0]
            for seed in range(2)
        ]
        read = [model.get_text_features(**tokenizer(text, return_tensors="pt")).pooler_output[0] for text in TEXTS]
    found = torch.stack([*heard, *read]).numpy()
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_a_modality_that_core_does_not_know(recording, clap):
    expected = reference(clap)
    with load(clap) as llm:
        found = vectors(llm, [recording(0), TEXTS[0], TEXTS[1], recording(1)])
        np.testing.assert_allclose(found[[0, 3, 1, 2]], expected, atol=TOLERANCE)
        scores = [one.outputs.score for one in llm.score(TEXTS[0], [recording(0), recording(1)], use_tqdm=False)]
        np.testing.assert_allclose(scores, expected[:2] @ expected[2], atol=TOLERANCE)
        decisions = {line.name: (line.value, line.source) for line in llm.decisions}
    assert decisions["audio"] == ("mel spectrograms", "config.json")
    assert decisions["path"] == ("one text at a time", "poolkit-clap")


def test_it_is_read_from_json_like_poolkits_own(recording, clap):
    body = {"audio": base64.b64encode(noise(1).tobytes()).decode(), "sampling_rate": RATE}
    with load(clap) as llm:
        app = create_app(llm)
        [answer] = ask(app, "POST", "/v1/embeddings", json={"input": body}).json()["data"]
        [offline] = vectors(llm, [recording(1)])
        np.testing.assert_allclose(answer["embedding"], offline, atol=TOLERANCE)
        refused = ask(app, "POST", "/v1/embeddings", json={"input": ["a", {**body, "sampling_rate": "fast"}]})
        document = ask(app, "GET", "/openapi.json").json()
    assert refused.status_code == 400
    assert refused.json()["error"]["message"] == "input[1].sampling_rate must be an integer, got 'fast'."
    forms = document["components"]["schemas"]["ModalityObject"]["anyOf"]
    assert [sorted(form["properties"]) for form in forms] == [["image"], ["audio", "sampling_rate"]]


def test_one_that_cannot_be_read_fails_alone(recording, clap):
    with load(clap) as llm, pytest.raises(BatchError) as caught:
        llm.embed([TEXTS[0], recording(0, sampling_rate=44100), recording(1)], use_tqdm=False)
    assert {index: str(error) for index, error in caught.value.errors.items()} == {
        1: "Prompt 1: it has 44100 samples a second; the model hears 8000."
    }


def test_the_cache_knows_it_by_its_digest(recording, clap, tmp_path):
    plugins = {"cache": {"folder": str(tmp_path / "results")}}
    with load(clap, enable=("poolkit-clap", "cache"), plugins=plugins) as llm:
        once = vectors(llm, [recording(0), recording(1)])
        twice = vectors(llm, [recording(1), recording(0)])
        assert llm.served.stats().prompts_run == 2
    np.testing.assert_array_equal(twice, once[::-1])  # what was stored


def test_a_model_of_texts_says_that_it_does_not_read_it(recording, checkpoint):
    folder = checkpoint("bert")
    with load(folder) as llm, pytest.raises(RequestError) as caught:
        llm.embed(recording(0), use_tqdm=False)
    assert str(caught.value) == (
        f"Prompt 0 is of modality 'audio'; {folder} reads text. Send that, or serve a model that reads 'audio'."
    )


def test_a_family_without_an_adapter_for_the_engine(install, clap):
    family = CLAP.replace('    adapters={"torch": "poolkit_clap_torch:CLAP"},\n', "")
    install(
        "poolkit-clap",
        modules={"poolkit_clap_audio": AUDIO, "poolkit_clap": family},
        modalities={"audio": "poolkit_clap_audio:AUDIO"},
        models={"family.clap": "poolkit_clap:CLAP"},
    )
    with pytest.raises(ModelError) as caught:
        load(clap)
    first, *reasons = str(caught.value).splitlines()
    assert first == f"No engine can run {clap}:"
    assert reasons[-1] == "  torch: it needs an adapter for modality audio, and the model's family has none"


def test_a_family_whose_modality_is_not_there(install, clap):
    install(
        "poolkit-clap",
        modules={"poolkit_clap": CLAP, "poolkit_clap_torch": TORCH},
        models={"family.clap": "poolkit_clap:CLAP"},
    )
    with pytest.raises(ConfigError) as caught:
        load(clap)
    assert str(caught.value) == "no modality named 'audio'.\n  Modalities: image."
