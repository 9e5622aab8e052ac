"""Reads a text as tokens that know their characters: what a label for a token says of the text.

Offsets, special tokens and the rule for which token goes on a word are those of transformers' pipeline
"token-classification".
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING, Protocol

from poolkit.contract.encoder import TextToken

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend
    from transformers import PreTrainedTokenizerBase

__all__ = ["Read", "fast_reader", "slow_reader"]


class Read(Protocol):
    """Reads a text that stands behind a prompt, which may be empty."""

    def __call__(self, text: str, *, prompt: str) -> list[TextToken]:
        """Return the tokens of both, without special tokens, their characters counted in the text."""
        ...


def fast_reader(backend: Backend, tokenizer: PreTrainedTokenizerBase) -> Read:
    """Return what reads texts with a tokenizer of the Rust library: `backend`, as it makes token ids."""
    marks_words = bool(getattr(backend.model, "continuing_subword_prefix", None))
    unknown_id = tokenizer.unk_token_id

    def read(text: str, *, prompt: str) -> list[TextToken]:
        encoding = backend.encode(prompt + text, add_special_tokens=False)
        names = tokenizer.convert_ids_to_tokens(encoding.ids)
        tokens = []
        for token_id, name, (begin, stop) in zip(encoding.ids, names, encoding.offsets, strict=True):
            start, end = max(0, begin - len(prompt)), max(0, stop - len(prompt))
            if prompt and stop <= len(prompt):
                tokens.append(TextToken(name, None, None, is_special=True))
            elif token_id == unknown_id:
                tokens.append(TextToken(text[start:end], start, end))
            else:
                is_subword = len(name) != end - start if marks_words else _has_no_space_before(text, start)
                tokens.append(TextToken(name, start, end, is_subword=is_subword))
        return tokens

    return read


def slow_reader(tokenizer: PreTrainedTokenizerBase, *, lock: Lock, normalize: Callable[[str], str]) -> Read:
    """Return what reads texts with a tokenizer in Python, which does not tell characters and words.

    Args:
        tokenizer: is used under `lock`, since it says nothing about threads.
        lock: shared with whoever else uses it.
        normalize: applied to a text before it is tokenized.
    """

    def read(text: str, *, prompt: str) -> list[TextToken]:
        with lock:
            encoded = tokenizer(normalize(prompt + text), add_special_tokens=False, truncation=False, verbose=False)
        return [TextToken(name, None, None) for name in tokenizer.convert_ids_to_tokens(encoded["input_ids"])]

    return read


def _has_no_space_before(text: str, start: int) -> bool:
    """Return whether a token that starts there goes on a word, as far as the spaces tell."""
    return start > 0 and " " not in text[start - 1 : start + 1]
