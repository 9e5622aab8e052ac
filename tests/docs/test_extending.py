"""The table of what a package can add names tests and examples that exist, and counts their lines rightly."""

import ast
import re
import tomllib

import pytest

from docs.pages import ROOT

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and "`poolkit." in line
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
GROUPS = sorted(PROJECT["entry-points"].keys() - {"poolkit.fakes"})
"""Parts of poolkit that are registered like those of packages; fakes are for tests alone."""


def lines_of(example: str) -> int:
    """Return how many lines an example has that are not blank."""
    return len([line for line in code_of(example).splitlines() if line.strip()])


def code_of(example: str) -> str:
    if link := re.fullmatch(r"\[(.*)\]\((.*)#(.*)\)", example):
        page = (ROOT / "docs" / link[2]).read_text(encoding="utf-8")
        section = page.split(f"\n## {link[1]}\n", 1)[1].split("\n## ", 1)[0]
        assert link[3] == link[1].lower().replace(" ", "-")
        return re.findall(r"^```python\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)[0]
    path, name = re.findall(r"`(.*?)`", example)
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    texts = {ast.unparse(node.targets[0]): node.value for node in tree.body if isinstance(node, ast.Assign)}
    return _text(texts[name], texts)


def _text(node: ast.expr, texts: dict[str, ast.expr]) -> str:
    """Return a string, with the other constants that it holds in their places."""
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part, texts) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return _text(texts[ast.unparse(node.value)], texts)
    assert isinstance(node, ast.Constant)
    return str(node.value)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_names_what_exists_and_counts_its_lines(row):
    _, group, touched, lines, example, test = row
    [(path, name)] = re.findall(r"^`(tests/\S+\.py)::(\w+)`$", test)

    assert touched == "0"
    assert group.strip("`") in GROUPS
    assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8")
    assert int(lines) == lines_of(example)


@pytest.mark.parametrize("group", GROUPS)
def test_every_group_that_poolkit_itself_adds_to_has_a_row(group):
    assert f"| `{group}` |" in PAGE
