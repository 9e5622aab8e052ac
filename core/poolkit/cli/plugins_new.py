"""`poolkit plugins new`: writes a package with a task of its own, which installs, serves and passes its tests as it is.

The package is the folder `plugin_template` beside this module: file names and texts with `$plugin`, `$module`, `$task`,
`$route` and `$request` in them.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath
from string import Template
from typing import Annotated

import orjson
import typer

from poolkit.config import PluginConfig
from poolkit.registry import list_plugins

__all__ = ["new"]

PREFIX = "poolkit-"
SUFFIX = ".template"
"""Keeps the files of the template from being taken for what they will become."""

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
NAME_RULE = "Use lower-case letters, digits and single hyphens, a letter first."

EXAMPLE_REQUEST = '{"query": "Why does dough grow?", "texts": ["Yeast makes gas.", "Stock prices fell."]}'


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the task is to be called, such as  ner .")],
    output: Annotated[
        Path, typer.Option(help="Folder to write poolkit-NAME into.", metavar="DIR", file_okay=False)
    ] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the next commands.")] = False,
) -> None:
    """Write a package with a task of its own.

    It can be installed, served and tested as it is. Change it into what you need.
    """
    name = name.removeprefix(PREFIX)
    if (problem := _name_problem(name)) is not None:
        raise typer.BadParameter(problem, param_hint="NAME")
    folder = output / f"{PREFIX}{name}"
    if folder.exists():
        raise typer.BadParameter(f"'{folder}' is there already, and is left as it is", param_hint="NAME")
    files = dict(_render(name))
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    commands = _next_commands(name, folder)
    if as_json:
        written = {"folder": str(folder), "files": sorted(map(str, files)), "next": commands}
        typer.echo(orjson.dumps(written, option=orjson.OPT_INDENT_2))
    else:
        lines = [f"Wrote {len(files)} files to {folder}. Next:", *(f"  {command}" for command in commands)]
        typer.echo("\n".join(lines))


def _names(name: str) -> dict[str, str]:
    """Return what the template calls its names, for "ner": poolkit-ner, poolkit_ner, ner, /ner/compare."""
    task = name.replace("-", "_")
    return {
        "plugin": f"{PREFIX}{name}",
        "module": f"poolkit_{task}",
        "task": task,
        "route": f"/{name}/compare",  # below a folder of its own: no name can take a path of poolkit's
        "request": EXAMPLE_REQUEST,
    }


def _name_problem(name: str) -> str | None:
    """Return why a plugin and its task cannot have that name."""
    if not NAME.fullmatch(name):
        return f"{name!r} cannot be the name of a task and of a distribution. {NAME_RULE}"
    names = _names(name)
    builtin = {row.name for row in list_plugins(PluginConfig()) if row.kind == "task" and row.plugin == "poolkit"}
    if names["task"] in builtin:
        return f"{names['task']!r} is a task of poolkit itself. Choose another name"
    spec = importlib.util.find_spec(names["module"])
    if spec is not None:
        return f"there is a package {names['module']} already, in {spec.origin}. Choose another name"
    return None


def _render(name: str) -> Iterator[tuple[PurePosixPath, str]]:
    """Yield the path and the text of each file of the package."""
    names = _names(name)
    for path, file in _files(resources.files("poolkit.cli") / "plugin_template"):
        text = Template(file.read_text(encoding="utf-8")).substitute(names)
        yield PurePosixPath(Template(path.removesuffix(SUFFIX)).substitute(names)), text


def _files(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, Traversable]]:
    for child in folder.iterdir():
        if child.is_dir():
            yield from _files(child, f"{prefix}{child.name}/")
        else:
            yield f"{prefix}{child.name}", child


def _next_commands(name: str, folder: Path) -> list[str]:
    names = _names(name)
    shown = str(folder) if folder.is_absolute() else f"./{folder.as_posix()}"
    return [
        f"python -m pip install {shlex.quote(shown)}",
        f"poolkit serve --plugin {names['plugin']} --task {names['task']}",
        f"curl -s http://127.0.0.1:8000{names['route']} -d '{names['request']}'",
    ]
