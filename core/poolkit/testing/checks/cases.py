"""An operation and one of its examples, asked as a client of poolkit's own routes would ask."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import orjson
from pydantic import BaseModel

from poolkit.contract import Operation
from poolkit.errors import OverloadedError
from poolkit.pipeline.served import ServedModel
from poolkit.testing.checks.bodies import Body, Path, paths, put, texts_in, value_at
from poolkit.testing.checks.plugin import BackboneMaker, PluginUnderTest, examples
from poolkit.testing.fake_engine import ChangeOutputs, FakeBackbone

__all__ = ["Case", "cases", "one_per_operation"]

HOLD_LIMIT_S = 5.0
POLL_INTERVAL_S = 0.001

MAX_RETRY_S = 1
"""The longest that a request is held back for a plugin which limits requests."""


@dataclass(frozen=True, slots=True)
class Case:
    """One example of one operation, and the model to ask.

    Attributes:
        where: operation and example, for messages.
        served: the model.
        operation: the operation that it is an example of.
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
        from poolkit.server.native import read_request  # here: importing the kit must not import uvicorn

        return read_request(self.operation.request, body, modalities=self.served.modalities)

    def ask(self, body: Body) -> object:
        """Return the answer's JSON. Raises whatever a server would turn into an error's answer.

        A plugin that limits requests and wants to be asked again soon is asked again once.
        """
        try:
            return asyncio.run(self._answer(body))
        except OverloadedError as refusal:
            if refusal.retry_after_s > MAX_RETRY_S:
                raise
            time.sleep(refusal.retry_after_s)
            return asyncio.run(self._answer(body))

    def try_to_ask(self, body: Body) -> object:
        """Return the answer's JSON, or the exception that a server would turn into an error's answer.

        Raises:
            OverloadedError: the plugin limits requests, which says nothing of this one.
        """
        try:
            return self.ask(body)
        except OverloadedError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever is raised is what a check looks at
            return error

    def ask_together(self, bodies: Sequence[Body], *, gate: threading.Event, prompts: int) -> list[object]:
        """Return the answers, or exceptions, to requests that are all in flight at the same time.

        Args:
            bodies: the requests.
            gate: lets the engine run: it is set once the prompts of all requests are there.
            prompts: the number of those.
        """

        async def main() -> list[object]:
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
            return list(await asyncio.gather(*tasks, return_exceptions=True))

        return asyncio.run(main())

    def variants(self, count: int) -> list[Body]:
        """Return the example with other words in its texts and more items in its lists of texts, or nothing.

        The words are hexadecimal digits behind the texts that may be any, as many in each variant. Of more words some
        would have the fake token of a word that means something to the plugin.
        """
        size = len(f"{count - 1:x}")
        free = [
            (path, value_at(self.body, path))
            for path in texts_in(self.body)
            if self._is_answered(put(self.body, path, f"{value_at(self.body, path)} {_words(0, size)}"))
        ]
        lists = [path for path in self._lists_of_texts() if self._is_answered(_lengthen(self.body, path, 1))]
        variants = []
        for number in range(count if free else 0):
            variant = self.body
            for path, text in free:
                variant = put(variant, path, f"{text} {_words(number, size)}")
            for path in lists:
                variant = _lengthen(variant, path, number % 3)
            variants.append(variant)
        return variants

    def _lists_of_texts(self) -> Iterator[Path]:
        for path in paths(self.body):
            value = value_at(self.body, path)
            if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
                yield path

    def _is_answered(self, body: Body) -> bool:
        return not isinstance(self.try_to_ask(body), Exception)

    def _answer(self, body: Body) -> Coroutine[object, object, object]:
        from poolkit.server.native import write_response

        def encode(response: BaseModel) -> object:
            return orjson.loads(write_response(response).body)

        return self.served.arun(self.operation.name, lambda: self.decode(body), encode)


def cases(
    plugin: PluginUnderTest, backbone: BackboneMaker = FakeBackbone, *, outputs: ChangeOutputs | None = None
) -> Iterator[Case]:
    """Yield every example of every operation to try; the model of each is closed when the next one is asked for.

    `outputs` sees the outputs of each batch, and returns those that are delivered.
    """
    for task in plugin.served_tasks:
        with plugin.serve(task, backbone, outputs=outputs) as served:
            yield from _cases_of(served)


def one_per_operation(plugin: PluginUnderTest) -> Iterator[Case]:
    """Yield the first example of each operation."""
    seen = set()
    for case in cases(plugin):
        if (key := (case.served.task.name, case.operation.name)) not in seen:
            seen.add(key)
            yield case


def _cases_of(served: ServedModel) -> Iterator[Case]:
    for bound in served.operations.values():
        for number, body in enumerate(examples(bound.operation.request)):
            where = f"{bound.task}/{bound.operation.name}, example {number}"
            yield Case(where, served, bound.operation, body)


def _words(number: int, size: int) -> str:
    return " ".join(f"{number:0{size}x}")


def _lengthen(body: Body, path: Path, more: int) -> Body:
    items = cast("list[object]", value_at(body, path))
    return put(body, path, items + [items[number % len(items)] for number in range(more)])
