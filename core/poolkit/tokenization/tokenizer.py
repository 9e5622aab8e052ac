"""The model's tokenizer, fast and safe to share between threads: ids exactly as sentence-transformers makes them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Protocol

import numpy as np
from tokenizers import Tokenizer as Backend
from tokenizers import normalizers

from poolkit.contract import Decision, Encoding, PairTemplate, TextToken
from poolkit.errors import ModelError, RequestError
from poolkit.tokenization.offsets import Locate, fast_locator
from poolkit.tokenization.query_expansion import keep_markers_whole
from poolkit.tokenization.text_tokens import EncodeTextTokens, fast_text_tokens, slow_text_tokens
from poolkit.tokenization.wordpiece import EncodeTexts, load_wordpiece

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from poolkit.contract import ModelInfo, TokenIds

__all__ = ["TextTokenizer", "load_tokenizer", "read_tokenizer"]

SURROGATE = re.compile("[\ud800-\udfff]")
PROBE = "a"
CHEAP_EXCERPT_FROM = 32
"""Where all of a text is tokenized as fast as a small part of it with its offsets."""
FEWEST_TOKENS = 32
"""The tokenizer that transformers makes of a folder without a vocabulary has a few special tokens at most."""


class _EncodePair(Protocol):
    def __call__(
        self, first: str, second: str | None = None, *, add_special_tokens: bool = True
    ) -> tuple[list[int], list[int]]: ...


class TextTokenizer:
    """Turns texts into token ids.

    Attributes:
        decision: what makes them, for the start-up report.
        excerpt_from: how many times the tokens that are kept of it a text must hold for an excerpt of it to be
            tokenized first.
    """

    def __init__(
        self,
        encode: EncodeTexts,
        find_id: Callable[[str], int | None],
        find_tokens: Callable[[list[int]], list[str | None]],
        encode_text_tokens: EncodeTextTokens,
        join: Callable[[list[str]], str],
        locate: Locate | None,
        *,
        pair_template: PairTemplate,
        decision: Decision,
        excerpt_from: int = 1,
    ) -> None:
        self.decision = decision
        self.excerpt_from = excerpt_from
        self._encode = encode
        self._find_id = find_id
        self._find_tokens = find_tokens
        self._encode_text_tokens = encode_text_tokens
        self._join = join
        self._locate = locate
        self._special_affixes = _probe_affixes(encode)
        self._pair_template = pair_template

    def encode_batch(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[TokenIds]:
        """Return the token ids of each text, untruncated and unpadded.

        Raises RequestError where a text is not valid Unicode.
        """
        with _clear_about_surrogates(texts):
            return self._encode(texts, add_special_tokens)

    def encode_with_offsets(self, texts: Sequence[str]) -> list[Encoding] | None:
        """Return the token ids of each text without special tokens and where they lie; None where it cannot tell.

        Raises RequestError where a text is not valid Unicode.
        """
        with _clear_about_surrogates(texts):
            return None if self._locate is None else self._locate(texts)

    @property
    def pair_template(self) -> PairTemplate:
        """The special tokens around and between the two texts of a pair."""
        return self._pair_template

    def token_id(self, token: str) -> int | None:
        """Return the id of a token, as the vocabulary writes it; None if it has no such token."""
        return self._find_id(token)

    def tokens(self, token_ids: Sequence[int] | TokenIds) -> list[str]:
        """Return the token of each id, as the vocabulary writes it; no two ids have the same.

        Where the model knows more ids than its tokenizer has tokens, id 30000 without one is written "<30000>".
        """
        ids = np.asarray(token_ids, np.int32).tolist()
        return [
            f"<{token_id}>" if token is None else token
            for token_id, token in zip(ids, self._find_tokens(ids), strict=True)
        ]

    def text_tokens(self, texts: Sequence[str], prompts: Sequence[str]) -> list[tuple[TokenIds, list[TextToken]]]:
        """Return the tokens of each text behind its prompt, without special tokens, with their offsets in the text.

        Raises RequestError where a text is not valid Unicode.
        """
        with _clear_about_surrogates(texts):
            return self._encode_text_tokens(texts, prompts)

    def join(self, tokens: Sequence[str]) -> str:
        """Return what tokens, as the vocabulary writes them, read together."""
        return self._join(list(tokens))

    @property
    def special_affixes(self) -> tuple[int, int]:
        """The numbers of special tokens before and after a text."""
        return self._special_affixes


def load_tokenizer(info: ModelInfo) -> TextTokenizer:
    """Load the tokenizer from the model's folder.

    Raises ModelError where there is none.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(info.path, trust_remote_code=info.config.trust_remote_code)
    except Exception as exc:  # the Rust library raises bare ones
        raise ModelError(f"The tokenizer of {info.name} in {info.path} cannot be loaded: {exc}") from exc
    if len(tokenizer) < FEWEST_TOKENS:
        raise ModelError(
            f"The tokenizer of {info.name} has {len(tokenizer)} tokens: {info.path} holds no vocabulary. Fetch the "
            "model again."
        )
    if info.multi_vector is not None:
        keep_markers_whole(tokenizer, info.multi_vector.markers)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if isinstance(backend, Backend):
        own = _own_backend(backend, lowercases=info.text.lowercases)
        find = _token_finder(tokenizer)
        encode, decision, excerpt_from = _choose_encoder(own)
        encode_text_tokens = fast_text_tokens(own, find, unknown_id=tokenizer.unk_token_id)
        locate: Locate | None = fast_locator(own)
    else:
        lock = Lock()  # a tokenizer in Python says nothing about threads
        encode = _slow_encoder(tokenizer, lock, lowercases=info.text.lowercases)
        decision, excerpt_from = Decision("tokenizer", "transformers", "it has none but one in Python"), 1
        normalize = str.lower if info.text.lowercases else str
        encode_text_tokens = slow_text_tokens(tokenizer, lock=lock, normalize=normalize)
        locate = None
    return TextTokenizer(
        encode,
        backend.token_to_id if isinstance(backend, Backend) else tokenizer.get_vocab().get,
        _token_finder(tokenizer),
        encode_text_tokens,
        tokenizer.convert_tokens_to_string,
        locate,
        pair_template=_probe_pair(_pair_encoder(tokenizer)),
        decision=decision,
        excerpt_from=excerpt_from,
    )


def read_tokenizer(file: Path) -> TextTokenizer:
    """Read a tokenizer.json alone, without transformers: for the `load_tokenizer` of an engine.

        def load_tokenizer(info):
            return read_tokenizer(info.path / "tokenizer.json")

    Truncation and padding that the file asks for are left out: poolkit cuts prompts itself, and pads none.

    Raises ModelError where the file cannot be read.
    """
    try:
        own = _own_backend(Backend.from_file(str(file)), lowercases=False)
    except Exception as exc:  # the Rust library raises bare ones
        raise ModelError(f"{file} cannot be read as a tokenizer: {exc}. Fetch the model again.") from exc

    def find(token_ids: list[int]) -> list[str | None]:
        return [own.id_to_token(token_id) for token_id in token_ids]

    def encode_pair(
        first: str, second: str | None = None, *, add_special_tokens: bool = True
    ) -> tuple[list[int], list[int]]:
        encoding = own.encode(first, second, add_special_tokens=add_special_tokens)
        return encoding.ids, encoding.type_ids

    unknown = getattr(own.model, "unk_token", None)
    encode, decision, excerpt_from = _choose_encoder(own)
    return TextTokenizer(
        encode,
        own.token_to_id,
        find,
        fast_text_tokens(own, find, unknown_id=None if unknown is None else own.token_to_id(unknown)),
        own.decoder.decode if own.decoder is not None else " ".join,
        fast_locator(own),
        pair_template=_probe_pair(encode_pair),
        decision=decision,
        excerpt_from=excerpt_from,
    )


def _own_backend(shared: Backend, *, lowercases: bool) -> Backend:
    # A copy of our own: files often carry truncation and padding, and nobody else may switch them on again.
    backend = Backend.from_str(shared.to_str())
    backend.no_truncation()
    backend.no_padding()
    if lowercases:  # before all else; a normalizer that lowercases as well finds nothing left to do
        steps = [normalizers.Lowercase(), *([backend.normalizer] if backend.normalizer else [])]
        backend.normalizer = normalizers.Sequence(steps)
    return backend


def _choose_encoder(backend: Backend) -> tuple[EncodeTexts, Decision, int]:
    """Return the fastest way to the ids of a tokenizer of the Rust library, the reason, and `excerpt_from`."""
    found = load_wordpiece(backend)
    if isinstance(found, str):
        return _fast_encoder(backend), Decision("tokenizer", "tokenizers", found), 1
    return found, Decision("tokenizer", "nanotoken", "gives the ids of tokenizers, more quickly"), CHEAP_EXCERPT_FROM


def _fast_encoder(backend: Backend) -> EncodeTexts:
    def encode(texts: Sequence[str], add_special_tokens: bool) -> list[TokenIds]:
        # One at a time: the library spreads a batch over as many threads as there are cores, which the model needs.
        encodings = [backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)[0] for text in texts]
        return [np.array(encoding.ids, np.int32) for encoding in encodings]  # the library offers lists alone

    return encode


def _token_finder(tokenizer: PreTrainedTokenizerBase) -> Callable[[list[int]], list[str | None]]:
    def find(token_ids: list[int]) -> list[str | None]:
        return list(tokenizer.convert_ids_to_tokens(token_ids))

    return find


def _slow_encoder(tokenizer: PreTrainedTokenizerBase, lock: Lock, *, lowercases: bool) -> EncodeTexts:
    def encode(texts: Sequence[str], add_special_tokens: bool) -> list[TokenIds]:
        prompts = [text.lower() for text in texts] if lowercases else list(texts)
        if not prompts:
            return []  # the tokenizer itself raises for none
        with lock:
            encoded = tokenizer(prompts, add_special_tokens=add_special_tokens, truncation=False, verbose=False)
        return [np.array(ids, np.int32) for ids in encoded["input_ids"]]

    return encode


@contextmanager
def _clear_about_surrogates(texts: Sequence[str]) -> Iterator[None]:
    try:
        yield
    except (TypeError, UnicodeEncodeError):
        for text in texts:
            found = SURROGATE.search(text)
            if found is not None:
                raise RequestError(
                    f"the text holds a lone surrogate (U+{ord(found[0]):04X}) at character {found.start()}; "
                    "it is not valid Unicode"
                ) from None
        raise


def _probe_affixes(encode: EncodeTexts) -> tuple[int, int]:
    (bare,) = encode([PROBE], False)
    (full,) = encode([PROBE], True)
    extra = len(full) - len(bare)
    before = _find(bare.tolist(), full.tolist()) or 0
    return before, extra - before


def _pair_encoder(tokenizer: PreTrainedTokenizerBase) -> _EncodePair:
    def encode(
        first: str, second: str | None = None, *, add_special_tokens: bool = True
    ) -> tuple[list[int], list[int]]:
        encoded = tokenizer(first, second, add_special_tokens=add_special_tokens)
        ids = list(encoded["input_ids"])
        return ids, list(encoded.get("token_type_ids", [0] * len(ids)))

    return encode


def _probe_pair(encode: _EncodePair) -> PairTemplate:
    """Return what the tokenizer puts around and between two texts, seen on a pair of its own."""
    bare, _ = encode(PROBE, add_special_tokens=False)
    ids, types = encode(PROBE, PROBE)
    first = _find(bare, ids) or 0
    second = _find(bare, ids, start=first + len(bare)) or first + len(bare)
    tokens = tuple(zip(ids, types, strict=True))
    return PairTemplate(
        before=tokens[:first],
        between=tokens[first + len(bare) : second],
        after=tokens[second + len(bare) :],
        second_type=types[second],
    )


def _find(part: list[int], whole: list[int], *, start: int = 0) -> int | None:
    """Return where `part` lies in `whole`, from `start` on."""
    return next((i for i in range(start, len(whole)) if whole[i : i + len(part)] == part), None)
