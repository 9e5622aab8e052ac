"""Turns a query and its documents into prompts: cut to length, in as many blocks as it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from poolkit import BindContext, PoolingParams
from poolkit.errors import RequestError
from poolkit_jina_reranker_v3.blocks import Room, split
from poolkit_jina_reranker_v3.cutting import cut
from poolkit_jina_reranker_v3.prompt import write_prompt
from poolkit_jina_reranker_v3.settings import Settings

__all__ = ["Lister", "Listing"]


@dataclass(frozen=True, slots=True)
class Listing:
    """The prompts that ask for the documents of one query, and how many documents each of them holds."""

    prompts: tuple[str, ...]
    sizes: tuple[int, ...]


class Lister:
    """Writes the prompts of one model."""

    def __init__(self, context: BindContext) -> None:
        assert isinstance(context.settings, Settings)
        self._context = context
        self._settings = context.settings
        around_first = self._count(write_prompt("", [""])) - self._count(write_prompt("", []))
        # The first one's number has one digit. That leaves one token to spare: one can come apart where texts meet.
        self._tokens_around = around_first + len(str(context.settings.max_docs_per_prompt))

    def list_documents(
        self, query: str, documents: Sequence[str], *, instruction: str | None, wishes: PoolingParams
    ) -> Listing:
        """Return the prompts for the documents of a query, in order.

        Args:
            query: what is searched with.
            documents: what is scored.
            instruction: what makes a document relevant.
            wishes: how long the texts may be and which end is dropped. The operator's limits hold where it is silent.

        Raises:
            RequestError: a text is not valid Unicode, or the query leaves no room for documents.
        """
        model = self._context.model
        side = wishes.truncation_side
        longest_query = min(wishes.max_tokens_per_query or self._settings.max_tokens_per_query, model.max_model_len)
        [asked] = cut([query], self._context, longest=longest_query, side=side, field="query")
        frame = self._count(write_prompt(asked.text, [], instruction=instruction))
        room = model.max_model_len - frame
        longest = min(
            wishes.max_tokens_per_doc or self._settings.max_tokens_per_doc,
            room - self._tokens_around,
        )
        if longest < 1:
            raise RequestError(
                f"What {model.name} reads before and after the documents, with the query twice in it, has {frame} "
                f"tokens; it takes at most {model.max_model_len} in all. Set max_tokens_per_query, or shorten the "
                "instruction.",
                param="query",
            )
        cuts = cut(documents, self._context, longest=longest, side=side, field="documents")
        blocks = split(
            [one.tokens for one in cuts],
            Room(
                documents=self._settings.max_docs_per_prompt,
                tokens=room,
                planned_tokens=model.max_model_len - 2 * asked.tokens,
                longest=longest,
                tokens_around=self._tokens_around,
            ),
        )
        together = [[one.text for one in cuts[block]] for block in blocks]
        return Listing(
            prompts=tuple(write_prompt(asked.text, texts, instruction=instruction) for texts in together),
            sizes=tuple(map(len, together)),
        )

    def _count(self, prompt: str) -> int:
        """Return the tokens of a prompt, which may be too long to run."""
        encoder = self._context.encoder
        [encoded] = encoder.encode([prompt], [encoder.resolve(PoolingParams())], refuses_long=False)
        if isinstance(encoded, RequestError):
            raise RequestError(str(encoded), param="instruction")  # nothing else is unread so far
        return len(encoded.token_ids)
