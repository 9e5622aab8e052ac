"""Makes tiny NLI models of real architectures, with tokenizers of a few hundred words, and the texts to run on them.

The weights are random and drawn wider than usual, so that a lost token type or a wrong mask shows in the scores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

__all__ = ["FAMILIES", "LABELS", "LONGEST", "TEXTS", "make_nli_checkpoint"]

LONGEST = 128
SPREAD = 0.3

TEXTS = (
    "The striker scored twice in the second half and the crowd sang for an hour.",
    "Rates are to rise again in May, says the central bank.",
    "Fry the onions in butter until they are soft!",
    "No.",
)
LABELS = ("sports", "economy", "cooking", "a long walk in the mountains")

THREE = ("contradiction", "neutral", "entailment")
"""The order of MNLI, and of most models that were trained on it."""
THREE_REVERSED = ("ENTAILMENT", "NEUTRAL", "CONTRADICTION")
"""Entailment first: contradiction is then the last one."""
TWO = ("entailment", "not_entailment")
"""The models that were made for zero-shot classification."""


@dataclass(frozen=True)
class Family:
    """A recipe for checkpoints of one architecture."""

    config: Callable[[int], PreTrainedConfig]
    specials: tuple[str, ...]
    pair: str
    labels: tuple[str, ...]
    model_inputs: tuple[str, ...] = ("input_ids", "token_type_ids", "attention_mask")


def make_nli_checkpoint(folder: Path, family: str, *, labels: tuple[str, ...] | None = None) -> Path:
    """Save a model of `family` in `folder` and return that. `labels` are its own by default."""
    import torch
    import transformers

    made = FAMILIES[family]
    tokenizer = _tokenizer(made)
    config = made.config(tokenizer.get_vocab_size())
    names = labels or made.labels
    config.id2label = dict(enumerate(names))
    config.label2id = {name: index for index, name in enumerate(names)}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForSequenceClassification.from_config(config)
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(weight, std=SPREAD)  # fresh biases are zero, which would hide a lost one
    model.save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=LONGEST,
        pad_token=made.specials[0],
        model_input_names=list(made.model_inputs),
    ).save_pretrained(folder)
    return folder


def _tokenizer(made: Family) -> Tokenizer:
    """Return a tokenizer of single characters and their continuations, after the special tokens."""
    characters = sorted({character for character in (chr(code) for code in range(33, 127)) if not character.isupper()})
    words = [*made.specials, *characters, *(f"##{character}" for character in characters)]
    words += ["this", "example", "is", "text", "about", "the", *(word for label in LABELS for word in label.split())]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    first, last = made.pair.split()[0].partition(":")[0], made.pair.split()[-1].partition(":")[0]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=made.pair,
        special_tokens=[(token, vocabulary[token]) for token in (first, last)],
    )
    return tokenizer


def _bert(vocabulary: int) -> PreTrainedConfig:
    from transformers import BertConfig

    return BertConfig(vocab_size=vocabulary, max_position_embeddings=LONGEST, pad_token_id=0, **_SIZES)


def _roberta(vocabulary: int) -> PreTrainedConfig:
    from transformers import RobertaConfig

    return RobertaConfig(
        vocab_size=vocabulary,
        max_position_embeddings=LONGEST + 1,
        type_vocab_size=1,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **_SIZES,
    )


def _deberta(vocabulary: int) -> PreTrainedConfig:
    from transformers import DebertaV2Config

    return DebertaV2Config(
        vocab_size=vocabulary,
        max_position_embeddings=LONGEST,
        pad_token_id=0,
        type_vocab_size=0,
        position_biased_input=False,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        position_buckets=16,
        share_att_key=True,
        norm_rel_ebd="layer_norm",
        **_SIZES,
    )


_SIZES = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "initializer_range": SPREAD,
}

FAMILIES = {
    "bert": Family(_bert, ("[PAD]", "[UNK]", "[CLS]", "[SEP]"), "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1", THREE),
    "roberta": Family(
        _roberta,
        ("<pad>", "<s>", "</s>", "[UNK]"),
        "<s>:0 $A:0 </s>:0 </s>:0 $B:0 </s>:0",
        THREE_REVERSED,
        ("input_ids", "attention_mask"),
    ),
    "deberta": Family(_deberta, ("[PAD]", "[UNK]", "[CLS]", "[SEP]"), "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1", TWO),
}
"""Families by name, each with another order of labels."""
