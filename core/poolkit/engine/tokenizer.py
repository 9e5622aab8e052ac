"""The model's tokenizer, fast and safe to share between threads: ids exactly as sentence-transformers makes them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from threading import Lock
from typing import TYPE_CHECKING, Protocol

from tokenizers import Tokenizer as Backend
from tokenizers import normalizers

from poolkit.errors import ModelError, RequestError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from poolkit.config import ModelConfig
    from poolkit.models import ModelInfo

__all__ = ["TextTokenizer", "load_tokenizer"]

SURROGATE = re.compile("[\ud800-\udfff]")
PROBE = "a"


class _EncodeBatch(Protocol):
    def __call__(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[list[int]]: ...


class TextTokenizer:
    """Turns texts into token ids, the model's default prompt put before each."""

    def __init__(self, encode: _EncodeBatch, *, default_prompt: str) -> None:
        self._encode = encode
        self._default_prompt = default_prompt
        self._special_affixes = _probe_affixes(encode)

    def encode_batch(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[list[int]]:
        """Return the token ids of each text, untruncated and unpadded.

        Raises RequestError where a text is not valid Unicode.
        """
        prompts = [self._default_prompt + text for text in texts] if self._default_prompt else texts
        try:
            return self._encode(prompts, add_special_tokens=add_special_tokens)
        except (TypeError, UnicodeEncodeError):
            _refuse_surrogates(texts)
            raise

    @property
    def special_affixes(self) -> tuple[int, int]:
        """How many special tokens are put before and after a text."""
        return self._special_affixes


def load_tokenizer(info: ModelInfo, *, config: ModelConfig) -> TextTokenizer:
    """Load the tokenizer from the model's folder.

    Raises ModelError where there is none.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(info.path, trust_remote_code=config.trust_remote_code)
    except (OSError, ValueError) as exc:
        raise ModelError(f"The tokenizer of {info.name} in {info.path} cannot be loaded: {exc}") from exc
    backend = getattr(tokenizer, "backend_tokenizer", None)
    encode = (
        _fast_encoder(backend, lowercases=info.lowercases)
        if isinstance(backend, Backend)
        else _slow_encoder(tokenizer, lowercases=info.lowercases)
    )
    return TextTokenizer(encode, default_prompt=info.default_prompt)


def _fast_encoder(shared: Backend, *, lowercases: bool) -> _EncodeBatch:
    # A copy of our own: files often carry truncation and padding, and nobody else may switch them on again.
    backend = Backend.from_str(shared.to_str())
    backend.no_truncation()
    backend.no_padding()
    if lowercases:  # before all else; a normalizer that lowercases as well finds nothing left to do
        steps = [normalizers.Lowercase(), *([backend.normalizer] if backend.normalizer else [])]
        backend.normalizer = normalizers.Sequence(steps)

    def encode(texts: Sequence[str], *, add_special_tokens: bool) -> list[list[int]]:
        encodings = backend.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)
        return [encoding.ids for encoding in encodings]

    return encode


def _slow_encoder(tokenizer: PreTrainedTokenizerBase, *, lowercases: bool) -> _EncodeBatch:
    lock = Lock()  # a tokenizer in Python says nothing about threads

    def encode(texts: Sequence[str], *, add_special_tokens: bool) -> list[list[int]]:
        prompts = [text.lower() for text in texts] if lowercases else list(texts)
        with lock:
            encoded = tokenizer(prompts, add_special_tokens=add_special_tokens, truncation=False, verbose=False)
        return [list(ids) for ids in encoded["input_ids"]]

    return encode


def _refuse_surrogates(texts: Sequence[str]) -> None:
    for text in texts:
        found = SURROGATE.search(text)
        if found is not None:
            raise RequestError(
                f"the text holds a lone surrogate (U+{ord(found[0]):04X}) at character {found.start()}; "
                "it is not valid Unicode"
            )


def _probe_affixes(encode: _EncodeBatch) -> tuple[int, int]:
    (bare,) = encode([PROBE], add_special_tokens=False)
    (full,) = encode([PROBE], add_special_tokens=True)
    extra = len(full) - len(bare)
    before = next((start for start in range(extra + 1) if full[start : start + len(bare)] == bare), 0)
    return before, extra - before
