"""Reads modules.json: which modules a sentence-transformers model is made of, in order, routers unfolded.

A router sends queries and documents through modules of their own. Unfolded, its modules stand in one list, each with
the input type that it is for.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from poolkit.contract.model_specs import InputType
from poolkit.errors import ModelError, did_you_mean
from poolkit.models._files import read_json, read_object

__all__ = ["KNOWN_MODULES", "Module", "Modules", "read_modules"]

KNOWN_MODULES = (
    "Transformer",
    "WeightedLayerPooling",
    "Pooling",
    "Dense",
    "LayerNorm",
    "Normalize",
    "Router",
    "MultiVectorMask",
    "LogitScore",
    "Dropout",
)
SPARSE_POOLING = "SpladePooling"
"""Makes sparse weights of hidden states: a plugin's head does that."""

RENAMED = {"Asym": "Router", "CLIPModel": "Transformer"}
PYLATE = "pylate.models.Dense.Dense"
"""PyLate's own module, which is sentence-transformers' Dense on token vectors."""

ROUTER_FILES = ("router_config.json", "config.json")
MODALITY = "text"


@dataclass(frozen=True, slots=True)
class Module:
    """One module: its class, where its files lie, and the input type that it is for (None: all)."""

    kind: str
    folder: Path
    only_for: InputType | None = None


@dataclass(frozen=True, slots=True)
class Modules:
    """All modules of a model, in order.

    Attributes:
        listed: the modules, routers unfolded; () where there is no modules.json.
        default_input_type: which route a prompt takes where nobody says what it is; None where there are no routes.
        is_pylate: whether PyLate saved the model.
    """

    listed: tuple[Module, ...] = ()
    default_input_type: InputType | None = None
    is_pylate: bool = False

    @property
    def kinds(self) -> tuple[str, ...]:
        """The class of each module."""
        return tuple(module.kind for module in self.listed)


def read_modules(root: Path) -> Modules:
    """Read the modules of the model in folder `root`."""
    source = root / "modules.json"
    entries = read_json(source)
    if entries is None:
        return Modules()
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ModelError(f"{source} must hold a list of modules. Repair it, or fetch the model again.")
    listed: list[Module] = []
    default: InputType | None = None
    for entry in entries:
        kind, folder = _kind(entry.get("type"), source), root / str(entry.get("path", ""))
        if kind == "Router":
            routed, default = _unfold(folder)
            listed += routed
        else:
            listed.append(Module(kind, folder))
    kinds = [module.kind for module in listed]
    if kinds[:1] != ["Transformer"] or kinds.count("Transformer") > 1:
        raise ModelError(
            f"{source} lists {', '.join(kinds) or 'nothing'}; it must be one Transformer, the same for all "
            "routes, then what works on its token vectors."
        )
    return Modules(tuple(listed), default, is_pylate=any(entry.get("type") == PYLATE for entry in entries))


def _kind(dotted: object, source: Path) -> str:
    kind = str(dotted).rpartition(".")[2]
    kind = RENAMED.get(kind, kind)
    is_theirs = str(dotted).startswith("sentence_transformers.") or dotted == PYLATE
    if not is_theirs or kind not in (*KNOWN_MODULES, SPARSE_POOLING):
        raise ModelError(
            f"{source} lists a module of type {dotted!r}, which poolkit cannot run.{did_you_mean(kind, KNOWN_MODULES)} "
            f"It knows sentence-transformers' own {', '.join(KNOWN_MODULES)}."
        )
    return kind


def _unfold(folder: Path) -> tuple[list[Module], InputType]:
    """Return a router's modules, and the input type whose route a prompt takes where nobody says what it is."""
    path, settings = next(
        ((folder / name, found) for name in ROUTER_FILES if (found := read_object(folder / name)) is not None),
        (folder / ROUTER_FILES[0], {}),
    )
    types, structure, parameters = (settings.get(key) for key in ("types", "structure", "parameters"))
    if not isinstance(types, dict) or not isinstance(structure, dict) or not isinstance(parameters, dict):
        raise ModelError(f"{path} must hold types, structure and parameters. Fetch the model again.")
    kinds = {str(name): _kind(dotted, path) for name, dotted in types.items()}
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
    return [Module(kinds[name], folder / name, only_for) for name, only_for in unfolded], default


def _shared(query: Sequence[str], document: Sequence[str]) -> int:
    """Return how many modules at their start two routes share."""
    pairs = zip(query, document, strict=False)
    return next((i for i, (one, other) in enumerate(pairs) if one != other), min(len(query), len(document)))


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
