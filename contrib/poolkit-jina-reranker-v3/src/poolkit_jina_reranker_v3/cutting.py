"""Cuts texts to so many tokens and leaves them texts: what the model reads is tokenized in one piece."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from poolkit import BindContext, PoolingParams
from poolkit.errors import RequestError

__all__ = ["Cut", "cut"]


@dataclass(frozen=True, slots=True)
class Cut:
    """A text, and how many tokens it has by itself."""

    text: str
    tokens: int


def cut(
    texts: Sequence[str], context: BindContext, *, longest: int, side: Literal["left", "right"], field: str
) -> list[Cut]:
    """Return each text with at most `longest` tokens, less where `side` is.

    Args:
        texts: what to cut.
        context: whose tokenizer counts.
        longest: the most tokens that a text may keep. No more than the model's maximum.
        side: which end is dropped.
        field: of the request, to be named where a text cannot be tokenized.

    Raises:
        RequestError: a text is not valid Unicode.
    """
    encoder = context.encoder
    wish = encoder.resolve(PoolingParams(truncate_prompt_tokens=longest, truncation_side=side))
    held = [text for text in texts if text]  # an encoder refuses a text without tokens; here it stands among others
    cuts = []
    for text, encoded in zip(held, encoder.encode(held, [wish] * len(held)), strict=True):
        if isinstance(encoded, RequestError):
            raise RequestError(str(encoded), param=field)
        ids = encoded.token_ids
        kept = text if len(ids) < longest else encoder.join(encoder.tokens(ids))
        cuts.append(Cut(kept, len(ids)))
    remaining = iter(cuts)
    return [next(remaining) if text else Cut("", 0) for text in texts]
