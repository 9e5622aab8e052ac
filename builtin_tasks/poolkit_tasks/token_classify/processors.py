"""The IO processor of `token_classify`: texts in, entities out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from poolkit import (
    PooledOutput,
    PoolingIOProcessor,
    Prepared,
    TokenClassification,
    TokenClassifyRequest,
    TokenClassifyResponse,
    Usage,
)
from poolkit.errors import RequestError
from poolkit_tasks.token_classify.entities import WHOLE_WORDS, ScoredToken, find_entities

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from poolkit import AggregationStrategy, Entity

__all__ = ["TokenClassifyProcessor"]


@dataclass(frozen=True, slots=True)
class Asked:
    """The activation of each text's logits, and the way to group tokens into entities."""

    activates: Sequence[bool]
    strategy: AggregationStrategy


class TokenClassifyProcessor(PoolingIOProcessor[TokenClassifyRequest, TokenClassifyResponse]):
    """Find the entities in each text."""

    never_blocks = True

    def pre_process(self, request: TokenClassifyRequest) -> Prepared:
        """Return the texts, asking for logits: the pipeline makes scores of them by softmax, whatever the model is.

        Raises RequestError for a prompt that is no text: there is nothing to find a place in.
        """
        texts = [_check_text(prompt, index) for index, prompt in enumerate(request.prompts())]
        prepared = Prepared(texts, request.params(prompts=len(texts)))
        params = prepared.params_of_each
        activates = [self.context.encoder.resolve(one).activates for one in params]
        asked = Asked(activates, request.aggregation_strategy)
        return Prepared(texts, [replace(one, use_activation=False) for one in params], asked, with_text_tokens=True)

    def post_process(self, prepared: Prepared, outputs: Sequence[PooledOutput]) -> TokenClassifyResponse:
        """Return the entities of each text."""
        asked = prepared.state
        assert isinstance(asked, Asked)
        scored = zip(asked.activates, outputs, strict=True)
        return TokenClassifyResponse(
            data=[
                TokenClassification(
                    entities=self._find(output, _softmax(output.data) if activates else output.data, asked)
                )
                for activates, output in scored
            ],
            prompt_token_ids=[output.prompt_token_ids for output in outputs],
            usage=Usage.of(outputs),
        )

    def _find(self, output: PooledOutput, scores: NDArray[np.float32], asked: Asked) -> list[Entity]:
        encoder, model = self.context.encoder, self.context.model
        assert model.label_names is not None
        tokens = [
            ScoredToken(index, token, row)
            for index, (token, row) in enumerate(zip(output.text_tokens, scores, strict=True))
            if not token.is_special
        ]
        if asked.strategy in WHOLE_WORDS and any(one.token.start is None for one in tokens):
            raise RequestError(
                f"aggregation_strategy is {asked.strategy.value!r}, but the tokenizer of {model.name} does not "
                "tell which tokens make up a word. Use 'simple' or 'none'.",
                param="aggregation_strategy",
            )
        return find_entities(tokens, asked.strategy, names=model.label_names, join=encoder.join)


def _check_text(prompt: object, index: int) -> str:
    if not isinstance(prompt, str):
        raise RequestError(
            f"Prompt {index} is no text, and entities are places in a text. Send the text, or ask /pooling (offline "
            "LLM.encode) for the scores of each token.",
            param="input",
        )
    return prompt


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    scores: NDArray[np.float32] = powers / powers.sum(axis=-1, keepdims=True)
    return scores
