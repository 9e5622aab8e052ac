"""An engine in numpy: no weights, deterministic outputs seeded by the prompt, the whole pipeline around it real."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from poolkit.contract import (
    Activation,
    EncodedPrompt,
    Encoding,
    Output,
    PairTemplate,
    PooledOutput,
    PoolingTask,
    TextToken,
    TokenIds,
)
from poolkit.models import ClassifierSpec, Decision, ModelInfo, TextSpec, VectorSpec

__all__ = ["FAKE_MODEL", "Draw", "Fake", "FakeEngine", "FakeTokenizer"]

FAKE_LABELS = 4

FAKE_MODEL = ModelInfo(
    name="fake",
    path=Path("fake"),
    architecture="FakeModel",
    model_type="fake",
    outputs=tuple(Output),
    hidden_size=8,
    text=TextSpec(max_model_len=64, vocab_size=1000),
    vector=VectorSpec(size=8, matryoshka_dimensions=()),
    classifier=ClassifierSpec(
        label_names={label: f"LABEL_{label}" for label in range(FAKE_LABELS)}, activation=Activation.IDENTITY
    ),
)
"""A model that produces every output: vectors of 8 numbers, 4 labels, at most 64 tokens of 1000."""

START, END = 0, 1
FIRST_WORD = 2

Draw: TypeAlias = Callable[[EncodedPrompt], NDArray[np.float32] | PooledOutput]
"""Returns what a head would give for a prompt, before the task's activation: an array, or an output with parts.

The same prompt must give the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fake:
    """What stands in for a model where `FAKE_MODEL` will not do: a task with a head of its own, or for certain models.

    A plugin names one in an entry point of group `poolkit.fakes` that has the task's name. Nothing but
    `poolkit.testing` reads it.

    Attributes:
        model: what the task's processors get to know of the model.
        draw: stands in for the task's head. By default the outputs are random numbers in the shape of `task.output`.
    """

    model: ModelInfo = FAKE_MODEL
    draw: Draw | None = None


class FakeTokenizer:
    """A token a word, by the word's checksum, between a start and an end token."""

    special_affixes = (1, 1)
    pair_template = PairTemplate(((START, 0),), ((END, 0),), ((END, 1),), second_type=1)

    def encode_batch(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[TokenIds]:
        """Return the token ids of each text."""
        words = FAKE_MODEL.vocab_size - FIRST_WORD
        encoded = [[FIRST_WORD + zlib.crc32(word.encode()) % words for word in text.split()] for text in texts]
        return [np.array([START, *ids, END] if add_special_tokens else ids, np.int32) for ids in encoded]

    def tokens(self, token_ids: Sequence[int] | TokenIds) -> list[str]:
        """Return a name for each id."""
        return [f"token{token_id}" for token_id in token_ids]

    def text_tokens(self, texts: Sequence[str], prompts: Sequence[str]) -> list[tuple[TokenIds, list[TextToken]]]:
        """Return the words of each prompt and of the text behind it, these with their offsets."""
        found = []
        for text, prompt in zip(texts, prompts, strict=True):
            words = [TextToken(word[0], word.start(), word.end()) for word in re.finditer(r"\S+", text)]
            tokens = [*(TextToken(word, None, None, is_special=True) for word in prompt.split()), *words]
            [ids] = self.encode_batch([" ".join(token.token for token in tokens)], add_special_tokens=False)
            found.append((ids, tokens))
        return found

    def join(self, tokens: Sequence[str]) -> str:
        """Return words with spaces between them."""
        return " ".join(tokens)

    def encode_with_offsets(self, texts: Sequence[str]) -> list[Encoding]:
        """Return the words of each text and where they lie."""
        encoded = self.encode_batch(texts, add_special_tokens=False)
        spans = [[word.span() for word in re.finditer(r"\S+", text)] for text in texts]
        return [Encoding(ids, some, range(len(ids))) for ids, some in zip(encoded, spans, strict=True)]


class FakeEngine:
    """Runs no model: each prompt's output is drawn from a generator that its token ids seed.

    Args:
        task: whose output and activation to produce.
        fake: the shapes to produce, and what stands in for the task's head.
        fails_on: given a prompt, says whether the forward pass of any batch that holds it raises.
    """

    def __init__(
        self, task: PoolingTask, *, fake: Fake | None = None, fails_on: Callable[[EncodedPrompt], bool] | None = None
    ) -> None:
        self.decisions = (Decision("engine", "fake", "poolkit.testing"),)
        self._task = task
        self._fake = fake or Fake()
        self._fails_on = fails_on

    def forward(self, prompts: Sequence[EncodedPrompt]) -> list[PooledOutput]:
        """Return an output of the task's shape for each prompt."""
        for prompt in prompts:
            if self._fails_on is not None and self._fails_on(prompt):
                raise RuntimeError("this prompt was made to fail")
        return [self._pool(prompt) for prompt in prompts]

    def release(self, keys: Sequence[str]) -> None:
        """Forget nothing: no query is kept, and documents are answered as vectors."""

    def close(self) -> None:
        """Release nothing."""

    def _pool(self, prompt: EncodedPrompt) -> PooledOutput:
        drawn = (self._fake.draw or self._draw)(prompt)
        output = drawn if isinstance(drawn, PooledOutput) else PooledOutput(drawn, prompt.token_ids)
        data = output.data[..., : prompt.params.dimensions]
        if prompt.params.activates:
            is_models = self._task.activation is Activation.MODEL
            data = _activate(data, self._fake.model.label_activation if is_models else self._task.activation)
        asked = output.parts if prompt.params.parts is None else prompt.params.parts
        return replace(output, data=data, parts={name: output.parts[name] for name in asked})

    def _draw(self, prompt: EncodedPrompt) -> NDArray[np.float32]:
        model = self._fake.model
        tokens, labels = len(prompt.token_ids), len(model.label_names or FAKE_MODEL.label_names or ())
        shapes = {
            Output.VECTOR: (model.embedding_size,),
            Output.LOGITS: (labels,),
            Output.TOKEN_VECTORS: (tokens, model.token_vector_size),
            Output.TOKEN_LOGITS: (tokens, labels),
            Output.HIDDEN: (tokens, model.hidden_size),
            Output.REWARDS: (1,),
        }
        generator = np.random.default_rng(prompt.token_ids.tolist())
        return generator.standard_normal(shapes[self._task.output]).astype(np.float32)


def _activate(raw: NDArray[np.float32], activation: Activation) -> NDArray[np.float32]:
    activated: NDArray[np.floating]
    match activation:
        case Activation.IDENTITY | Activation.MODEL:
            activated = raw
        case Activation.NORMALIZE:
            activated = raw / np.linalg.norm(raw, axis=-1, keepdims=True)
        case Activation.SIGMOID:
            activated = 1 / (1 + np.exp(-raw))
        case Activation.SOFTMAX:
            exp = np.exp(raw - raw.max(axis=-1, keepdims=True))
            activated = exp / exp.sum(axis=-1, keepdims=True)
        case Activation.LOG1P_RELU:
            activated = np.log1p(np.maximum(raw, 0))
    return activated.astype(np.float32)
