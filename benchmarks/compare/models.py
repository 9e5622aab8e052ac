"""The models that are compared: MiniLM itself, and shapes of other sizes with random weights.

Nothing is downloaded. The shapes are saved with MiniLM's tokenizer and a sentence-transformers `modules.json`, so that
each library reads them as it reads a published checkpoint.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from benchmarks.machine import ROOT, location
from poolkit.config import DEFAULT_MODEL

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

__all__ = ["MODELS", "Model", "Work", "model_folder"]

CACHE = ROOT / ".bench" / "models"
MAX_TOKENS = 256
"""Every text is cut here, which is MiniLM's own maximum: see `texts`."""
TOKEN_WIDTH = 128
"""Of the late-interaction model, as ColBERT has it."""
HEAD_SCALE = 20.0
"""Of a random classifier: at its usual size all scores would be the same but for rounding."""

Work: TypeAlias = Literal["embed", "rerank", "late_interaction"]


@dataclass(frozen=True, slots=True)
class Model:
    """A model and the amount of work that is measured with it.

    Attributes:
        name: as it stands in the tables.
        work: what is asked of it.
        calls: texts of a round to embed, or queries of a round, each with 100 documents.
        quick_calls: the same for `--quick`.
        make: saves it in an empty folder; None for the packaged one.
    """

    name: str
    work: Work
    calls: int
    quick_calls: int
    make: Callable[[Path], None] | None = None


def model_folder(model: Model) -> Path:
    """Return the folder of a model, which is made first where it is missing."""
    if model.make is None:
        return Path(location(DEFAULT_MODEL))
    folder = CACHE / model.name
    if not folder.exists():
        unfinished = folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        model.make(unfinished)
        unfinished.rename(folder)
    return folder


def _make_bert_base(folder: Path) -> None:
    from transformers import BertConfig

    _save_embedder(folder, BertConfig(), pooling="mean")


def _make_modernbert_base(folder: Path) -> None:
    from transformers import ModernBertConfig

    config = ModernBertConfig(pad_token_id=0, cls_token_id=101, bos_token_id=101, sep_token_id=102, eos_token_id=102)
    _save_embedder(folder, config, pooling="mean", has_token_types=False)


def _make_qwen3_06b(folder: Path) -> None:
    from transformers import Qwen3Config

    config = Qwen3Config(
        vocab_size=151669,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=32768,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=True,
        pad_token_id=0,
    )
    _save_embedder(folder, config, pooling="lasttoken", dtype="bfloat16", has_token_types=False)


def _make_cross_encoder(folder: Path) -> None:
    """Save a classifier of MiniLM's size, its encoder MiniLM's own."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_pretrained(location(DEFAULT_MODEL), num_labels=1)
        torch.nn.init.normal_(model.classifier.weight, std=HEAD_SCALE * model.config.initializer_range)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(location(DEFAULT_MODEL)).save_pretrained(folder)


def _make_late_interaction(folder: Path) -> None:
    """Save a multi-vector model: MiniLM and a random projection of its token vectors."""
    import torch
    from safetensors.torch import load_file, save_file
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    transformer = Transformer(location(DEFAULT_MODEL), max_seq_length=MAX_TOKENS)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        projection = Dense(
            transformer.get_embedding_dimension(),
            TOKEN_WIDTH,
            bias=False,
            activation_function=torch.nn.Identity(),
            module_input_name="token_embeddings",
        )
    normalize = Normalize(module_input_name="token_embeddings")
    model = MultiVectorEncoder(modules=[transformer, projection, MultiVectorMask(), normalize], device="cpu")
    model.save(str(folder), create_model_card=False)
    weights = load_file(folder / "model.safetensors")
    # vLLM reads ColBERT's own checkpoints, in which the projection lies beside the base; others pass over it.
    named = {name if name.startswith("bert.") else f"bert.{name}": tensor for name, tensor in weights.items()}
    named["linear.weight"] = projection.linear.weight.detach()
    save_file(named, folder / "model.safetensors", metadata={"format": "pt"})


def _save_embedder(
    folder: Path, config: PreTrainedConfig, *, pooling: str, dtype: str = "float32", has_token_types: bool = True
) -> None:
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
    from transformers import AutoModel, PreTrainedTokenizerFast

    base = folder / "base"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModel.from_config(config, dtype=getattr(torch, dtype))
    model.save_pretrained(base)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(Path(location(DEFAULT_MODEL)) / "tokenizer.json"),
        unk_token="[UNK]",  # noqa: S106 - a token of the vocabulary
        sep_token="[SEP]",  # noqa: S106
        pad_token="[PAD]",  # noqa: S106
        cls_token="[CLS]",  # noqa: S106
        mask_token="[MASK]",  # noqa: S106
        model_max_length=MAX_TOKENS,
        model_input_names=["input_ids", *(["token_type_ids"] if has_token_types else []), "attention_mask"],
    )
    tokenizer.save_pretrained(base)
    transformer = Transformer(str(base), max_seq_length=MAX_TOKENS, model_kwargs={"dtype": getattr(torch, dtype)})
    modules = [transformer, Pooling(transformer.get_embedding_dimension(), pooling_mode=pooling), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder), create_model_card=False)
    for settings in folder.rglob("tokenizer_config.json"):  # a name that the peers' older transformers know too
        told = json.loads(settings.read_text("utf-8")) | {"tokenizer_class": "PreTrainedTokenizerFast"}
        settings.write_text(json.dumps(told, indent=2), "utf-8")
    shutil.rmtree(base)


MODELS: Mapping[str, Model] = {
    model.name: model
    for model in (
        Model("minilm", "embed", 1000, 256),
        Model("bert-base", "embed", 128, 32, _make_bert_base),
        Model("modernbert-base", "embed", 96, 24, _make_modernbert_base),
        Model("qwen3-0.6b", "embed", 24, 8, _make_qwen3_06b),
        Model("cross-encoder", "rerank", 4, 2, _make_cross_encoder),
        Model("late-interaction", "late_interaction", 4, 2, _make_late_interaction),
    )
}
"""By name, in the order in which they are measured."""
