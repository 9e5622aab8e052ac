"""The data of `poolkit demo`: short English texts, and three questions that one of them answers.

The texts were written for poolkit: notes on the words of its own field and on subjects from astronomy to music. They
are covered by the licence of the project, Apache-2.0, and may be passed on and changed under it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

__all__ = ["QUESTIONS", "DemoText", "load_texts"]

QUESTIONS = (
    "How can I restart my service without the users noticing?",
    "Who worked out how to read the writing of the pharaohs?",
    "Why does the batter puff up before it is baked?",
)
"""Each has one best text, which shares few of its words."""


@dataclass(frozen=True, slots=True)
class DemoText:
    """One text of the collection; `name` is the stem of its file."""

    name: str
    title: str
    body: str


def load_texts() -> list[DemoText]:
    """Return the texts that ship with poolkit, sorted by name.

    >>> load_texts()[0].title
    'Bacteria that no longer die'
    """
    paths = [path for path in files(__package__).joinpath("texts").iterdir() if path.name.endswith(".txt")]
    return [_parse(path.name, path.read_text(encoding="utf-8")) for path in sorted(paths, key=lambda path: path.name)]


def _parse(file_name: str, text: str) -> DemoText:
    """Return the parts of a file: a title, an empty line, and the body."""
    title, _, body = text.partition("\n\n")
    return DemoText(name=file_name.removesuffix(".txt"), title=title, body=" ".join(body.split()))
