"""The model that a request names, and which of the dialects at its path it is meant for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import TypeAlias

from poolkit.contract import Call
from poolkit.errors import RequestError
from poolkit.pipeline.served import ServedModel
from poolkit.server.failures import RefusedError
from poolkit.server.spoken_dialect import SpokenDialect

__all__ = ["Models", "check_offered", "choose_dialect", "choose_model"]

Models: TypeAlias = Mapping[str, ServedModel]
"""The served models, by the names that clients call them."""


def choose_model(models: Models, requested: object) -> str:
    """Return the name under which the model that a request names is served; without a name, that of the only model.

    Raises RefusedError (404) for another name, RequestError where one of several models must be named.
    """
    listing = ", ".join(f"`{name}`" for name in models)
    if requested in (None, ""):
        if len({id(served) for served in models.values()}) > 1:
            raise RequestError(f"Say which model in the field `model`. This server serves: {listing}.", param="model")
        return next(iter(models))
    if not isinstance(requested, str) or requested not in models:
        raise RefusedError(
            f"The model `{requested}` does not exist. This server serves: {listing}.",
            status=HTTPStatus.NOT_FOUND,
            code="model_not_found",
            param="model",
        )
    return requested


def choose_dialect(spoken: Sequence[SpokenDialect], call: Call, served: ServedModel) -> SpokenDialect:
    """Return the first dialect that a request matches and whose operation the served task offers, or the first match.

    Raises RequestError where none matches.
    """
    matching = [one for one in spoken if one.matches(call, served)]
    if not matching:
        names = ", ".join(one.name for one in spoken)
        raise RequestError(f"Nothing at {call.path} reads such a request. It is for: {names}. See /docs.")
    return next((one for one in matching if one.is_offered_by(served)), matching[0])


def check_offered(spoken: SpokenDialect, call: Call, served: ServedModel) -> None:
    """Raise RequestError unless the served task answers what the dialect asks."""
    if spoken.is_offered_by(served):
        return
    operation = spoken.dialect.operation
    task = served.task.name
    if operation in served.operations:
        raise RequestError(
            f"{call.path} does not know how the task {task!r} answers {operation!r}: in a way of its own. Ask "
            f"/tasks/{task}/{operation}."
        )
    offering = served.registry.tasks_offering(str(operation), served.info)
    remedy = (
        f"Restart it with {' or '.join(f'--task {name}' for name in offering)}."
        if offering
        else "No enabled task that the model can serve offers it."
    )
    raise RequestError(
        f"{call.path} needs the operation {operation!r}. This server serves the task {task!r}, which offers: "
        f"{', '.join(sorted(served.operations))}. {remedy}"
    )
