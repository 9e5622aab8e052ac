"""`poolkit plugins new`: writes a package of a kind of one's choice, which installs and passes its tests as it is.

The packages are the folders of `plugin_templates` beside this module: file names and texts with `$plugin`, `$module`,
`$task`, `$route` and `$request` in them.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath
from string import Template
from typing import Annotated

import orjson
import typer

from poolkit.config import PluginConfig
from poolkit.registry import list_plugins

__all__ = ["Kind", "new"]

PREFIX = "poolkit-"
SUFFIX = ".template"
"""Keeps the files of the template from being taken for what they will become."""

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
NAME_RULE = "Use lower-case letters, digits and single hyphens, a letter first."


class Kind(StrEnum):
    """An addition to poolkit that a package can make."""

    TASK = "task"
    HEAD = "head"
    HOOKS = "hooks"
    ENGINE = "engine"
    DIALECT = "dialect"


@dataclass(frozen=True, slots=True)
class Asked:
    """The commands that serve and ask a written package.

    Attributes:
        options: of `poolkit serve`, beside the plugin.
        route: the path; below a folder of its own where it is the plugin's, for no name to take a path of poolkit's.
        request: the JSON that is sent there.
    """

    options: str
    route: str
    request: str


TEXTS = '["Yeast makes gas.", "Stock prices fell."]'

ASKED = {
    Kind.TASK: Asked(" --task {task}", "/{name}/compare", f'{{"query": "Why does dough grow?", "texts": {TEXTS}}}'),
    Kind.HEAD: Asked(" --task {task}", "/tasks/{task}/pooling", f'{{"input": {TEXTS}}}'),
    Kind.HOOKS: Asked("", "/v1/embeddings", f'{{"input": {TEXTS}}}'),
    Kind.ENGINE: Asked(" --engine {task}", "/v1/embeddings", f'{{"input": {TEXTS}}}'),
    Kind.DIALECT: Asked("", "/{name}/vectors", f'{{"texts": {TEXTS}}}'),
}


def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the task or of what else is added, such as  ner .")
    ],
    kind: Annotated[Kind, typer.Option(help="What the package adds to poolkit.")] = Kind.TASK,
    output: Annotated[
        Path, typer.Option(help="Folder to write poolkit-NAME into.", metavar="DIR", file_okay=False)
    ] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the next commands.")] = False,
) -> None:
    """Write a package with a task of its own, or with another addition to poolkit.

    It can be installed, served and tested as it is. Change it into what you need.
    """
    name = name.removeprefix(PREFIX)
    names = _names(name, kind)
    if (problem := _name_problem(name, kind, names)) is not None:
        raise typer.BadParameter(problem, param_hint="NAME")
    folder = output / names["plugin"]
    if folder.exists():
        raise typer.BadParameter(f"'{folder}' is there already, and is left as it is", param_hint="NAME")
    files = dict(_render(kind, names))
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    commands = _next_commands(kind, names, folder)
    if as_json:
        written = {"folder": str(folder), "files": sorted(map(str, files)), "next": commands}
        typer.echo(orjson.dumps(written, option=orjson.OPT_INDENT_2))
    else:
        lines = [f"Wrote {len(files)} files to {folder}. Next:", *(f"  {command}" for command in commands)]
        typer.echo("\n".join(lines))


def _names(name: str, kind: Kind) -> dict[str, str]:
    """Return what a template calls its names, for the task "ner": poolkit-ner, poolkit_ner, ner, /ner/compare."""
    task = name.replace("-", "_")
    return {
        "plugin": f"{PREFIX}{name}",
        "module": f"poolkit_{task}",
        "task": task,
        "route": ASKED[kind].route.format(name=name, task=task),
        "request": ASKED[kind].request,
    }


def _name_problem(name: str, kind: Kind, names: Mapping[str, str]) -> str | None:
    """Return why a plugin, and its task if it has one, cannot have that name."""
    if not NAME.fullmatch(name):
        return f"{name!r} cannot be the name of a {kind} and of a distribution. {NAME_RULE}"
    own = {row.name: row.kind for row in list_plugins(PluginConfig()) if row.plugin == "poolkit"}
    if names["task"] in own:
        return f"{names['task']!r} is a name of poolkit's own ({own[names['task']]}). Choose another name"
    spec = importlib.util.find_spec(names["module"])
    if spec is not None:
        return f"there is a package {names['module']} already, in {spec.origin}. Choose another name"
    return None


def _render(kind: Kind, names: Mapping[str, str]) -> Iterator[tuple[PurePosixPath, str]]:
    """Yield the path and the text of each file of the package."""
    for path, file in _files(resources.files("poolkit.cli") / "plugin_templates" / kind):
        text = Template(file.read_text(encoding="utf-8")).substitute(names)
        yield PurePosixPath(Template(path.removesuffix(SUFFIX)).substitute(names)), text


def _files(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, Traversable]]:
    for child in folder.iterdir():
        if child.is_dir():
            yield from _files(child, f"{prefix}{child.name}/")
        else:
            yield f"{prefix}{child.name}", child


def _next_commands(kind: Kind, names: Mapping[str, str], folder: Path) -> list[str]:
    shown = str(folder) if folder.is_absolute() else f"./{folder.as_posix()}"
    return [
        f"python -m pip install {shlex.quote(shown)}",
        f"poolkit serve --plugin {names['plugin']}{ASKED[kind].options.format(**names)}",
        f"curl -s http://127.0.0.1:8000{names['route']} -d '{names['request']}'",
    ]
