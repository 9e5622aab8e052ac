"""The OpenAPI description of paths that read their bodies themselves: real request schemas, with examples."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from poolkit.contract import ModalityPrompt
from poolkit.operations.modalities import ModalityObject, prompt_schema
from poolkit.server.spoken_dialect import SpokenDialect
from poolkit.server.table import Table

__all__ = ["describe_dialects"]

REFERENCE = "#/components/schemas/{model}"
PARAMETER = re.compile(r"\{(\w+)[^}]*\}")


def describe_dialects(app: FastAPI, table: Table, modalities: Mapping[str, type[ModalityPrompt]]) -> None:
    """Make the app's OpenAPI document say what each path takes, prompts of other modalities than text among it."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            models = dict.fromkeys(one.dialect.request for spoken in table.values() for one in spoken if one.reads_json)
            references, definitions = models_json_schema(
                [(model, "validation") for model in models], ref_template=REFERENCE
            )
            components = document.setdefault("components", {}).setdefault("schemas", {})
            components.update(definitions.get("$defs", {}))
            if ModalityObject.__name__ in components and modalities:
                components[ModalityObject.__name__] = {"anyOf": [prompt_schema(one) for one in modalities.values()]}
            for path, spoken in table.items():
                for method, operation in document["paths"][path].items():
                    readers = [one for one in spoken if method.upper() in one.dialect.methods]
                    _describe(operation, path, readers, references)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document


def _describe(
    operation: dict[str, Any],
    path: str,
    spoken: Sequence[SpokenDialect],
    references: Mapping[Any, object],
) -> None:
    """Add the parameters of a path, and the bodies that the dialects at it read, to their operation in the document."""
    names = PARAMETER.findall(path)
    if names:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    models = dict.fromkeys(one.dialect.request for one in spoken if one.reads_json)
    schemas = [references[model, "validation"] for model in models]
    if schemas:
        schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
