"""Packages add module types, pooling modes, rerankers, families and readers of whole folders."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from checkpoints import make_checkpoint, real_texts, write_json
from poolkit import LLM, PoolerConfig, PoolingParams
from poolkit.errors import ModelError, PluginInvalidError, UnsupportedTaskError
from poolkit.server import create_app
from rerankers import QWEN3, make_reranker
from serving import ask

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = [text[:200] for text in real_texts(12)[1:]]
TOLERANCE = 1e-5
"""The promise of fidelity.md."""

WHITENING = """
from dataclasses import dataclass
from pathlib import Path

@dataclass(frozen=True)
class Whitening:
    folder: Path
    in_features: int
    only_for: str | None = None
    load = "poolkit_whitening:load"

    @property
    def out_features(self):
        return self.in_features

    def __str__(self):
        return f"whitening of {self.in_features}"

def read(module):
    return Whitening(module.folder, module.whole_number("size"), module.only_for)

def load(spec, *, device):
    from safetensors.torch import load_file
    weights = {name: tensor.to(device) for name, tensor in load_file(spec.folder / "model.safetensors").items()}
    return lambda rows: (rows - weights["mean"]) * weights["scale"]
"""
"""A type of module in its twenty lines: how it is read, and the function that it is."""

MEDIAN = """
def pool_median(hidden, segments):
    import torch
    return torch.stack([rows.median(dim=0).values for rows in hidden.float().split(segments.lengths.tolist())])
"""

ONLY = ["poolkit-vendor"]


def add_module(folder: Path, dotted: str, *, name: str = "9_Whitening", **settings: object) -> Path:
    """List a module at the end of a checkpoint's modules.json, with its settings in a folder, and return that."""
    listed = json.loads((folder / "modules.json").read_text())
    write_json(folder / "modules.json", [*listed, {"idx": 9, "name": "9", "path": name, "type": dotted}])
    (folder / name).mkdir()
    write_json(folder / name / "config.json", settings)
    return folder / name


def raw(llm: LLM, texts: list[str] = TEXTS) -> np.ndarray:
    """Return vectors as they leave the last layer."""
    outputs = llm.encode(texts, pooling_params=PoolingParams(use_activation=False), use_tqdm=False)
    return np.stack([output.outputs.data for output in outputs])


@pytest.fixture
def whitened(tmp_path: Path) -> Path:
    """Return a checkpoint that ends in a module of a type that poolkit does not know."""
    folder = make_checkpoint(tmp_path / "model", "bert", normalize=False)
    module = add_module(folder, "poolkit_whitening.Whitening", size=48)
    generator = np.random.default_rng(0)
    weights = {name: generator.standard_normal(48).astype(np.float32) for name in ("mean", "scale")}
    save_file(weights, module / "model.safetensors")
    return folder


def install_whitening(install: Callable[..., None], source: str = WHITENING) -> None:
    entry = {"module.poolkit_whitening.Whitening": "poolkit_whitening:read"}
    install("poolkit-vendor", modules={"poolkit_whitening": source}, models=entry)


def test_a_type_of_module_that_core_does_not_know(install, whitened, tmp_path):
    install_whitening(install)
    weights = load_file(whitened / "9_Whitening" / "model.safetensors")
    with LLM(str(make_checkpoint(tmp_path / "plain", "bert", normalize=False)), dtype="float32") as plain:
        expected = (raw(plain) - weights["mean"]) * weights["scale"]
    with LLM(str(whitened), dtype="float32", enable=ONLY) as llm:
        np.testing.assert_allclose(raw(llm), expected, atol=TOLERANCE)
        layers = [decision for decision in llm.decisions if decision.name == "layer"]
        assert [(layer.value, layer.source) for layer in layers] == [("whitening of 48", "9_Whitening/config.json")]
        answered = ask(create_app(llm), "POST", "/v1/embeddings", json={"input": TEXTS[0]}).json()
        vector = expected[0] / np.linalg.norm(expected[0])
        np.testing.assert_allclose(answered["data"][0]["embedding"], vector, atol=TOLERANCE)


def test_a_module_whose_package_is_not_enabled(install, whitened):
    install_whitening(install)
    with pytest.raises(UnsupportedTaskError) as caught:
        LLM(str(whitened), task="embed")
    assert str(caught.value) == (
        f"model {str(whitened)!r} cannot serve 'embed': {whitened / 'modules.json'} lists "
        "'poolkit_whitening.Whitening': module 'poolkit_whitening.Whitening' is provided by poolkit-vendor 1.0.0, "
        "which is installed but not enabled.\n"
        '  Enable it with  enable = ["poolkit-vendor"]  in poolkit.toml, or --plugin poolkit-vendor.\n'
        "  The model produces hidden. It can serve: none of the enabled tasks."
    )


def test_a_module_that_does_not_fit_is_told_like_poolkits_own(install, whitened):
    install_whitening(install)
    write_json(whitened / "9_Whitening" / "config.json", {"size": 20})
    with pytest.raises(ModelError) as caught:
        LLM(str(whitened), enable=ONLY)
    path = whitened / "9_Whitening" / "config.json"
    assert (
        str(caught.value) == f"{path} takes vectors of 20 numbers, but gets 48: pooling mean over token vectors of 48."
    )


def test_a_reader_that_fails_is_named(install, whitened):
    install_whitening(install, "def read(module):\n    return module.settings()['sizes']\n")
    with pytest.raises(ModelError) as caught:
        LLM(str(whitened), enable=ONLY)
    assert str(caught.value) == (
        "The reader of the module 'poolkit_whitening.Whitening' failed on "
        f"{whitened / '9_Whitening' / 'config.json'}: KeyError: 'sizes'"
    )


def test_a_pooling_mode_that_core_does_not_know(install, tmp_path):
    install(
        "poolkit-vendor", modules={"poolkit_median": MEDIAN}, models={"pooling.median": "poolkit_median:pool_median"}
    )
    folder = make_checkpoint(tmp_path / "model", "bert", normalize=False)
    write_json(folder / "1_Pooling" / "config.json", {"embedding_dimension": 48, "pooling_mode": ["median", "mean"]})
    with LLM(str(folder), task="token_embed", dtype="float32", enable=ONLY) as llm:
        params = PoolingParams(use_activation=False)
        tokens = [one.outputs.data for one in llm.encode(TEXTS, pooling_params=params, use_tqdm=False)]
    middle = [(len(rows) - 1) // 2 for rows in tokens]  # torch's median of an even number is the lower of two
    medians = [np.sort(rows, axis=0)[place] for rows, place in zip(tokens, middle, strict=True)]
    with LLM(str(folder), dtype="float32", enable=ONLY) as llm:
        found = raw(llm)
        assert {line.name: line.value for line in llm.decisions}["pooling"] == "median + mean"
    np.testing.assert_allclose(found[:, :48], medians, atol=TOLERANCE)
    np.testing.assert_allclose(found[:, 48:], [rows.mean(axis=0) for rows in tokens], atol=TOLERANCE)
    with pytest.raises(ModelError) as caught:
        LLM(str(folder))
    assert str(caught.value) == (
        f"{folder / '1_Pooling' / 'config.json'} has pooling_mode 'median': pooling mode 'median' is provided by "
        "poolkit-vendor 1.0.0, which is installed but not enabled.\n"
        '  Enable it with  enable = ["poolkit-vendor"]  in poolkit.toml, or --plugin poolkit-vendor.'
    )


FAMILY = """
from poolkit import ModelFamily
RETRIEVER = ModelFamily(
    matches=lambda files: files.architecture == "VendorForRetrieval",
    config=lambda files: {"hidden_size": files.hf_config["vendor_size"]},
    pooling="mean",
)
"""


def test_a_family_that_core_does_not_know(install, tmp_path):
    install("poolkit-vendor", modules={"vendor_family": FAMILY}, models={"family.vendor": "vendor_family:RETRIEVER"})
    folder = make_checkpoint(tmp_path / "model", "bert", sentence_transformers=False)
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", {**config, "architectures": ["VendorForRetrieval"], "vendor_size": 48})
    with LLM(str(folder), dtype="float32", hf_overrides={"hidden_size": 48}, enable=ONLY) as llm:
        found = raw(llm)
        pooling = next(line for line in llm.decisions if line.name == "pooling")
        assert (pooling.value, pooling.source) == ("mean", "the family vendor; there is no Pooling module")
    plain = make_checkpoint(tmp_path / "plain", "bert", normalize=False)
    with LLM(str(plain), dtype="float32") as llm:
        np.testing.assert_allclose(found, raw(llm), atol=TOLERANCE)


SCORER = """
from poolkit import HeadKind, ModelFamily
SCORER = ModelFamily(
    matches=lambda files: files.architecture == "VendorForScoring", head=HeadKind.SEQUENCE_CLASSIFIER, pooling="mean"
)
"""


def test_a_family_says_what_head_a_checkpoint_has(install, checkpoint):
    install("poolkit-vendor", modules={"vendor_family": SCORER}, models={"family.vendor": "vendor_family:SCORER"})
    folder = str(checkpoint("bert", head="ForSequenceClassification", sentence_transformers=False, num_labels=3))
    with LLM(folder, dtype="float32") as llm:
        expected = [output.outputs.probs for output in llm.classify(TEXTS, use_tqdm=False)]
    with LLM(folder, dtype="float32", hf_overrides={"architectures": ["VendorForScoring"]}, enable=ONLY) as llm:
        found = [output.outputs.probs for output in llm.classify(TEXTS, use_tqdm=False)]
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def test_a_plugins_family_goes_before_poolkits_own(install, checkpoint):
    family = SCORER.replace("VendorForScoring", "LlamaModel")
    install("poolkit-vendor", modules={"vendor_family": family}, models={"family.vendor": "vendor_family:SCORER"})
    folder = str(checkpoint("llama", sentence_transformers=False))
    sources = []
    for enable in ([], ONLY):
        with LLM(folder, task="embed", enable=enable) as llm:
            sources += [line.source for line in llm.decisions if line.name == "pooling"]
    assert sources == [f"the family {name}; there is no Pooling module" for name in ("decoder", "vendor")]


ADAPTER = """
import torch
import transformers
from poolkit import Decision, States, TorchFamily

class Doubled:
    decisions = (Decision("path", "one by one, doubled", "poolkit-vendor"),)

    def __init__(self, model, device):
        self._model, self._device = model, device

    def __call__(self, batch):
        rows = [
            self._model(torch.from_numpy(ids[None].astype("int64")).to(self._device)).last_hidden_state[0]
            for ids in batch.segments.split(batch.token_ids)
        ]
        return States(2 * torch.cat(rows))

def load(info, placement, *, taps):
    if taps:
        return "its layers cannot be tapped"
    model = transformers.AutoModel.from_pretrained(info.path, dtype=placement.dtype)
    return Doubled(model.to(placement.device).eval(), placement.device)

ADAPTER = TorchFamily(load=load)
"""


def test_a_family_brings_its_own_forward_pass(install, checkpoint):
    family = FAMILY.replace('pooling="mean",', 'pooling="mean", adapters={"torch": "vendor_torch:ADAPTER"},')
    modules = {"vendor_family": family, "vendor_torch": ADAPTER}
    install("poolkit-vendor", modules=modules, models={"family.vendor": "vendor_family:RETRIEVER"})
    folder = checkpoint("bert", sentence_transformers=False)
    with LLM(str(folder), pooler_config=PoolerConfig(pooling_type="MEAN"), dtype="float32") as llm:
        expected = 2 * raw(llm)
    overrides = {"architectures": ["VendorForRetrieval"], "vendor_size": 48}
    with LLM(str(folder), dtype="float32", hf_overrides=overrides, enable=ONLY) as llm:
        np.testing.assert_allclose(raw(llm), expected, atol=2 * TOLERANCE)
        assert {line.name: line.value for line in llm.decisions}["path"] == "one by one, doubled"


def test_an_adapter_of_the_wrong_type_is_told(install, checkpoint):
    family = FAMILY.replace('pooling="mean",', 'pooling="mean", adapters={"torch": "vendor_family:FAMILY"},')
    family = family.replace("RETRIEVER", "FAMILY")
    install("poolkit-vendor", modules={"vendor_family": family}, models={"family.vendor": "vendor_family:FAMILY"})
    folder = str(checkpoint("bert", sentence_transformers=False))
    overrides = {"architectures": ["VendorForRetrieval"], "vendor_size": 48}
    with pytest.raises(ModelError) as caught:
        LLM(folder, hf_overrides=overrides, enable=ONLY)
    assert str(caught.value) == (
        f"What the engine torch needs for {folder}, 'vendor_family:FAMILY', is a ModelFamily; it must be a "
        "poolkit.TorchFamily."
    )


def test_a_family_of_the_wrong_type_is_told_at_start_up(install, checkpoint):
    install("poolkit-vendor", modules={"vendor_family": "X = 1\n"}, models={"family.vendor": "vendor_family:X"})
    with pytest.raises(PluginInvalidError) as caught:
        LLM(str(checkpoint("bert")), enable=ONLY)
    assert str(caught.value) == (
        "poolkit-vendor 1.0.0: model family 'vendor' points to an object of type int, not to a poolkit.ModelFamily."
    )


RERANKER = """
import re
from pathlib import Path
from poolkit import LogitScore, RerankerFamily
VENDOR = RerankerFamily(
    name=re.compile("vendor-rerank"),
    model_type="qwen3",
    logit_score=LogitScore("yes", "no"),
    template=Path(__file__).with_name("vendor.jinja"),
    phrase="Vendor's own words.",
)
"""


def test_a_reranker_that_core_does_not_know(install, tmp_path, checkpoint):
    install(
        "poolkit-vendor", modules={"vendor_reranker": RERANKER}, models={"reranker.vendor": "vendor_reranker:VENDOR"}
    )
    template = "query {{ query }} document {{ document }} yes or no:"
    (tmp_path / "site" / "vendor.jinja").write_text(template)
    folder = make_reranker(tmp_path, checkpoint, QWEN3).rename(tmp_path / "vendor-rerank-1b")
    own = tmp_path / "own.jinja"
    own.write_text(template)
    overrides = {"classifier_from_token": ["no", "yes"]}
    with LLM(str(folder), dtype="float32", hf_overrides=overrides, score_template=own) as llm:
        expected = [one.outputs.score for one in llm.score(TEXTS[0], TEXTS[1:], use_tqdm=False)]
    with LLM(str(folder), dtype="float32", enable=ONLY) as llm:
        assert [one.outputs.score for one in llm.score(TEXTS[0], TEXTS[1:], use_tqdm=False)] == pytest.approx(expected)
        report = {line.name: (line.value, line.source) for line in llm.decisions}
    assert report["score template"] == ("vendor.jinja, that of reranker 'vendor'", "the name 'vendor-rerank-1b'")


STATIC = """
import json
import numpy as np
from poolkit import Decision, ModelInfo, Output, PoolingSpec, States, TextSpec, VectorSpec
from poolkit.testing import FakeTokenizer

def describe(folder, *, config):
    settings = json.loads((folder / "config.json").read_text())
    if settings.get("model_type") != "model2vec":
        return None
    rows, width = settings["rows"], settings["width"]
    return ModelInfo(
        name=config.model,
        path=folder,
        architecture="StaticModel",
        model_type="model2vec",
        outputs=(Output.VECTOR,),
        hidden_size=width,
        text=TextSpec(max_model_len=4096, vocab_size=rows),
        vector=VectorSpec(size=width),
        pooling=PoolingSpec(modes=("mean",)),
        decisions=(
            Decision("model", str(folder), "poolkit-vendor"),
            Decision("pooling", "mean", "poolkit-vendor", frozenset((Output.VECTOR,))),
        ),
    )

def load_tokenizer(info):
    return FakeTokenizer()

class Backbone:
    decisions = (Decision("path", "a table of vectors", "poolkit-vendor"),)

    def __init__(self, table):
        self._table = table

    def __call__(self, batch):
        return States(self._table[batch.token_ids])

def load_backbone(info, *, taps=()):
    return Backbone(np.load(info.path / "table.npy"))
"""
"""An engine for folders that core cannot read: no transformers model, no torch."""


@pytest.fixture
def table(install: Callable[..., None], tmp_path: Path) -> Path:
    """Return such a folder, and install the engine for it."""
    install("poolkit-vendor", modules={"vendor_engine": STATIC}, engines={"static": "vendor_engine"})
    folder = tmp_path / "static"
    folder.mkdir()
    write_json(folder / "config.json", {"model_type": "model2vec", "rows": 1000, "width": 12})
    np.save(folder / "table.npy", np.random.default_rng(0).standard_normal((1000, 12)).astype(np.float32))
    return folder


def test_an_engine_describes_a_folder_that_core_cannot_read(table):
    with pytest.raises(ModelError, match="has no whole number hidden_size"):
        LLM(str(table))
    with LLM(str(table), engine="static", enable=ONLY) as llm:
        found = raw(llm)
        assert [(line.name, line.value) for line in llm.decisions][:5] == [
            ("task", "embed"),
            ("model", str(table)),
            ("pooling", "mean"),
            ("head", "none"),
            ("activation", "normalize"),
        ]
        assert len(llm.score(TEXTS[0], TEXTS[1:3], use_tqdm=False)) == 2
    from poolkit.testing import FakeTokenizer

    ids = FakeTokenizer().encode_batch(TEXTS, add_special_tokens=True)
    vectors = np.load(table / "table.npy")
    np.testing.assert_allclose(found, [vectors[np.asarray(row)].mean(axis=0) for row in ids], atol=TOLERANCE)
    with pytest.raises(UnsupportedTaskError) as caught:
        LLM(str(table), engine="static", enable=ONLY, task="classify")
    assert str(caught.value) == (
        f"model {str(table)!r} cannot serve 'classify': it has no classification head.\n"
        "  The model produces vector. It can serve: embed."
    )


@pytest.mark.usefixtures("table")
def test_an_engine_may_leave_other_folders_to_core(checkpoint):
    with pytest.raises(FileNotFoundError, match=r"table\.npy"):  # read by core, then run by the engine
        LLM(str(checkpoint("bert")), engine="static", enable=ONLY)


def test_an_engine_that_fails_to_describe_a_folder_is_named(table):
    write_json(table / "config.json", {"model_type": "model2vec"})
    with pytest.raises(ModelError) as caught:
        LLM(str(table), engine="static", enable=ONLY)
    assert str(caught.value) == f"Engine 'static' failed to describe the model in {table}: KeyError: 'rows'"


def test_inspect_shows_what_an_engine_describes(table):
    program = "from poolkit.cli import main; main()"
    command = [sys.executable, "-c", program, "inspect", str(table), "--engine", "static"]
    ran = subprocess.run(
        [*command, "--plugin", "poolkit-vendor", "--json"],
        capture_output=True, text=True, check=True, env={"PYTHONPATH": str(table.parent / "site"), "PATH": "/usr/bin"},
    )  # fmt: skip
    shown = json.loads(ran.stdout)
    assert shown["tasks"] == ["embed"]
    assert {"name": "pooling", "value": "mean", "source": "poolkit-vendor"} in shown["decisions"]
    assert shown["refused_tasks"]["classify"] == "it has no classification head"


def test_an_engine_without_torch_leaves_it_out_of_the_process(table):
    program = f"""
import sys
from poolkit import LLM
with LLM({str(table)!r}, engine="static", enable=["poolkit-vendor"]) as llm:
    [output] = llm.embed(["a cat"], use_tqdm=False)
    assert output.outputs.embedding.shape == (12,)
print(sorted({{"torch", "transformers"}} & set(sys.modules)))
"""
    environment = {"PYTHONPATH": str(table.parent / "site"), "PATH": "/usr/bin"}
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment)
    assert (ran.stdout, ran.returncode) == ("[]\n", 0), ran.stderr
