"""Markers of a multi-vector model, which are one token each, and the expansion of its queries.

A query's fillers get vectors of their own, which count in the score as those of its words do. In most models the words
do not see them (ColBERT, https://arxiv.org/abs/2004.12832, section 3.2).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from poolkit.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from poolkit.contract import EncodedPrompt, Expansion, ModelInfo, Tokenizer

__all__ = ["QueryExpansion", "keep_markers_whole"]


class QueryExpansion:
    """Expands the queries of one model, or all its texts, with mask tokens; a no-op for models that do not.

    Attributes:
        is_needed: True if any prompt of the model is expanded.

    Raises ModelError where the tokenizer does not know the mask token.
    """

    def __init__(self, tokenizer: Tokenizer, info: ModelInfo) -> None:
        of_queries = info.multi_vector.expansion if info.multi_vector is not None else None
        self._expansion: Expansion | None = info.text.expansion or of_queries
        self.is_needed = self._expansion is not None
        self._is_of_queries = info.text.expansion is None
        self._mask_token_id = _find_id(tokenizer, self._expansion.token, info) if self._expansion is not None else 0

    def expand(self, prompt: EncodedPrompt) -> EncodedPrompt:
        """Return a text with its mask tokens; those that it comes with are taken for what they are."""
        expansion = self._expansion
        if expansion is None or prompt.input is not None or (self._is_of_queries and not prompt.is_query):
            return prompt
        ids, types = prompt.token_ids, prompt.token_type_ids
        of_text = np.flatnonzero(ids != self._mask_token_id)
        own = max(1, int(of_text[-1]) + 1) if len(of_text) else 1
        missing = max(0, expansion.length - len(ids))
        is_seen = expansion.attends or own == len(ids) + missing
        masks = np.full(missing, self._mask_token_id, np.int32)
        return replace(
            prompt,
            token_ids=np.concatenate([masks, ids] if expansion.side == "left" else [ids, masks]),
            token_type_ids=None if types is None else np.concatenate([types, np.zeros(missing, np.int32)]),
            attention_length=None if is_seen else own,
        )


def keep_markers_whole(tokenizer: PreTrainedTokenizerBase, markers: Iterable[str]) -> None:
    """Have the tokenizer take each marker that it has a token for as that token, wherever it stands in a text.

    It would take "[unused0]" to pieces, or lowercase "[Q] " first. A marker that it has no token for is plain text, as
    in sentence-transformers' MultiVectorEncoder.
    """
    from transformers import AddedToken

    vocabulary = tokenizer.get_vocab()
    for marker in filter(str.strip, markers):
        found = next((token for token in (marker, marker.split()[0]) if token in vocabulary), None)
        if found is not None and tokenizer.tokenize(found) != [found]:
            tokenizer.add_tokens([AddedToken(found, normalized=False, special=True)], special_tokens=True)


def _find_id(tokenizer: Tokenizer, token: str, info: ModelInfo) -> int:
    [ids] = tokenizer.encode_batch([token], add_special_tokens=False)
    if len(ids) != 1 or tokenizer.tokens(ids) != [token]:
        raise ModelError(
            f"{info.name} fills up texts with {token!r}, which is no token of its tokenizer in {info.path}. Fetch "
            "the model again."
        )
    return int(ids[0])
