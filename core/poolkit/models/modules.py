"""Reads modules.json: which modules a sentence-transformers model is made of, in order, routers unfolded.

A router sends queries and documents through modules of their own. Unfolded, its modules stand in one list, each with
the input type that it is for.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from poolkit.contract.model_files import Module, read_json, read_object
from poolkit.contract.params import InputType
from poolkit.errors import ModelError

__all__ = ["Modules", "read_modules"]

THEIRS = "sentence_transformers."
RENAMED = {"Asym": "Router", "CLIPModel": "Transformer", "MLMTransformer": "Transformer"}
"""Former names of sentence-transformers' own types."""
PYLATE = "pylate.models.Dense.Dense"
"""PyLate's own module, which is sentence-transformers' Dense on token vectors."""

ROUTER_FILES = ("router_config.json", "config.json")
MODALITY = "text"


@dataclass(frozen=True, slots=True)
class Modules:
    """The modules of a model after its Transformer.

    Attributes:
        listed: the modules in order, routers unfolded.
        default_input_type: the input type whose route a prompt takes if a request does not say; None if there are no
            routes.
        is_pylate: True if PyLate saved the model.
    """

    listed: tuple[Module, ...] = ()
    default_input_type: InputType | None = None
    is_pylate: bool = False


def read_modules(root: Path) -> tuple[Path | None, Modules]:
    """Read the modules of the model in folder `root`: the folder of its Transformer, and the modules after that.

    The folder is None if there is no modules.json.
    """
    source = root / "modules.json"
    entries = read_json(source)
    if entries is None:
        return None, Modules()
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ModelError(f"{source} must hold a list of modules. Repair it, or fetch the model again.")
    listed: list[Module] = []
    default: InputType | None = None
    for entry in entries:
        module_type, folder = _type(entry.get("type")), root / str(entry.get("path", ""))
        if module_type == "Router":
            routed, default = _unfold(folder, root)
            listed += routed
        else:
            listed.append(Module(type=module_type, folder=folder, root=root))
    types = [module.type for module in listed]
    if types[:1] != ["Transformer"] or types.count("Transformer") > 1:
        raise ModelError(
            f"{source} lists {', '.join(types) or 'nothing'}; it must be one Transformer, the same for all "
            "routes, then what works on its token vectors."
        )
    is_pylate = any(entry.get("type") == PYLATE for entry in entries)
    return listed[0].folder, Modules(tuple(listed[1:]), default, is_pylate)


def _type(dotted: object) -> str:
    """Return the name of a type of module in the table: short for sentence-transformers' own."""
    if not str(dotted).startswith(THEIRS) and dotted != PYLATE:
        return str(dotted)
    name = str(dotted).rpartition(".")[2]
    return RENAMED.get(name, name)


def _unfold(folder: Path, root: Path) -> tuple[list[Module], InputType]:
    """Return a router's modules, and the input type whose route a prompt takes if a request does not say."""
    path, settings = next(
        ((folder / name, found) for name in ROUTER_FILES if (found := read_object(folder / name)) is not None),
        (folder / ROUTER_FILES[0], {}),
    )
    types, structure, parameters = (settings.get(key) for key in ("types", "structure", "parameters"))
    if not isinstance(types, dict) or not isinstance(structure, dict) or not isinstance(parameters, dict):
        raise ModelError(f"{path} must hold types, structure and parameters. Fetch the model again.")
    types_by_name = {str(name): _type(dotted) for name, dotted in types.items()}
    routes = {str(route): [str(name) for name in names] for route, names in structure.items()}
    query = _route(routes, parameters, "query", path)
    document = _route(routes, parameters, "document", path)
    unsaid = _route(routes, parameters, None, path)
    default: InputType
    if unsaid == document:
        default = "document"
    elif unsaid == query:
        default = "query"
    else:
        raise ModelError(
            f"{path} sends what is neither query nor document through a route of its own, {unsaid!r}; poolkit routes "
            "queries and documents."
        )
    shared = _shared(routes[query], routes[document])
    unfolded: list[tuple[str, InputType | None]] = [(name, None) for name in routes[query][:shared]]
    unfolded += [(name, "query") for name in routes[query][shared:]]
    unfolded += [(name, "document") for name in routes[document][shared:]]
    modules = [
        Module(type=types_by_name[name], folder=folder / name, root=root, only_for=only_for)
        for name, only_for in unfolded
    ]
    return modules, default


def _shared(query: Sequence[str], document: Sequence[str]) -> int:
    """Return how many modules at their start two routes share."""
    pairs = zip(query, document, strict=False)
    return next((place for place, (left, right) in enumerate(pairs) if left != right), min(len(query), len(document)))


def _route(
    routes: Mapping[str, list[str]], parameters: Mapping[str, object], input_type: InputType | None, path: Path
) -> str:
    """Return the route that sentence-transformers' Router takes for a text of an input type."""
    mapped = parameters.get("route_mappings")
    mappings = {ast.literal_eval(key): str(route) for key, route in mapped.items()} if isinstance(mapped, dict) else {}
    for key in ((input_type, MODALITY), (input_type, None), (None, MODALITY), (None, None)):
        if key in mappings:
            return mappings[key]
    for name in (input_type, MODALITY):
        if name is not None and name in routes:
            return name
    default = parameters.get("default_route") or next(iter(routes), None)
    if input_type is not None or default not in routes:
        raise ModelError(
            f"{path} has the routes {', '.join(map(repr, routes)) or 'none'} and none for {input_type or 'other'} "
            "texts; poolkit routes queries and documents."
        )
    return str(default)
