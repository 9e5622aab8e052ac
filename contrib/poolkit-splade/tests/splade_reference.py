"""SPLADE in plain transformers, one text at a time, and the texts and checkpoints to try it on."""

from __future__ import annotations

import argparse
import asyncio
import collections
import inspect
import json
import logging
import pathlib
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertForMaskedLM

MODULES = (argparse, asyncio, collections, json, logging, pathlib, statistics, textwrap)
SHORT_TEXTS = (
    "",
    "a",
    "No.",
    "A cat sat on the mat.",
    "naïve café",
    "東京タワー",
    "😀 ok",
    "[MASK] and [SEP]",
    "  spaces  ",
)
SPREAD = 0.3
"""Of random weights: at the usual 0.02 one text's logits look like another's."""


def texts(count: int) -> list[str]:
    """Return different texts: short ones with a catch, then docstrings, whole and their first lines."""
    found = dict.fromkeys(SHORT_TEXTS)
    for module in MODULES:
        for thing in vars(module).values():
            docstring = inspect.getdoc(thing) if inspect.isclass(thing) or inspect.isfunction(thing) else None
            if docstring:
                found |= dict.fromkeys([docstring, docstring.partition("\n")[0]])
    assert len(found) >= count
    return list(found)[:count]


@torch.no_grad()
def reference(folder: Path, inputs: Sequence[str], *, pooling: str = "max", log1ps: int = 1) -> NDArray[np.float32]:
    """Return the weights of each text, special tokens and all, cut to 512 tokens. (texts, vocabulary)"""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForMaskedLM.from_pretrained(folder).eval()
    rows = []
    for text in inputs:
        encoded = tokenizer(text, truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt")
        weights = model(**encoded).logits[0].clamp_min(0)  # (tokens, vocabulary)
        for _ in range(log1ps):
            weights = torch.log(1 + weights)
        rows.append(weights.max(dim=0).values if pooling == "max" else weights.sum(dim=0))
    return torch.stack(rows).numpy()


def dense(embeddings: Sequence[Mapping[str, float]], folder: Path) -> NDArray[np.float32]:
    """Return weights by token as the rows of one array. (texts, vocabulary)"""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = np.zeros((len(embeddings), len(tokenizer)), np.float32)
    for row, weights in zip(rows, embeddings, strict=True):
        assert len(set(tokenizer.convert_tokens_to_ids(list(weights)))) == len(weights)
        row[tokenizer.convert_tokens_to_ids(list(weights))] = list(weights.values())
    return rows


def make_checkpoint(folder: Path, *, like: Path, longest: int = 512, **config: object) -> Path:
    """Save a BertForMaskedLM with random weights, the tokenizer being that of another model, and return its folder."""
    tokenizer = AutoTokenizer.from_pretrained(like)
    settings = {
        "vocab_size": len(tokenizer),
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 96,
        "initializer_range": SPREAD,
        "max_position_embeddings": longest,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertForMaskedLM(BertConfig(**(settings | config)))
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(weight, std=SPREAD)  # fresh biases are zero, which would hide a lost one
    model.save_pretrained(folder)
    tokenizer.model_max_length = longest
    tokenizer.save_pretrained(folder)
    return folder
