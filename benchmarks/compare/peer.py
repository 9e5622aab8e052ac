"""The description of a peer: where it is installed, how it runs offline, and how it serves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias

from benchmarks.compare.models import Model

__all__ = ["Interpreter", "Peer", "Request", "Server", "Setting"]

Request: TypeAlias = tuple[str, Mapping[str, object]]
"""The path and the JSON body of a request."""


class Interpreter(Protocol):
    """A Python with the packages of a peer, made first where it is missing."""

    def python(self) -> Path:
        """Return the interpreter."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """One way to use a peer.

    Attributes:
        load: what the model is loaded with; another value takes another process.
        call: what each call is made with.
    """

    load: Mapping[str, object] = field(default_factory=dict)
    call: Mapping[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        return ", ".join(f"{key} {value}" for key, value in {**self.load, **self.call}.items()) or "defaults"


@dataclass(frozen=True, slots=True)
class Server:
    """The server of a peer, for a model that embeds.

    Attributes:
        command: the arguments after the interpreter, of the model's folder, the port and the setting's `load`.
        request: a request for the vectors of some texts, to the model in that folder.
    """

    command: Callable[[str, int, Mapping[str, object]], Sequence[str]]
    request: Callable[[Sequence[str], str], Request]


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One row of the tables.

    Attributes:
        name: with what sets it apart from other rows of the same library.
        environment: the Python that it runs with.
        runner: the script in `runners/` that runs it offline.
        settings: what is tried, the best of which is measured.
        refuses: the reason why it cannot do the model's work; "" where it can.
        prepare: returns the folder that it loads in place of the model's own.
        server: None where it has none.
        variables: of its processes' environment.
        is_ours: poolkit itself, whose ratios are shown.
    """

    name: str
    environment: Interpreter
    runner: str
    settings: Sequence[Setting]
    refuses: Callable[[Model], str] = lambda _: ""
    prepare: Callable[[Model, Path], Path] = lambda _, folder: folder
    server: Server | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    is_ours: bool = False
