"""An encoder's life: closed, shared by threads, across a fork, and interrupted."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from poolkit_cpu_kernels import Encoder
from tiny_models import CU_SEQLENS, SPEC, TOKEN_IDS, encoder, layer, random, refused, tensors

LONG_IDS = np.resize(np.arange(50, dtype=np.int32), 4000)
LONG_ENDS = np.arange(0, 4001, 40, dtype=np.int32)


def test_states_are_written_to_out(kernels):
    model, out = encoder(kernels), np.full((20, 64), np.nan, np.float32)

    states = model.run(TOKEN_IDS, CU_SEQLENS, out=out)

    assert states is out
    assert np.array_equal(out, model.run(TOKEN_IDS, CU_SEQLENS))


def test_the_defaults_are_positions_in_order_and_type_0(kernels):
    model = encoder(kernels)
    positions = np.concatenate([np.arange(n, dtype=np.int32) for n in np.diff(CU_SEQLENS)])
    zeros, lengths = np.zeros(20, np.int32), np.diff(CU_SEQLENS)

    states = model.run(TOKEN_IDS, CU_SEQLENS)

    assert np.array_equal(states, model.run(TOKEN_IDS, CU_SEQLENS, positions=positions, types=zeros, seen=lengths))
    assert not np.array_equal(states, model.run(TOKEN_IDS, CU_SEQLENS, types=zeros + 1))
    assert not np.array_equal(states, model.run(TOKEN_IDS, CU_SEQLENS, seen=np.ones(3, np.int32)))


def test_no_texts_have_no_states(kernels):
    assert encoder(kernels).run(TOKEN_IDS[:0], CU_SEQLENS[:1]).shape == (0, 64)


def test_a_closed_encoder_can_be_closed_again_and_not_be_run(any_kernels):
    model = encoder(any_kernels)
    assert model.nbytes > 4 * 2 * 64 * (4 * 64 + 2 * 96)  # two layers' weights in float32
    model.close()
    model.close()

    with refused("the encoder is closed."):
        model.run(TOKEN_IDS, CU_SEQLENS)
    with refused("the encoder is closed."):
        _ = model.nbytes


def test_a_context_ends_with_closing(any_kernels):
    with encoder(any_kernels) as model:
        model.run(TOKEN_IDS, CU_SEQLENS)

    with refused("the encoder is closed."):
        model.run(TOKEN_IDS, CU_SEQLENS)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("drop", ["close", "forget"])
def test_the_memory_of_an_encoder_is_given_back(any_kernels, drop):
    spec = replace(SPEC, hidden=1024, heads=32, intermediate=4096, layers=1)
    hidden, inner = spec.hidden, spec.intermediate
    zeros = {
        **dict.fromkeys(("q_weight", "k_weight", "v_weight", "output_weight"), np.zeros((hidden, hidden), np.float32)),
        "up_weight": np.zeros((inner, hidden), np.float32),
        "up_bias": None,
        "down_weight": np.zeros((hidden, inner), np.float32),
        **dict.fromkeys(("attention_norm_weight", "attention_norm_bias", "ffn_norm_weight", "ffn_norm_bias")),
    }
    words = np.zeros((5, hidden), np.float32)
    table = tensors(words=words, positions=None, types=None, norm_weight=None, norm_bias=None)
    model = any_kernels.encoder(spec, table, [layer(**zeros)])
    assert isinstance(model, Encoder)
    before, nbytes, alive = resident_bytes(), model.nbytes, weakref.ref(words)
    assert nbytes > 4 * 12 * hidden * hidden

    if drop == "close":
        model.close()
    else:
        del model
    del words, table
    gc.collect()

    assert alive() is None
    assert before - resident_bytes() > nbytes / 2


def test_threads_that_share_an_encoder_get_the_bits_of_one(kernels):
    model = encoder(kernels)
    expected = model.run(LONG_IDS, LONG_ENDS)
    same = []

    def run() -> None:
        same.extend(np.array_equal(model.run(LONG_IDS, LONG_ENDS), expected) for _ in range(3))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert same == [True] * 9


def test_an_encoder_can_be_closed_while_a_thread_runs_it(any_kernels):
    model = encoder(any_kernels)
    expected = model.run(LONG_IDS, LONG_ENDS)
    is_running, same, ended = threading.Event(), [], []

    def run() -> None:
        try:
            while True:
                same.append(np.array_equal(model.run(LONG_IDS, LONG_ENDS), expected))
                is_running.set()
        except ValueError as exc:
            ended.append(str(exc))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    is_running.wait()
    model.close()
    for thread in threads:
        thread.join()

    assert all(same)
    assert ended == ["the encoder is closed."] * 2


SHARED = """
import os, sys, threading
import numpy as np
from poolkit_cpu_kernels import load
from tiny_models import encoder, refused

kernels = load()
kernels.set_threads(2)
model = encoder(kernels)
token_ids = np.resize(np.arange(50, dtype=np.int32), 4000)
cu_seqlens = np.arange(0, 4001, 40, dtype=np.int32)
expected = model.run(token_ids, cu_seqlens)

def run():
    while True:
        model.run(token_ids, cu_seqlens)

threading.Thread(target=run, daemon=True).start()
"""
FORK = """
for _ in range(5):
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(model.run(token_ids, cu_seqlens), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0
assert np.array_equal(model.run(token_ids, cu_seqlens), expected)
"""
INTERRUPT = """
print("running", flush=True)
run()
"""


def start(code: str) -> subprocess.Popen[str]:
    """Start a process in which a second thread computes all the time."""
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-W", "ignore", "-c", SHARED + code], env=environment, **pipes)


@pytest.mark.usefixtures("any_kernels")
def test_the_child_of_a_fork_starts_threads_of_its_own():
    with start(FORK) as process:
        _, log = process.communicate()

    assert (process.returncode, log) == (0, "")


@pytest.mark.usefixtures("any_kernels")
def test_ctrl_c_ends_a_process_whose_other_thread_computes():
    with start(INTERRUPT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGINT)
        _, log = process.communicate()

    assert process.returncode == -signal.SIGINT
    assert log.splitlines()[-1] == "KeyboardInterrupt"


def test_the_rows_of_tables_stay_the_callers(any_kernels):
    words = random(50, 64)
    table = tensors(words=words)
    model = any_kernels.encoder(SPEC, table, [layer()] * 2)
    before = model.run(TOKEN_IDS, CU_SEQLENS)

    words[TOKEN_IDS] += 1

    assert not np.array_equal(model.run(TOKEN_IDS, CU_SEQLENS), before)  # the table stands in memory once
