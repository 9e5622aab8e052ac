"""An encoder's threads, also after a fork, and its errors without memory: in processes of their own."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from families import build
from poolkit_cpu_kernels import Kernels

START = """
    import os, pickle, resource, threading
    from dataclasses import replace
    from pathlib import Path

    import numpy as np
    from poolkit_cpu_kernels import load
    from tables import cu_seqlens, make, random_texts, run

    def threads():
        return len(os.listdir("/proc/self/task"))

    table = pickle.loads(Path({table!r}).read_bytes())
    kernels = load({library!r})
    kernels.set_threads(1)
    encoder = make(kernels, table, "float32")
    kernels.set_threads(3)
"""


@pytest.fixture(scope="module")
def table_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small BERT."""
    _, table = build("bert")
    path = tmp_path_factory.mktemp("tables") / "bert"
    path.write_bytes(pickle.dumps(table))
    return path


def run_in_process(kernels: Kernels, table: Path, code: str) -> None:
    """Run some code, which exits with 0 if all is well, with an encoder of a small BERT that may use three threads."""
    script = textwrap.dedent(START.format(library=kernels.name, table=str(table))) + textwrap.dedent(code)
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_threads_help_with_one_long_text_and_leave_a_short_one_alone(kernels: Kernels, table_file: Path) -> None:
    run_in_process(
        kernels,
        table_file,
        """
        before = threads()
        run(encoder, random_texts((60,)))
        assert threads() == before, "a short text has started threads"
        run(encoder, random_texts((600,)))
        assert threads() == before + 2, "a long text has not"
        """,
    )


def test_threads_are_started_again_after_a_fork(kernels: Kernels, table_file: Path) -> None:
    run_in_process(
        kernels,
        table_file,
        """
        texts = random_texts((600, 80, 90))
        expected = run(encoder, texts)
        stop = threading.Event()

        def keep_running():
            while not stop.is_set():
                run(encoder, texts)

        other = threading.Thread(target=keep_running)  # at some of the forks it holds locks
        other.start()
        for _ in range(8):
            child = os.fork()
            if child == 0:
                same = all(map(np.array_equal, run(encoder, texts), expected))
                os._exit(0 if same and threads() == 3 else 1)
            assert os.waitpid(child, 0)[1] == 0
        stop.set()
        other.join()
        """,
    )


def test_a_run_without_memory_is_an_error_and_the_next_with_it_is_not(kernels: Kernels, table_file: Path) -> None:
    run_in_process(
        kernels,
        table_file,
        """
        kernels.set_threads(1)
        long, short = random_texts((4000, 30))
        expected = run(encoder, [long])[0]  # whose buffers are large, and not kept
        out = np.empty_like(expected)
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        for spare in (0, 1, 2, 4, 8):  # MB: each fails elsewhere
            resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (spare << 20), hard))
            try:
                encoder.run(long, cu_seqlens([long]), out=out)
            except MemoryError:
                failed = True
            else:
                failed = False
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
            assert failed or spare > 4, f"{spare} MB have been enough"
            run(encoder, [short])
        assert np.array_equal(run(encoder, [long])[0], expected)
        """,
    )


def test_weights_that_do_not_fit_in_memory_are_an_error_and_leave_nothing(kernels: Kernels, table_file: Path) -> None:
    run_in_process(
        kernels,
        table_file,
        """
        # Memory for all layers is taken at once.
        large = replace(table, spec=replace(table.spec, layers=50_000), layers=())
        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, resource.getrlimit(resource.RLIMIT_AS)[1]))
        before = int(Path("/proc/self/statm").read_text().split()[0])
        for _ in range(20):
            try:
                make(kernels, large, "float32")
            except MemoryError:
                continue
            raise AssertionError("it fits")
        after = int(Path("/proc/self/statm").read_text().split()[0])
        assert (after - before) * resource.getpagesize() < 1 << 20
        """,
    )
