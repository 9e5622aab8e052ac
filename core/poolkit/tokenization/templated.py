"""Tokenizes a `TemplatedText` whose text has to be truncated; its prefix and suffix stay whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poolkit.contract import TemplatedText, Tokenizer
from poolkit.errors import RequestError
from poolkit.tokenization.truncation import UNCERTAIN_CHARACTERS, TruncationSide, excerpt, is_long

if TYPE_CHECKING:
    from poolkit.contract import TokenIds

__all__ = ["truncate_templated"]


def truncate_templated(
    templated: TemplatedText,
    tokenizer: Tokenizer,
    *,
    max_length: int | None,
    max_text: int | None,
    side: TruncationSide,
) -> TokenIds:
    """Return the token ids of prefix, text and suffix, tokenized as one string, the text truncated where it must be.

    It is cut at the character where the surplus tokens begin, and the rest is tokenized again: beside another
    neighbour the last word may have other tokens, so that more may have to go.

    Args:
        templated: the text with its prefix and suffix.
        tokenizer: must have offsets.
        max_length: tokens in all; None for any number.
        max_text: tokens that hold some of the text; None for any number.
        side: the side of the text that is dropped.

    Raises RequestError if prefix and suffix alone are longer than `max_length`, or the tokenizer has no offsets.
    """
    kept = min(limit for limit in (max_length, max_text) if limit is not None)
    factor = 1
    while True:
        is_part = is_long(templated.text, factor * kept)
        text = excerpt(templated.text, factor * kept, side=side) if is_part else templated.text
        part = TemplatedText(templated.prefix, text, templated.suffix)
        length, token_ids = _shrink(part, tokenizer, max_length=max_length, max_text=max_text, side=side)
        if not is_part or length <= len(text) - UNCERTAIN_CHARACTERS:
            return token_ids
        factor *= 2


def _shrink(
    templated: TemplatedText,
    tokenizer: Tokenizer,
    *,
    max_length: int | None,
    max_text: int | None,
    side: TruncationSide,
) -> tuple[int, TokenIds]:
    """Return how many characters of the text fit, and the token ids of these between prefix and suffix."""
    text, begin = templated.text, len(templated.prefix)
    while True:
        encodings = tokenizer.encode_with_offsets([templated.prefix + text + templated.suffix])
        if encodings is None:
            raise RequestError(
                "the model's tokenizer does not tell where its tokens lie in a text, so that a text cannot be cut "
                "between what stands around it. Shorten it"
            )
        [encoding] = encodings
        end = begin + len(text)
        of_text = [(start, stop) for start, stop in encoding.offsets if stop > begin and start < end]
        too_many = 0 if max_length is None else len(encoding.token_ids) - max_length
        too_long = 0 if max_text is None else len(of_text) - max_text
        surplus = max(too_many, too_long)
        if surplus <= 0:
            return len(text), encoding.token_ids
        if not text:
            raise RequestError(
                f"what stands around the text has {len(encoding.token_ids)} tokens by itself, more than the "
                f"{max_length} that are allowed in all. Shorten it, or allow more with truncate_prompt_tokens"
            )
        if surplus >= len(of_text):
            text = ""
        elif side == "right":
            text = text[: max(0, of_text[-surplus][0] - begin)]
        else:
            text = text[of_text[surplus - 1][1] - begin :]
