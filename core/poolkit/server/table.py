"""The table of dialects: which are spoken at each path, in what order, and which of them a request is meant for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeAlias, TypeVar, cast

from pydantic import BaseModel, ValidationError
from starlette.routing import compile_path

from poolkit.contract import Call, Dialect, Failure, NoBody, Reply, Served
from poolkit.errors import HookError, PluginInvalidError, RequestError
from poolkit.pipeline.served import ServedModel
from poolkit.registry import DIALECTS, BoundOperation, Entries, Plugin, Registry
from poolkit.server.failures import RefusedError, openai_error
from poolkit.server.native import native_dialect, read_request
from poolkit.validation import refused

__all__ = [
    "Models",
    "SpokenDialect",
    "Table",
    "build_table",
    "check_offered",
    "choose_dialect",
    "choose_model",
    "error_encoders",
    "place_dialects",
]

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

Models: TypeAlias = Mapping[str, ServedModel]
"""The served models, by the names that clients call them."""

POOLING = "pooling"
"""The standard operation that `/pooling` reaches; where a task has none of that name, it reaches the first one."""


@dataclass(frozen=True, slots=True, eq=False)
class SpokenDialect:
    """A dialect and its provider, who is blamed for its failures.

    Attributes:
        dialect: what was provided.
        name: of its entry point; of the operation where it is the operation's own.
        plugin: the provider.
    """

    dialect: Dialect[Any, Any]
    name: str
    plugin: Plugin

    @property
    def reads_json(self) -> bool:
        """True if it needs the body parsed."""
        return not issubclass(self.dialect.request, NoBody)

    def matches(self, call: Call, served: ServedModel) -> bool:
        """Return whether a request is meant for the dialect."""
        matches = self.dialect.matches
        with self._blaming("matches", served):
            return call.method in self.dialect.methods and (matches is None or bool(matches(call, served)))

    def is_offered_by(self, served: ServedModel) -> bool:
        """Return whether the served task answers what the dialect asks, in the standard way."""
        if self.dialect.operation is None:
            return True
        bound = served.operations.get(self.dialect.operation)
        if bound is None:
            return False
        is_read = self.dialect.decode is not None or issubclass(self.dialect.request, bound.operation.request)
        return is_read and issubclass(bound.operation.response, self.dialect.response)

    def read(self, call: Call, served: ServedModel) -> BaseModel:
        """Return what the client asks. Raises RequestError with a sentence for each wrong field."""
        request: type[BaseModel] = self.dialect.request
        body = dict(call.body)
        if "model" not in request.model_fields:
            body.pop("model", None)  # it has chosen the model
        return read_request(request, body, modalities=served.modalities)

    def decode(self, request: BaseModel, call: Call, served: ServedModel) -> BaseModel:
        """Return what the operation is asked, or without an operation the response.

        Raises:
            RequestError: the request is wrong, says the dialect or the operation's own model.
            HookError: the dialect failed.
        """
        if self.dialect.decode is None:
            return request
        with self._blaming("decode", served):
            if self.dialect.operation is None:
                return _expect(BaseModel, self.dialect.decode(request, call, served))
            expected: type[BaseModel] = served.operations[self.dialect.operation].operation.request
            try:
                return _expect(expected, self.dialect.decode(request, call, served))
            except ValidationError as error:
                if error.title == expected.__name__:
                    raise refused(error) from error
                raise

    def encode(self, response: BaseModel, request: BaseModel, call: Call, served: ServedModel) -> Reply:
        """Return the answer."""
        with self._blaming("encode", served):
            return _expect(Reply, self.dialect.encode(response, request, call))

    @contextmanager
    def _blaming(self, function: str, served: Served) -> Iterator[None]:
        """Blame a plugin for everything that its function raises, but for what it blames on the request."""
        try:
            yield
        except (RequestError, HookError):
            raise
        except Exception as error:
            message = f"dialect {self.name!r} of {self.plugin} failed in {function}."
            logger.exception("%s", message)
            raise HookError(message, plugin=self.plugin.name, task=served.task.name, hook=function) from error


Table: TypeAlias = Mapping[str, tuple[SpokenDialect, ...]]
"""The dialects at each path."""


def build_table(models: Models, *, first: Sequence[str], is_own: Callable[[str], bool]) -> Table:
    """Return the dialects at each path, in the order in which they are asked. Paths with parameters come last.

    Args:
        models: the served models. What is enabled for one of them is spoken.
        first: as for `place_dialects`.
        is_own: likewise.

    Raises:
        PluginError, ConfigError: as `place_dialects` does, or an operation asks for a path that is taken.
    """
    table = place_dialects([served.registry for served in models.values()], first=first, is_own=is_own)
    seen = set()
    for served in models.values():
        for position, bound in enumerate(served.operations.values()):
            key = (served.task.name, bound.operation.name, bound.plugin.name)
            if key in seen:
                continue
            seen.add(key)
            _check_free(bound, [path for path in bound.operation.routes if path in table or is_own(path)])
            paths = [f"/tasks/{served.task.name}/{bound.operation.name}", *bound.operation.routes]
            if position == 0 and POOLING not in served.operations:
                paths.append(f"/{POOLING}")
            native = native_dialect(bound.operation, paths=tuple(paths))
            for path in paths:
                table.setdefault(path, []).append(SpokenDialect(native, bound.operation.name, bound.plugin))
    return {path: tuple(table[path]) for path in sorted(table, key=lambda path: "{" in path)}


def place_dialects(
    registries: Sequence[Registry], *, first: Sequence[str], is_own: Callable[[str], bool]
) -> dict[str, list[SpokenDialect]]:
    """Return the dialects of core and of the enabled plugins at each path, in the order in which they are asked.

    What only `"*"` enabled and may not stand where it wants to is left out with a warning.

    Args:
        registries: of the served models.
        first: names of entry points whose dialects are asked before all others.
        is_own: tells whether a path is one of the server's own, such as /health.

    Raises:
        PluginError: an entry cannot be imported, or a plugin claims a path that it may not have.
        ConfigError: no enabled plugin has a dialect that is named in `first`, or several plugins have one of one name.
    """
    table: dict[str, list[SpokenDialect]] = {}
    found = _find_dialects(registries, first=first)
    core = {path: one.name for one, _ in found if one.plugin.is_builtin for path in one.dialect.paths}
    for spoken, entries in found:
        try:
            for path in spoken.dialect.paths:
                _check_place(spoken, path, table.get(path, ()), core=core, first=first, is_own=is_own(path))
        except PluginInvalidError as error:
            entries.refuse(spoken.name, error)
            continue
        for path in spoken.dialect.paths:
            table.setdefault(path, []).append(spoken)
    return table


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


def error_encoders(table: Table) -> Callable[[str], Callable[[Failure], Reply]]:
    """Return what finds, for a path, how failures are written before a dialect is chosen: as its last dialect does."""
    encoders = [
        (compile_path(path)[0], spoken[-1].dialect.encode_error or openai_error) for path, spoken in table.items()
    ]
    return lambda path: next((encode for regex, encode in encoders if regex.match(path)), openai_error)


def _find_dialects(registries: Sequence[Registry], *, first: Sequence[str]) -> list[tuple[SpokenDialect, Entries]]:
    """Return every dialect with the table that it is from, in the order in which they are asked."""
    tables = [registry.entries(DIALECTS) for registry in registries]
    for name in first:
        if not any(name in entries for entries in tables):
            tables[0][name]  # tells why it is not there
    found: dict[tuple[str, str], list[tuple[SpokenDialect, Entries]]] = {}
    for entries in tables:
        for name, entry in entries.items():
            plugin = entries.provider(name)
            dialects = cast("tuple[Dialect[Any, Any], ...]", entry if isinstance(entry, tuple) else (entry,))
            found[plugin.name, name] = [(SpokenDialect(dialect, name, plugin), entries) for dialect in dialects]
    ranks = {name: rank for rank, name in enumerate(first)}
    spoken = (one for dialects in found.values() for one in dialects)
    return sorted(spoken, key=lambda one: (ranks.get(one[0].name, len(ranks)), _rank(one[0])))


def _rank(spoken: SpokenDialect) -> int:
    """Return 0 for what core reads by a fingerprint, 1 for plugins' dialects, 2 for core's that read the rest."""
    if not spoken.plugin.is_builtin:
        return 1
    return 0 if spoken.dialect.matches is not None else 2


def _check_place(
    spoken: SpokenDialect,
    path: str,
    others: Sequence[SpokenDialect],
    *,
    core: Mapping[str, str],
    first: Sequence[str],
    is_own: bool,
) -> None:
    """Raise PluginInvalidError where a plugin's dialect would replace what is at a path, or never be asked."""
    plugin, dialect = spoken.plugin, spoken.dialect
    problem = None
    if is_own:
        problem = f"is to be spoken at {path!r}, which is poolkit's own. Choose another path."
    elif not plugin.is_builtin and dialect.matches is None and spoken.name not in first:
        if path in core:
            problem = (
                f"would read every request at {path!r}, and poolkit's {core[path]!r} none. Give it `matches`, or let "
                f"the operator put it first: dialects = [{spoken.name!r}]."
            )
        elif (other := next((other for other in others if _hides(other.dialect, dialect)), None)) is not None:
            problem = (
                f"would never be asked at {path!r}: {other.name!r} of {other.plugin} reads every request there. Give "
                f"one `matches`."
            )
    if problem is not None:
        raise PluginInvalidError(f"{plugin}: dialect {spoken.name!r} {problem}", plugin=plugin.name)


def _hides(first: Dialect[Any, Any], second: Dialect[Any, Any]) -> bool:
    """Return whether a dialect leaves nothing to another one that is asked after it."""
    is_same = first.operation == second.operation and set(first.methods) >= set(second.methods)
    return is_same and first.matches is None


def _check_free(bound: BoundOperation, taken: Sequence[str]) -> None:
    for path in taken:
        raise PluginInvalidError(
            f"{bound.plugin}: operation {bound.operation.name!r} asks for the route {path!r}, which is taken. "
            "Choose another path, or leave it out: the operation has /tasks/<task>/<operation> anyway.",
            plugin=bound.plugin.name,
        )


def _expect(expected: type[ResultT], value: object) -> ResultT:
    if not isinstance(value, expected):
        raise TypeError(f"returned {type(value).__name__}, not {expected.__name__}")
    return value
