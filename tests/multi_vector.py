"""Makes tiny multi-vector models, saved as sentence-transformers, PyLate and Stanford's ColBERT save them."""

from __future__ import annotations

import json
import string
from itertools import pairwise

import torch
import transformers
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

from checkpoints import WIDTH, make_checkpoint, write_json

PUNCTUATION = list(string.punctuation)
QUERIES = ("Where did the cat sit?", "a", "What is a graph, and who draws one?", "Hello", "naïve café!")
QUERY_LENGTH, DOCUMENT_LENGTH = 32, 90
MISSING = object()


def base(folder, family):
    """A checkpoint that has the tokens a ColBERT model needs."""
    make_checkpoint(folder, family, sentence_transformers=False)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    named = (
        {"mask_token": "[MASK]", "unk_token": "[UNK]"} if "[UNK]" in tokenizer.get_vocab() else {"mask_token": "[MASK]"}
    )
    tokenizer.add_special_tokens(named)
    tokenizer.add_tokens(["[Q] ", "[D] ", "[unused0]", "[unused1]"])
    tokenizer.save_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.save_pretrained(folder)
    return folder


def dense(in_features, out_features, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(in_features + out_features)
        return Dense(in_features, out_features, module_input_name="token_embeddings", **settings)


def save_native(folder, family, *, mask=None, modules=(), prompts=None, **settings):
    transformer = Transformer(str(base(folder / "base", family)), document_length=DOCUMENT_LENGTH, **settings)
    layers = modules or (dense(WIDTH, 16, bias=False, activation_function=torch.nn.Identity()),)
    model = MultiVectorEncoder(
        modules=[transformer, *layers, mask or MultiVectorMask(), Normalize(module_input_name="token_embeddings")],
        prompts={"query": "[Q] ", "document": "[D] "} if prompts is None else prompts,
        device="cpu",
    )
    model.save(str(folder / "saved"), create_model_card=False)
    return folder / "saved"


def save_pylate(folder, family, *, layers=1, **settings):
    """As PyLate 1 saves a model: the masking and the markers stand in config_sentence_transformers.json."""
    base(folder, family)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": DOCUMENT_LENGTH - 1, "do_lower_case": False})
    widths = [WIDTH, 24, 16][: layers + 1]
    modules = [("", "sentence_transformers.models.Transformer")]
    for index, (takes, gives) in enumerate(pairwise(widths), 1):
        module = dense(takes, gives, activation_function=torch.nn.Identity(), use_residual=layers > 1)
        (folder / f"{index}_Dense").mkdir()
        module.save(str(folder / f"{index}_Dense"))
        path = folder / f"{index}_Dense" / "config.json"
        config = json.loads(path.read_text())
        del config["module_input_name"], config["module_output_name"]
        write_json(path, config)
        modules.append((f"{index}_Dense", "pylate.models.Dense.Dense"))
    listed = [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(modules)]
    write_json(folder / "modules.json", listed)
    said = {
        "model_type": "ColBERT",
        "prompts": {},
        "default_prompt_name": None,
        "similarity_fn_name": "MaxSim",
        "query_prefix": "[Q] ",
        "document_prefix": "[D] ",
        "query_length": QUERY_LENGTH,
        "document_length": DOCUMENT_LENGTH,
        "attend_to_expansion_tokens": False,
        "skiplist_words": PUNCTUATION,
        "do_query_expansion": True,
    }
    said = {key: value for key, value in {**said, **settings}.items() if value is not MISSING}
    write_json(folder / "config_sentence_transformers.json", said)
    return folder


def save_stanford(folder, family, *, metadata=None):
    """As Stanford's ColBERT saves a model: the projection lies among the weights of the base."""
    from safetensors.torch import load_file, save_file

    base(folder, family)
    weights = load_file(folder / "model.safetensors")
    dice = torch.Generator().manual_seed(2)
    weights["linear.weight"] = torch.randn(16, WIDTH, generator=dice)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", {**config, "architectures": ["HF_ColBERT"]})
    if metadata is not None:
        write_json(folder / "artifact.metadata", metadata)
    return folder
