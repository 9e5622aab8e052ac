"""Gives real English texts without a download: the docstrings of the packages that are installed."""

from __future__ import annotations

import ast
import inspect
import random
import sysconfig
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

__all__ = ["LENGTHS", "docstrings"]

LENGTHS = range(12, 513)
"""Tokens of a text, special tokens included, before a model's own maximum cuts it."""

DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
CHUNK = 1000


def docstrings(number: int, *, token_counts: Callable[[Sequence[str]], Sequence[int]]) -> list[str]:
    """Return `number` different docstrings of 12 to 512 tokens, the same ones whenever the same packages are there."""
    texts: list[str] = []
    candidates = _all_docstrings(Path(sysconfig.get_path("purelib")))
    while len(texts) < number and (chunk := list(islice(candidates, CHUNK))):
        counts = token_counts(chunk)
        texts += [text for text, count in zip(chunk, counts, strict=True) if count in LENGTHS]
    if len(texts) < number:
        raise SystemExit(f"The installed packages have {len(texts)} docstrings of a fitting length; ask for fewer.")
    return texts[:number]


def _all_docstrings(folder: Path) -> Iterator[str]:
    """Yield every docstring once, its files in a shuffled but repeatable order."""
    paths = sorted(folder.rglob("*.py"))
    random.Random(0).shuffle(paths)  # noqa: S311 - the order keeps no secret
    seen: set[str] = set()
    for path in paths:
        try:
            with warnings.catch_warnings(action="ignore"):
                tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            text = inspect.cleandoc(ast.get_docstring(node) or "") if isinstance(node, DOCUMENTED) else ""
            if text and text not in seen:
                seen.add(text)
                yield text
