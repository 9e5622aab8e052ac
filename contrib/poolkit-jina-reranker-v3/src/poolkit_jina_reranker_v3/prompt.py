"""The model's own prompt, which it was trained on to the letter."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["DOCUMENT_MARKER", "QUERY_MARKER", "write_prompt"]

DOCUMENT_MARKER = "<|embed_token|>"
"""Stands after each document. The model's vector of the document is made of its hidden state."""
QUERY_MARKER = "<|rerank_token|>"
"""Stands after the query, behind all documents."""

SYSTEM = (
    "You are a search relevance expert who can determine a ranking of the passages based on how relevant they are to "
    "the query. If the query is a question, how relevant a passage is depends on how well it answers the question. If "
    "not, try to analyze the intent of the query and assess how well each passage satisfies the intent. If an "
    "instruction is provided, you should follow the instruction when determining the ranking."
)
NO_THOUGHTS = "<think>\n\n</think>\n\n"


def write_prompt(query: str, documents: Sequence[str], *, instruction: str | None = None) -> str:
    """Return the prompt that asks for one vector per document and one for the query.

    A text that holds a marker loses it: the model would be asked for one vector more.
    """
    query = _without_markers(query)
    passages = "".join(
        f'<passage id="{place}">\n{_without_markers(document)}{DOCUMENT_MARKER}\n</passage>\n'
        for place, document in enumerate(documents)
    )
    instruct = f"<instruct>\n{_without_markers(instruction)}\n</instruct>\n" if instruction else ""
    return (
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n"
        "<|im_start|>user\n"
        f"I will provide you with {len(documents)} passages, each indicated by a numerical identifier. "
        f"Rank the passages based on their relevance to query: {query}\n"
        f"{instruct}{passages}<query>\n{query}{QUERY_MARKER}\n</query><|im_end|>\n"
        f"<|im_start|>assistant\n{NO_THOUGHTS}"
    )


def _without_markers(text: str) -> str:
    """Return the text without markers."""
    taken_out = text.replace(QUERY_MARKER, "").replace(DOCUMENT_MARKER, "")
    # What stood around one that was taken out can make another one; a space in its place cannot.
    return taken_out.replace(QUERY_MARKER, " ").replace(DOCUMENT_MARKER, " ")
