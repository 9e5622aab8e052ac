"""A server in a process of its own, for tests of signals: its model answers once a file appears.

Run as `python held_server.py FILE`; it prints its port.
"""

import socket
import sys
import time
from pathlib import Path

from poolkit.server.run import run_server
from poolkit.settings.settings import Settings
from poolkit.testing import FakeBackbone
from serving import fake_model

gate = Path(sys.argv[1])


class FileBackbone(FakeBackbone):
    def __call__(self, batch):
        gate.with_suffix(".reached").touch()
        while not gate.exists():
            time.sleep(0.005)
        return super().__call__(batch)


with fake_model(backbone=FileBackbone) as served, socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    run_server({served.name: served}, Settings(drain_timeout_s=60), listener)
