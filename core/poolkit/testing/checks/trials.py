"""An operation and one of its examples, asked as a client of poolkit's own routes would ask."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import orjson
from pydantic import BaseModel

from poolkit.contract import Operation
from poolkit.errors import RequestError
from poolkit.pipeline.served import ServedModel
from poolkit.testing.checks.bodies import Body, paths, put, value_at
from poolkit.testing.checks.subject import EngineMaker, Subject, examples
from poolkit.testing.fake_engine import FakeEngine

__all__ = ["Trial", "trials"]

HOLD_LIMIT_S = 5.0
POLL_INTERVAL_S = 0.001


@dataclass(frozen=True, slots=True)
class Trial:
    """One example of one operation, and the model to ask.

    Attributes:
        where: operation and example, for messages.
        served: the model.
        operation: what it is an example of.
        body: the example.
    """

    where: str
    served: ServedModel
    operation: Operation
    body: Body

    def decode(self, body: Body) -> BaseModel:
        """Return the request that a body makes.

        Raises:
            RequestError: it makes none.
        """
        from poolkit.server.native import read_request  # here: importing the kit must not import fastapi

        return read_request(self.operation.request, body)

    def ask(self, body: Body) -> Body:
        """Return the answer's JSON. Raises whatever a server would turn into an error's answer."""
        return asyncio.run(self._answer(body))

    def ask_together(self, bodies: Sequence[Body], *, gate: threading.Event, prompts: int) -> list[Body | Exception]:
        """Return the answers to requests that are all in flight at the same time.

        Args:
            bodies: the requests.
            gate: what the engine waits for: it is set once the prompts of all requests are there.
            prompts: how many that are.
        """

        async def main() -> list[Body | Exception]:
            deadline = asyncio.get_running_loop().time() + HOLD_LIMIT_S
            gate.clear()
            tasks = [asyncio.create_task(self._answer(body)) for body in bodies]
            try:
                # A plugin that answers from a cache never sends that many: hence the deadline.
                while self.served.stats().prompts_waiting < prompts and asyncio.get_running_loop().time() < deadline:
                    if all(task.done() for task in tasks):
                        break
                    await asyncio.sleep(POLL_INTERVAL_S)
            finally:
                gate.set()
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            return cast("list[Body | Exception]", answers)

        return asyncio.run(main())

    def variants(self, count: int) -> list[Body]:
        """Return the example `count` times with other words in its texts, where they may be any; or nothing."""
        free = []
        for path in paths(self.body):
            text = value_at(self.body, path)
            if isinstance(text, str):
                try:
                    self.ask(put(self.body, path, f"{text} 0"))
                except RequestError:
                    continue
                free.append((path, text))
        variants = []
        for number in range(count if free else 0):
            variant = self.body
            for path, text in free:
                variant = put(variant, path, f"{text} {number}")
            variants.append(variant)
        return variants

    def _answer(self, body: Body) -> Coroutine[object, object, Body]:
        from poolkit.server.native import write_response

        def encode(response: BaseModel) -> Body:
            return cast("Body", orjson.loads(write_response(response).body))

        return self.served.arun(self.operation.name, lambda: self.decode(body), encode)


def trials(subject: Subject, engine: EngineMaker = FakeEngine) -> Iterator[Trial]:
    """Yield every example of every operation to try; the model of each is closed when the next one is asked for."""
    for task in subject.served_tasks:
        with subject.serve(task, engine) as served:
            yield from _trials_of(served)


def _trials_of(served: ServedModel) -> Iterator[Trial]:
    for bound in served.operations.values():
        for number, body in enumerate(examples(bound.operation.request)):
            where = f"{bound.task}/{bound.operation.name}, example {number}"
            yield Trial(where, served, bound.operation, body)
