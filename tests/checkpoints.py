"""Makes tiny checkpoints of real architectures, with tokenizers trained on the spot, and the texts to run on them.

The weights are random and drawn wider than usual: at the usual 0.02 every token vector looks like the next one, and a
wrong attention mask would hardly show.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

WIDTH = 48
LAYERS = 3
HEADS = 4
SPREAD = 0.15
VOCABULARY = 800
LONGEST = 512

TEXT_PACKAGES = ("fastapi", "httpx", "networkx", "numpy", "pydantic", "pluggy", "starlette", "typer")
SHORT_TEXTS = ("", "a", "No.", "Hello", "e", "naïve café", "東京タワー", "😀 ok", "a\0b", "  spaces  around  ")


@dataclass(frozen=True)
class Family:
    """A recipe for checkpoints of one architecture."""

    tokenizer: Callable[[], Tokenizer]
    config: Callable[[], PreTrainedConfig]
    pooling: str
    inputs: Sequence[str] = ("input_ids", "attention_mask")


def make_checkpoint(
    folder: Path,
    family: str,
    *,
    pooling: Sequence[str] = (),
    dense: int | None = None,
    normalize: bool = True,
    max_seq_length: int = 256,
    sentence_transformers: bool = True,
    head: str = "",
    **overrides: object,
) -> Path:
    """Save a checkpoint of `family` in `folder` and return that.

    Args:
        folder: is made where it is missing.
        family: a key of `FAMILIES`.
        pooling: sentence-transformers' names of the modes; () for the family's usual one.
        dense: the width of a Dense layer with Tanh after pooling; None for no such layer.
        normalize: end in a Normalize module.
        max_seq_length: of sentence_bert_config.json.
        sentence_transformers: write modules.json and what belongs to it; else a plain transformers checkpoint.
        head: "ForMaskedLM" and the like; "" for the bare model.
        overrides: of the config.
    """
    import torch
    import transformers

    made = FAMILIES[family]
    config = made.config()
    for key, value in overrides.items():
        setattr(config, key, value)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, f"AutoModel{head}").from_config(config)
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(weight, std=SPREAD)  # fresh biases are zero, which would hide a lost one
    model.save_pretrained(folder)
    tokenizer = made.tokenizer()
    pad = next(token for token in ("[PAD]", "<pad>") if tokenizer.token_to_id(token) is not None)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=LONGEST, pad_token=pad, model_input_names=made.inputs
    ).save_pretrained(folder)
    if sentence_transformers:
        modes = tuple(pooling) or (made.pooling,)
        write_sentence_transformers(
            folder, modes, width=config.hidden_size, dense=dense, normalize=normalize, max_seq_length=max_seq_length
        )
    return folder


def write_sentence_transformers(
    folder: Path, pooling: Sequence[str], *, width: int, dense: int | None, normalize: bool, max_seq_length: int
) -> None:
    """Write modules.json and each module's folder, in the schema of sentence-transformers before 5.4."""
    modules = ["Transformer", "Pooling"]
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_seq_length, "do_lower_case": False})
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": width, "pooling_mode": list(pooling)})
    if dense is not None:
        _write_dense(folder / "2_Dense", width * len(pooling), dense)
        modules.append("Dense")
    if normalize:
        modules.append("Normalize")
        (folder / f"{len(modules) - 1}_Normalize").mkdir()
    write_json(
        folder / "modules.json",
        [
            {
                "idx": index,
                "name": str(index),
                "path": f"{index}_{kind}" if index else "",
                "type": f"sentence_transformers.models.{kind}",
            }
            for index, kind in enumerate(modules)
        ],
    )


def write_json(path: Path, content: object) -> None:
    """Write `content` as JSON, making the folder where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2), "utf-8")


@cache
def real_texts(count: int) -> tuple[str, ...]:
    """Return `count` different texts: short ones with a catch, then docstrings and their first lines."""
    found = dict.fromkeys(SHORT_TEXTS)
    for docstring in _docstrings():
        found[docstring] = None
        found[docstring.partition("\n")[0]] = None
    texts = list(found)[len(SHORT_TEXTS) :]
    Random(0).shuffle(texts)
    return (*SHORT_TEXTS, *texts[: count - len(SHORT_TEXTS)])


def _docstrings() -> list[str]:
    docstrings = []
    for package in TEXT_PACKAGES:
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        for path in sorted(Path(spec.origin).parent.glob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                    docstring = ast.get_docstring(node)
                    if docstring:
                        docstrings.append(docstring)
    return docstrings


def _write_dense(folder: Path, in_features: int, out_features: int) -> None:
    import torch
    from safetensors.torch import save_file

    dice = torch.Generator().manual_seed(1)
    write_json(
        folder / "config.json",
        {
            "in_features": in_features,
            "out_features": out_features,
            "bias": True,
            "activation_function": "torch.nn.modules.activation.Tanh",
        },
    )
    save_file(
        {
            "linear.weight": torch.randn(out_features, in_features, generator=dice) / in_features**0.5,
            "linear.bias": torch.randn(out_features, generator=dice),
        },
        folder / "model.safetensors",
    )


@cache
def _wordpiece(first: str, last: str, specials: tuple[str, ...]) -> Tokenizer:
    """Return a tokenizer like BERT's, with `first` before and `last` after a text; `specials` get the lowest ids."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(
        real_texts(400),
        trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=list(specials), show_progress=False),
    )
    return _with_template(tokenizer, first, last, specials)


@cache
def byte_level(first: str, last: str, specials: tuple[str, ...]) -> Tokenizer:
    """Return a byte-level BPE tokenizer, with `first` before and `last` after a text where they are not empty."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(real_texts(400), trainer)
    return _with_template(tokenizer, first, last, specials)


def _with_template(tokenizer: Tokenizer, first: str, last: str, specials: tuple[str, ...]) -> Tokenizer:
    # RoBERTa and MPNet put two separators between the texts of a pair and know no token types.
    second = [last, "$B", last] if specials[:4] == _ROBERTA_SPECIALS else ["$B:1", last and f"{last}:1"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=" ".join(filter(None, [first, "$A", last])),
        pair=" ".join(filter(None, [first, "$A", last, *second])),
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (first, last) if token],
    )
    return tokenizer


def _bert() -> PreTrainedConfig:
    from transformers import BertConfig

    return BertConfig(**_ENCODER, max_position_embeddings=LONGEST, pad_token_id=0)


def _roberta() -> PreTrainedConfig:
    from transformers import RobertaConfig

    return RobertaConfig(
        **_ENCODER, max_position_embeddings=LONGEST + 2, pad_token_id=1, bos_token_id=0, eos_token_id=2
    )


def _xlm_roberta() -> PreTrainedConfig:
    from transformers import XLMRobertaConfig

    return XLMRobertaConfig(
        **_ENCODER,
        max_position_embeddings=LONGEST + 2,
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )


def _camembert() -> PreTrainedConfig:
    from transformers import CamembertConfig

    return CamembertConfig(
        **_ENCODER, max_position_embeddings=LONGEST + 2, pad_token_id=1, bos_token_id=0, eos_token_id=2
    )


def _electra() -> PreTrainedConfig:
    from transformers import ElectraConfig

    return ElectraConfig(**_ENCODER, embedding_size=32, max_position_embeddings=LONGEST, pad_token_id=0)


def _mpnet() -> PreTrainedConfig:
    from transformers import MPNetConfig

    return MPNetConfig(**_ENCODER, max_position_embeddings=LONGEST + 2, pad_token_id=1, bos_token_id=0, eos_token_id=2)


def _distilbert() -> PreTrainedConfig:
    from transformers import DistilBertConfig

    return DistilBertConfig(
        vocab_size=VOCABULARY,
        dim=WIDTH,
        n_layers=LAYERS,
        n_heads=HEADS,
        hidden_dim=2 * WIDTH,
        initializer_range=SPREAD,
        max_position_embeddings=LONGEST,
        pad_token_id=0,
    )


def _modernbert() -> PreTrainedConfig:
    from transformers import ModernBertConfig

    return ModernBertConfig(
        **_ENCODER,
        max_position_embeddings=LONGEST,
        local_attention=16,
        global_attn_every_n_layers=3,
        pad_token_id=2,
        cls_token_id=0,
        bos_token_id=0,
        sep_token_id=1,
        eos_token_id=1,
    )


def _deberta() -> PreTrainedConfig:
    from transformers import DebertaV2Config

    return DebertaV2Config(
        **_ENCODER,
        max_position_embeddings=LONGEST,
        pad_token_id=0,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        position_buckets=32,
    )


def _qwen2() -> PreTrainedConfig:
    from transformers import Qwen2Config

    return Qwen2Config(**_DECODER, max_position_embeddings=LONGEST)


def _qwen3() -> PreTrainedConfig:
    from transformers import Qwen3Config

    return Qwen3Config(**_DECODER, max_position_embeddings=LONGEST, head_dim=WIDTH // HEADS)


def _qwen3_sliding() -> PreTrainedConfig:
    from transformers import Qwen3Config

    return Qwen3Config(
        **_DECODER,
        max_position_embeddings=LONGEST,
        head_dim=WIDTH // HEADS,
        use_sliding_window=True,
        sliding_window=16,
        max_window_layers=1,
    )


def _llama() -> PreTrainedConfig:
    from transformers import LlamaConfig

    return LlamaConfig(**_DECODER, max_position_embeddings=LONGEST)


def _gemma() -> PreTrainedConfig:
    from transformers import GemmaConfig

    return GemmaConfig(**_DECODER, max_position_embeddings=LONGEST, head_dim=WIDTH // HEADS)


def _mistral() -> PreTrainedConfig:
    from transformers import MistralConfig

    return MistralConfig(**_DECODER, max_position_embeddings=LONGEST, head_dim=WIDTH // HEADS, sliding_window=16)


def _gemma2() -> PreTrainedConfig:
    from transformers import Gemma2Config

    return Gemma2Config(
        **_DECODER, max_position_embeddings=LONGEST, head_dim=WIDTH // HEADS, attn_logit_softcapping=None
    )


def _gemma3() -> PreTrainedConfig:
    from transformers import Gemma3TextConfig

    return Gemma3TextConfig(
        **_DECODER,
        max_position_embeddings=LONGEST,
        head_dim=WIDTH // HEADS,
        sliding_window=16,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
    )


def _nomic_bert() -> PreTrainedConfig:
    from transformers import NomicBertConfig

    return NomicBertConfig(**_ENCODER, max_position_embeddings=LONGEST, pad_token_id=0)


def _gte() -> PreTrainedConfig:
    from transformers import GteConfig

    return GteConfig(**_ENCODER, max_position_embeddings=LONGEST, pad_token_id=0)


def _jina_v3() -> PreTrainedConfig:
    from transformers import JinaEmbeddingsV3Config

    ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    return JinaEmbeddingsV3Config(**_ENCODER, **ids, max_position_embeddings=LONGEST)


_ENCODER = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 2 * WIDTH,
    "initializer_range": SPREAD,
}
_DECODER = {**_ENCODER, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}

_TYPED_INPUTS = ("input_ids", "token_type_ids", "attention_mask")
_BERT_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_ROBERTA_SPECIALS = ("<s>", "<pad>", "</s>", "<mask>")
_DECODER_SPECIALS = ("<pad>", "<s>", "</s>")

FAMILIES = {
    "bert": Family(lambda: _wordpiece("[CLS]", "[SEP]", _BERT_SPECIALS), _bert, "mean", _TYPED_INPUTS),
    "roberta": Family(lambda: byte_level("<s>", "</s>", _ROBERTA_SPECIALS), _roberta, "cls"),
    "xlm_roberta": Family(lambda: byte_level("<s>", "</s>", _ROBERTA_SPECIALS), _xlm_roberta, "cls"),
    "camembert": Family(lambda: byte_level("<s>", "</s>", _ROBERTA_SPECIALS), _camembert, "mean"),
    "electra": Family(lambda: _wordpiece("[CLS]", "[SEP]", _BERT_SPECIALS), _electra, "mean", _TYPED_INPUTS),
    "mpnet": Family(lambda: _wordpiece("<s>", "</s>", (*_ROBERTA_SPECIALS, "[UNK]")), _mpnet, "mean"),
    "distilbert": Family(lambda: _wordpiece("[CLS]", "[SEP]", _BERT_SPECIALS), _distilbert, "mean"),
    "modernbert": Family(lambda: byte_level("[CLS]", "[SEP]", ("[CLS]", "[SEP]", "[PAD]")), _modernbert, "cls"),
    "deberta": Family(lambda: _wordpiece("[CLS]", "[SEP]", _BERT_SPECIALS), _deberta, "mean", _TYPED_INPUTS),
    "nomic_bert": Family(lambda: _wordpiece("[CLS]", "[SEP]", _BERT_SPECIALS), _nomic_bert, "mean", _TYPED_INPUTS),
    "gte": Family(lambda: _wordpiece("[CLS]", "[SEP]", _BERT_SPECIALS), _gte, "cls"),
    "jina_v3": Family(lambda: byte_level("<s>", "</s>", _ROBERTA_SPECIALS), _jina_v3, "mean"),
    "qwen2": Family(lambda: byte_level("", "</s>", _DECODER_SPECIALS), _qwen2, "lasttoken"),
    "qwen3": Family(lambda: byte_level("", "</s>", _DECODER_SPECIALS), _qwen3, "lasttoken"),
    "qwen3_sliding": Family(lambda: byte_level("", "</s>", _DECODER_SPECIALS), _qwen3_sliding, "lasttoken"),
    "llama": Family(lambda: byte_level("<s>", "</s>", _DECODER_SPECIALS), _llama, "lasttoken"),
    "gemma": Family(lambda: byte_level("<s>", "</s>", _DECODER_SPECIALS), _gemma, "lasttoken"),
    "mistral": Family(lambda: byte_level("<s>", "</s>", _DECODER_SPECIALS), _mistral, "lasttoken"),
    "gemma2": Family(lambda: byte_level("<s>", "</s>", _DECODER_SPECIALS), _gemma2, "lasttoken"),
    "gemma3": Family(lambda: byte_level("<s>", "</s>", _DECODER_SPECIALS), _gemma3, "mean"),
}
"""Families by name. Each trains its tokenizer once a process."""

_WIDE = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2}
_WIDE_DECODER = {**_WIDE, "num_key_value_heads": 1, "head_dim": 32}
WIDTHS_FOR_KERNELS: Mapping[str, Mapping[str, int]] = {
    **dict.fromkeys(("bert", "roberta", "xlm_roberta", "camembert", "electra", "mpnet"), _WIDE),
    "distilbert": {"dim": 64, "hidden_dim": 128, "n_heads": 2},
    **dict.fromkeys(("modernbert", "gte", "jina_v3"), _WIDE),
    "nomic_bert": {**_WIDE, "head_dim": 32},
    "qwen2": {**_WIDE, "num_key_value_heads": 1},
    **dict.fromkeys(("qwen3", "qwen3_sliding", "llama", "mistral", "gemma", "gemma2", "gemma3"), _WIDE_DECODER),
}
"""By family, settings whose widths are the multiples of 32 that native kernels take."""
