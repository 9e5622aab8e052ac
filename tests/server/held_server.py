"""A server in a process of its own, for tests of sockets and signals: its model answers once a file appears.

Run as `python held_server.py FILE SETTINGS`, with settings as JSON; it prints where it listens, in workers if there are
to be several.
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from poolkit.errors import ModelError
from poolkit.pipeline.served import ServedModel
from poolkit.server import log_to_stderr
from poolkit.server.listener import bind
from poolkit.server.run import run_server
from poolkit.server.workers import run_workers
from poolkit.settings.settings import Settings
from poolkit.testing import FakeBackbone
from serving import fake_model


class FileBackbone(FakeBackbone):
    def __init__(self, gate: Path, task) -> None:
        super().__init__(task)
        self._gate = gate

    def __call__(self, batch):
        self._gate.with_suffix(".reached").touch()
        while not self._gate.exists():
            time.sleep(0.005)
        return super().__call__(batch)


@contextmanager
def load(gate: Path) -> Iterator[Mapping[str, ServedModel]]:
    if gate.with_suffix(".broken").exists():
        raise ModelError("the weights are not there")
    with fake_model(backbone=partial(FileBackbone, gate), max_num_seqs=64) as served:
        yield {served.name: served}


if __name__ == "__main__":
    log_to_stderr()
    gate, settings = Path(sys.argv[1]), Settings(**json.loads(sys.argv[2]))
    with bind(settings) as listener:
        print(listener.getsockname()[1], flush=True)
        if settings.workers > 1:
            run_workers(partial(load, gate), settings, listener)
        else:
            with load(gate) as models:
                run_server(models, settings, listener)
