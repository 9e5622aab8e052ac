"""A backbone in numpy: no weights, hidden states seeded by the prompt, the whole pipeline around it real."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from poolkit.contract import (
    Activation,
    Batch,
    ClassifierSpec,
    Decision,
    EncodedPrompt,
    Encoding,
    ModelInfo,
    Output,
    PairTemplate,
    PooledOutput,
    PooledRows,
    Pooler,
    PoolingTask,
    States,
    TextSpec,
    TextToken,
    TokenIds,
    VectorSpec,
)
from poolkit.engine.finish import Finish
from poolkit.engine.loading import make_finish
from poolkit.engine.model import LoadedModel
from poolkit.engine.poolers.pooling import POOL
from poolkit.engine.poolers.tokens import TokenPooler
from poolkit.engine.poolers.vector import VectorPooler
from poolkit.engine.queries import QueryStore

__all__ = ["FAKE_MODEL", "ChangeOutputs", "Draw", "Fake", "FakeBackbone", "FakeTokenizer", "load_fake"]

FAKE_LABELS = 4

ROWS = (Output.VECTOR, Output.LOGITS, Output.LABEL_LOGITS)
"""The outputs with one row for each prompt."""

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


ChangeOutputs: TypeAlias = Callable[[Sequence[PooledOutput]], Sequence[PooledOutput]]
"""Sees the outputs of a batch, in the batch's order, and returns those that are delivered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fake:
    """Stands in for a model where `FAKE_MODEL` will not do: for a task with a head of its own, or for certain models.

    A plugin names one in an entry point of group `poolkit.fakes` that has the task's name. Nothing but
    `poolkit.testing` reads it.

    Attributes:
        model: the description of the model that the task's processors are given.
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

    def token_id(self, token: str) -> int | None:
        """Return the id that a word gets as a text: the fake has a token for every word."""
        [ids] = self.encode_batch([token], add_special_tokens=False)
        return int(ids[0]) if len(ids) else None

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


class FakeBackbone:
    """Runs no model: hidden states are drawn from a generator that each prompt's token ids seed.

    Everything after it is what a real model gets: its pooler (but that of a head with weights), and all that is done to
    the rows.

    Args:
        task: whose output to produce.
        fake: the shapes to produce, and what stands in for the task's head.
        fails_on: given a prompt, says whether the forward pass of any batch that holds it raises.
    """

    def __init__(
        self, task: PoolingTask, *, fake: Fake | None = None, fails_on: Callable[[EncodedPrompt], bool] | None = None
    ) -> None:
        self.decisions = (Decision("engine", "fake", "poolkit.testing"),)
        self.model = (fake or Fake()).model
        self.pooler: Pooler[NDArray[np.float32]]
        draw = (fake or Fake()).draw or _drawer(task, self.model)
        if draw is not None:
            self.pooler = _DrawnRows(draw)
        elif task.output in ROWS:
            self.pooler = VectorPooler([POOL[mode] for mode in self.model.pooling.modes])
        else:
            self.pooler = TokenPooler()
        self._output, self._labels = task.output, len(task.label_tokens)
        self.fails_on = fails_on

    def __call__(self, batch: Batch, /) -> States[NDArray[np.float32]]:
        """Return hidden states, or logits where the task asks for those."""
        width = self._width()
        generators = [np.random.default_rng(token_ids) for token_ids in batch.segments.split(batch.token_ids)]
        if self._output in (Output.LOGITS, Output.LABEL_LOGITS):
            return States(rows=np.stack([_draw(generator, (width,)) for generator in generators]))
        sizes = batch.segments.sizes
        return States(
            np.concatenate([_draw(generator, (size, width)) for generator, size in zip(generators, sizes, strict=True)])
        )

    def _width(self) -> int:
        labels = len(self.model.label_names or FAKE_MODEL.label_names or ())
        widths = {
            Output.VECTOR: self.model.embedding_size // max(1, len(self.model.pooling.modes)),
            Output.TOKEN_VECTORS: self.model.token_vector_size,
            Output.LOGITS: labels,
            Output.TOKEN_LOGITS: labels,
            Output.LABEL_LOGITS: self._labels,
        }
        return widths.get(self._output, self.model.hidden_size)


def load_fake(
    task: PoolingTask,
    backbone: FakeBackbone,
    *,
    outputs: ChangeOutputs | None = None,
) -> LoadedModel[NDArray[np.float32]]:
    """Return a model without weights for a task. `outputs` returns what is delivered of each batch's outputs."""
    finish: Finish[NDArray[np.float32]] = make_finish(
        backbone.model, task.output, task.activation, task.output_kind, backbone=backbone
    )

    def delivered(pooled: PooledRows[NDArray[np.float32]], batch: Batch) -> list[PooledOutput]:
        finished = finish(pooled, batch)
        return finished if outputs is None else list(outputs(finished))

    return _FakeModel(backbone, delivered, queries=finish.queries)


class _FakeModel(LoadedModel[NDArray[np.float32]]):
    def __init__(
        self,
        backbone: FakeBackbone,
        finish: Callable[[PooledRows[NDArray[np.float32]], Batch], list[PooledOutput]],
        *,
        queries: QueryStore[NDArray[np.float32]],
    ) -> None:
        self._fails_on = backbone.fails_on
        super().__init__(
            backbone.model.name, backbone, backbone.pooler, finish, queries=queries, decisions=backbone.decisions
        )

    def forward(self, prompts: Sequence[EncodedPrompt]) -> list[PooledOutput]:
        """Return the output of each prompt, or fail where one was made to fail."""
        if self._fails_on is not None and any(map(self._fails_on, prompts)):
            raise RuntimeError("this prompt was made to fail")
        return super().forward(prompts)


def _drawer(task: PoolingTask, model: ModelInfo) -> Draw | None:
    """Return what draws a kind of output that the task's own head makes."""
    fake = task.output_kind.fake
    if fake is None:
        return None
    return lambda prompt: fake(np.random.default_rng(prompt.token_ids), model, len(prompt.token_ids))


class _DrawnRows:
    """Stands in for a task's head: each prompt's rows are what a `Draw` says."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw

    def __call__(self, states: States[NDArray[np.float32]], batch: Batch, /) -> PooledRows[NDArray[np.float32]]:  # noqa: ARG002
        drawn = [(self._draw(prompt), prompt) for prompt in _prompts(batch)]
        outputs = [
            given if isinstance(given, PooledOutput) else PooledOutput(given, prompt.token_ids)
            for given, prompt in drawn
        ]
        parts = {
            name: _join(
                [output.parts[name] for output in outputs], [output.part_indices.get(name) for output in outputs]
            )
            for name in outputs[0].parts
        }
        data, indices = [output.data for output in outputs], [output.indices for output in outputs]
        if data[0].ndim == 1 and indices[0] is None:
            return PooledRows(np.stack(data), parts=parts)
        return replace(_join(data, indices), parts=parts)


def _join(
    arrays: Sequence[NDArray[np.float32]], indices: Sequence[NDArray[np.int32] | None]
) -> PooledRows[NDArray[np.float32]]:
    lengths = [len(array) for array in arrays]
    given = [array for array in indices if array is not None]
    return PooledRows(
        np.concatenate(arrays), lengths, cast("NDArray[np.float32]", np.concatenate(given)) if given else None
    )


def _prompts(batch: Batch) -> list[EncodedPrompt]:
    """Return the prompts of a batch, as far as it tells."""
    return [
        EncodedPrompt(token_ids, params, is_query=bool(is_query))
        for token_ids, params, is_query in zip(
            batch.segments.split(batch.token_ids), batch.params, batch.is_query, strict=True
        )
    ]


def _draw(generator: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return generator.standard_normal(shape).astype(np.float32)
