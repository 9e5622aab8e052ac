"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["table"]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table: the first column to the left, columns of numbers to the right."""
    columns = [[row[column] for row in rows if row[column]] for column in range(len(head))]
    numeric = [all(cell[0].isdigit() or cell[:2] == "**" for cell in cells) for cells in columns]
    rules = ["---:" if number and column else "---" for column, number in enumerate(numeric)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rules, *rows))
