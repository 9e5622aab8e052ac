"""Cuts the text of a `TemplatedText` so that it fits with what stands around it, which stays whole."""

from __future__ import annotations

from collections.abc import Sequence

from poolkit.contract import TemplatedText, Tokenizer
from poolkit.errors import RequestError
from poolkit.tokenization.truncation import DOUBTFUL_CHARACTERS, Side, excerpt, is_long

__all__ = ["cut_frame"]


def cut_frame(
    framed: TemplatedText, tokenizer: Tokenizer, *, room: int | None, longest: int | None, drops: Side
) -> Sequence[int]:
    """Return the token ids of a text in its frame, tokenized as one string, the text cut where it must be.

    It is cut at the character where the surplus tokens begin, and what is left is tokenized anew: beside another
    neighbour the last word may have other tokens, so that more may have to go.

    Args:
        framed: the text and its frame.
        tokenizer: must tell where tokens lie.
        room: tokens in all; None for any number.
        longest: tokens that hold some of the text; None for any number.
        drops: the side of the text that gives way.

    Raises RequestError where the frame alone is longer than `room`, or the tokenizer does not tell where tokens lie.
    """
    kept = min(limit for limit in (room, longest) if limit is not None)
    factor = 1
    while True:
        is_part = is_long(framed.text, factor * kept)
        text = excerpt(framed.text, factor * kept, drops=drops) if is_part else framed.text
        part = TemplatedText(framed.prefix, text, framed.suffix)
        length, token_ids = _shrink(part, tokenizer, room=room, longest=longest, drops=drops)
        if not is_part or length <= len(text) - DOUBTFUL_CHARACTERS:
            return token_ids
        factor *= 2


def _shrink(
    framed: TemplatedText, tokenizer: Tokenizer, *, room: int | None, longest: int | None, drops: Side
) -> tuple[int, Sequence[int]]:
    """Return how many characters of the text fit, and the token ids of these in their frame."""
    text, begin = framed.text, len(framed.prefix)
    while True:
        located = tokenizer.encode_with_offsets([framed.prefix + text + framed.suffix])
        if located is None:
            raise RequestError(
                "the model's tokenizer does not tell where its tokens lie in a text, so that a text cannot be cut "
                "between what stands around it. Shorten it"
            )
        [tokens] = located
        end = begin + len(text)
        spans = [
            (start, stop) for start, stop in tokens.offsets if stop > begin and start < end
        ]  # hold some of the text
        too_many = 0 if room is None else len(tokens.token_ids) - room
        too_long = 0 if longest is None else len(spans) - longest
        surplus = max(too_many, too_long)
        if surplus <= 0:
            return len(text), tokens.token_ids
        if not text:
            raise RequestError(
                f"what stands around the text has {len(tokens.token_ids)} tokens by itself, more than the {room} that "
                "are allowed in all. Shorten it, or allow more with truncate_prompt_tokens"
            )
        if surplus >= len(spans):
            text = ""
        elif drops == "right":
            text = text[: max(0, spans[-surplus][0] - begin)]
        else:
            text = text[spans[surplus - 1][1] - begin :]
