"""Reads the texts that `poolkit embed` is given: a text a line, or JSON lines."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import orjson

from poolkit.errors import RequestError

__all__ = ["STDIN", "Source", "read_texts"]

STDIN = "-"


@dataclass(frozen=True, slots=True)
class Source:
    """Texts, and the line each stands on."""

    name: str
    texts: Sequence[str]
    lines: Sequence[int]

    def place(self, index: int) -> str:
        """Return where a text stands: `notes.txt:17`."""
        return f"{self.name}:{self.lines[index]}"


def read_texts(file: str) -> Source:
    """Return the texts of a .jsonl file, of any other file line by line, or of standard input for "-".

    Raises:
        RequestError: the file cannot be read, holds nothing, or a line is not what it should be.
    """
    if file == STDIN:
        return _source("<stdin>", _plain_lines("<stdin>", sys.stdin))
    read_lines = _json_lines if Path(file).suffix == ".jsonl" else _plain_lines
    try:
        with Path(file).open(encoding="utf-8") as stream:
            return _source(file, read_lines(file, stream))
    except OSError as error:
        raise RequestError(f"{file} cannot be read: {error.strerror}.") from error


def _source(name: str, numbered: Iterator[tuple[int, str]]) -> Source:
    try:
        found = list(numbered)
    except UnicodeDecodeError as error:
        raise RequestError(f"{name} is not UTF-8 text: {error.reason} at byte {error.start}.") from error
    if not found:
        raise RequestError(f"{name} holds no text.")
    return Source(name, [text for _, text in found], [line for line, _ in found])


def _plain_lines(_: str, stream: TextIO) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(stream, 1):
        yield number, line.removesuffix("\n")


def _json_lines(name: str, stream: TextIO) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise RequestError(f"{name}:{number} is not valid JSON: {error}.") from error
        text = value.get("text") if isinstance(value, dict) else value
        if not isinstance(text, str):
            raise RequestError(f'{name}:{number} must be a string, or an object with a string under "text".')
        yield number, text
