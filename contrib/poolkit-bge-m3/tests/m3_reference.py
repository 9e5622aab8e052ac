"""BGE-M3's arithmetic written out over plain transformers, one text at a time, and a model to try it on.

The lines of `reference` are those of FlagEmbedding's EncoderOnlyEmbedderM3ModelForInference and M3Embedder, whose
`encode` normalises, drops the first token's vector and keeps each token id's highest weight.
"""

from __future__ import annotations

import argparse
import inspect
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

WIDTH = 48
COLBERT_WIDTH = 32
LONGEST = 256
SPREAD = 0.15
"""Of random weights: at the usual 0.02 one token's hidden state looks like another's."""

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
"""In the order of XLM-RoBERTa's vocabulary."""

SHORT_TEXTS = ("", "a", "to be or not to be", "東京タワー", "a <mask> b <unk> c </s> d")


@dataclass(frozen=True)
class Expected:
    """The three embeddings of one text."""

    dense: NDArray[np.float32]
    sparse: dict[str, float]
    multi_vector: NDArray[np.float32]


def texts() -> list[str]:
    """Return short texts with a catch, and docstrings of the standard library."""
    docstrings = [inspect.getdoc(thing) for thing in vars(argparse).values() if inspect.isclass(thing)]
    return [*SHORT_TEXTS, *dict.fromkeys(filter(None, docstrings))]


@torch.no_grad()
def reference(folder: Path, inputs: Sequence[str]) -> list[Expected]:
    """Return what FlagEmbedding returns for each text, cut to the model's maximum."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    sparse_linear = torch.nn.Linear(WIDTH, 1)
    sparse_linear.load_state_dict(torch.load(folder / "sparse_linear.pt", weights_only=True))
    colbert_linear = torch.nn.Linear(WIDTH, COLBERT_WIDTH)
    colbert_linear.load_state_dict(torch.load(folder / "colbert_linear.pt", weights_only=True))
    unused = {tokenizer.cls_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id}

    expected = []
    for text in inputs:
        encoded = tokenizer(text, truncation=True, max_length=LONGEST, return_tensors="pt")
        hidden = model(**encoded).last_hidden_state  # (1, tokens, hidden)
        dense = torch.nn.functional.normalize(hidden[:, 0], dim=-1)
        token_weights = torch.relu(sparse_linear(hidden)).squeeze(-1)  # (1, tokens)
        multi_vector = torch.nn.functional.normalize(colbert_linear(hidden[:, 1:]), dim=-1)
        sparse: defaultdict[str, float] = defaultdict(float)
        for weight, token_id in zip(token_weights[0].tolist(), encoded["input_ids"][0].tolist(), strict=True):
            if token_id not in unused and weight > sparse[str(token_id)]:
                sparse[str(token_id)] = weight
        above_zero = {token_id: weight for token_id, weight in sparse.items() if weight > 0}
        expected.append(Expected(dense[0].numpy(), above_zero, multi_vector[0].numpy()))
    return expected


def make_checkpoint(folder: Path) -> Path:
    """Save an XLM-RoBERTa with random weights, a tokenizer of whole words and the two layers of BGE-M3."""
    words = sorted({word for text in texts() for word in text.split()} - set(SPECIALS))
    vocabulary = {word: token_id for token_id, word in enumerate((*SPECIALS, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=LONGEST,
        cls_token="<s>",
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        sep_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
    ).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = XLMRobertaConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=2 * WIDTH,
            initializer_range=SPREAD,
            max_position_embeddings=LONGEST + 2,
            type_vocab_size=1,
            pad_token_id=1,
            bos_token_id=0,
            eos_token_id=2,
        )
        XLMRobertaModel(config).save_pretrained(folder)
        torch.save(torch.nn.Linear(WIDTH, 1).state_dict(), folder / "sparse_linear.pt")
        torch.save(torch.nn.Linear(WIDTH, COLBERT_WIDTH).state_dict(), folder / "colbert_linear.pt")
    return folder
