"""Tokens with their offsets in the text: what a label for a token says of the text.

Offsets, special tokens and the rule for which token continues a word are those of transformers' pipeline
"token-classification".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Protocol

import numpy as np

from poolkit.contract import TextToken

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend
    from transformers import PreTrainedTokenizerBase

    from poolkit.contract import TokenIds

__all__ = ["EncodeTextTokens", "fast_text_tokens", "slow_text_tokens"]


class EncodeTextTokens(Protocol):
    """Tokenizes texts, each behind a prompt, which may be empty."""

    def __call__(self, texts: Sequence[str], prompts: Sequence[str]) -> list[tuple[TokenIds, list[TextToken]]]:
        """Return the tokens of prompt and text, without special tokens, with their offsets in the text."""
        ...


def fast_text_tokens(
    backend: Backend, find_tokens: Callable[[list[int]], list[str | None]], *, unknown_id: int | None
) -> EncodeTextTokens:
    """Return a function that tokenizes with a tokenizer of the Rust library.

    Args:
        backend: makes token ids.
        find_tokens: returns the token of each id, as the vocabulary writes it.
        unknown_id: stands for what the vocabulary has no token for.
    """
    marks_words = bool(getattr(backend.model, "continuing_subword_prefix", None))

    def encode(texts: Sequence[str], prompts: Sequence[str]) -> list[tuple[TokenIds, list[TextToken]]]:
        whole = [prompt + text for prompt, text in zip(prompts, texts, strict=True)]
        encodings = [backend.encode(text, add_special_tokens=False) for text in whole]  # in this thread
        found = []
        for text, prompt, encoding in zip(texts, prompts, encodings, strict=True):
            ids = encoding.ids
            names = [name or "" for name in find_tokens(ids)]
            tokens = []
            for token_id, name, (begin, stop) in zip(ids, names, encoding.offsets, strict=True):
                start, end = max(0, begin - len(prompt)), max(0, stop - len(prompt))
                if prompt and stop <= len(prompt):
                    tokens.append(TextToken(name, None, None, is_special=True))
                elif token_id == unknown_id:
                    tokens.append(TextToken(text[start:end], start, end))
                else:
                    is_subword = len(name) != end - start if marks_words else _has_no_space_before(text, start)
                    tokens.append(TextToken(name, start, end, is_subword=is_subword))
            found.append((np.array(ids, np.int32), tokens))
        return found

    return encode


def slow_text_tokens(
    tokenizer: PreTrainedTokenizerBase, *, lock: Lock, normalize: Callable[[str], str]
) -> EncodeTextTokens:
    """Return a function that tokenizes with a tokenizer in Python, which has neither offsets nor words.

    Args:
        tokenizer: is used under `lock`, since it says nothing about threads.
        lock: shared with everything else that uses it.
        normalize: applied to a text before it is tokenized.
    """

    def encode(texts: Sequence[str], prompts: Sequence[str]) -> list[tuple[TokenIds, list[TextToken]]]:
        found = []
        for text, prompt in zip(texts, prompts, strict=True):
            with lock:
                encoded = tokenizer(normalize(prompt + text), add_special_tokens=False, truncation=False, verbose=False)
            ids = encoded["input_ids"]
            names = tokenizer.convert_ids_to_tokens(ids)
            found.append((np.array(ids, np.int32), [TextToken(name, None, None) for name in names]))
        return found

    return encode


def _has_no_space_before(text: str, start: int) -> bool:
    """Return whether a token that starts there continues a word, as far as the spaces tell."""
    return start > 0 and " " not in text[start - 1 : start + 1]
