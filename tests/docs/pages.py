"""The README and the docs as data: their examples, options, commands and links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
"""The pages for users: every example on them is run."""
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
OTHERS = ("CONTRIBUTING.md", "SECURITY.md", "docs/decisions/README.md")
DOCUMENTS = [*PAGES, *(ROOT / name for name in OTHERS), *DECISIONS]

PYTHON = re.compile(r"^```python\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", flags=re.MULTILINE | re.DOTALL)
"""Code, and what it prints where a block of text is right behind it."""
CONSOLE = re.compile(r"^```console\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
ADDRESS = "127.0.0.1:8000"
"""Where a reader's server listens."""


@dataclass(frozen=True, slots=True)
class Example:
    """A piece of code or a command, and what it should print: "..." stands for anything, None for not told."""

    place: str
    code: str
    expected: str | None

    @property
    def needs_server(self) -> bool:
        return ADDRESS in self.code

    def at(self, address: str) -> str:
        """Return the code with the server at `address`."""
        return self.code.replace(ADDRESS, address)


def python_examples() -> Iterator[Example]:
    """Yield every block of Python."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in PYTHON.finditer(text):
            yield Example(_place(page, text, block), block[1], block[2])


def console_examples() -> Iterator[Example]:
    """Yield every command behind a "$", with the lines that follow it."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in CONSOLE.finditer(text):
            for command in re.split(r"^\$ ", block[1], flags=re.MULTILINE)[1:]:
                code, _, output = command.partition("\n")
                yield Example(_place(page, text, block), code, output or None)


def mentions(pattern: str) -> set[str]:
    """Return the first group of every match on any page."""
    return {match[1] for page in PAGES for match in re.finditer(pattern, page.read_text(encoding="utf-8"))}


def _place(page: Path, text: str, block: re.Match[str]) -> str:
    line = text.count("\n", 0, block.start()) + 1
    return f"{page.name}:{line}"
