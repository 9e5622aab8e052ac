"""The OpenAPI document of an app's routes: real request schemas, with examples."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from pydantic.json_schema import models_json_schema

from poolkit.contract import ModalityPrompt
from poolkit.operations.modalities import ModalityObject, prompt_schema
from poolkit.server.routes import Route
from poolkit.server.spoken_dialect import SpokenDialect
from poolkit.server.table import Table

__all__ = ["Document", "describe_routes"]

Document: TypeAlias = dict[str, Any]
"""An object of an OpenAPI document."""

REFERENCE = "#/components/schemas/{model}"
PARAMETER = re.compile(r"\{(\w+)\}")

RESPONSES = {"200": {"description": "The answer."}, "default": {"description": "What went wrong, and what to do."}}


def describe_routes(
    routes: Iterable[Route],
    table: Table,
    modalities: Mapping[str, type[ModalityPrompt]],
    *,
    version: str,
    summary: str,
) -> Document:
    """Return the OpenAPI document of an app: what each path takes, prompts of other modalities than text among it."""
    models = dict.fromkeys(one.dialect.request for spoken in table.values() for one in spoken if one.reads_json)
    references, definitions = models_json_schema([(model, "validation") for model in models], ref_template=REFERENCE)
    schemas = definitions.get("$defs", {})
    if ModalityObject.__name__ in schemas and modalities:
        schemas[ModalityObject.__name__] = {"anyOf": [prompt_schema(one) for one in modalities.values()]}
    paths: Document = {}
    for route in routes:
        for method in route.methods:
            readers = [one for one in table.get(route.path, ()) if method in one.dialect.methods]
            paths.setdefault(route.path, {})[method.lower()] = _describe(route, method, readers, references)
    return {
        "openapi": "3.1.0",
        "info": {"title": "poolkit", "version": version, "summary": summary},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _describe(route: Route, method: str, spoken: Sequence[SpokenDialect], references: Mapping[Any, object]) -> Document:
    """Return the operation of one method of a path: its parameters, and the bodies that the dialects there read."""
    words = re.sub(r"\W+", "_", route.path).strip("_")
    text = route.endpoint.__doc__ or ""
    operation: Document = {"operationId": f"{words}_{method.lower()}", "tags": ["server"], "responses": RESPONSES}
    if spoken:
        text = "\n\n".join(dict.fromkeys(one.dialect.request.__doc__ or "" for one in spoken))
        operation["tags"] = [spoken[0].dialect.operation or "server"]
    operation["summary"], _, operation["description"] = text.partition("\n")
    names = PARAMETER.findall(route.path)
    if names:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    models = dict.fromkeys(one.dialect.request for one in spoken if one.reads_json)
    bodies = [references[model, "validation"] for model in models]
    if bodies:
        schema = bodies[0] if len(bodies) == 1 else {"anyOf": bodies}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return operation
