"""Loads a model's weights: which device, which dtype, and no silent gaps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from poolkit.contract import Decision, ModelInfo
from poolkit.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from poolkit.config import ModelConfig

__all__ = ["Placement", "load_weights", "quiet_transformers", "read_config", "resolve_device", "resolve_dtype"]

HEADLESS = "AutoModel"
UNUSED_WEIGHTS = "pooler."
"""Many checkpoints lack the weights of BERT's pooler, and without a head nothing is made with it."""


@dataclass(frozen=True, slots=True)
class Placement:
    """The device and dtype of a model's weights, and the reasons.

    Attributes:
        device: holds them.
        dtype: of the backbone's; heads are in float32.
        decisions: for the start-up report.
    """

    device: torch.device
    dtype: torch.dtype
    decisions: tuple[Decision, ...]

    @classmethod
    def resolve(cls, config: ModelConfig) -> Placement:
        """Return what the operator says, or what suits the hardware."""
        device, device_decision = resolve_device(config)
        dtype, dtype_decision = resolve_dtype(config, device)
        return cls(device, dtype, (device_decision, dtype_decision))


def resolve_device(config: ModelConfig) -> tuple[torch.device, Decision]:
    """Return the device to run on, and why."""
    if config.device == "auto":
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return device, Decision("device", str(device), "auto: cuda where there is one")
    try:
        device = torch.device(config.device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as exc:
        reason = str(exc).partition("\n")[0]
        raise ConfigError(f"device is {config.device!r}, which torch cannot use here: {reason}") from exc
    return device, Decision("device", str(device), "device")


def resolve_dtype(config: ModelConfig, device: torch.device) -> tuple[torch.dtype, Decision]:
    """Return the dtype of the weights, and why. Raises ConfigError where torch has no such weights."""
    if config.dtype == "int8":
        raise ConfigError(
            "dtype is 'int8', which the engine 'torch' does not have. Set it to auto, float32 or bfloat16."
        )
    if config.dtype != "auto":
        return getattr(torch, config.dtype), Decision("dtype", config.dtype, "dtype")
    hardware = _fast_bfloat16(device)
    if hardware is None:
        return torch.float32, Decision("dtype", "float32", f"auto: this {device.type} does not run bfloat16 fast")
    return torch.bfloat16, Decision("dtype", "bfloat16", f"auto: {hardware} runs it fast")


def load_weights(info: ModelInfo, placement: Placement, *, kind: str = HEADLESS) -> PreTrainedModel:
    """Load the model without its head, or with the head that `kind` names ("AutoModelForMaskedLM").

    Raises ModelError where transformers cannot load it, or where the checkpoint lacks some of its weights.
    """
    import transformers

    config = info.config
    try:
        settings = read_config(info)
        with quiet_transformers():
            model, report = getattr(transformers, kind).from_pretrained(
                info.path,
                config=settings,
                dtype=placement.dtype,
                trust_remote_code=config.trust_remote_code,
                output_loading_info=True,
            )
    except (OSError, ValueError, ImportError) as exc:
        raise ModelError(f"transformers cannot load {info.name} from {info.path}: {exc}") from exc
    missing = sorted(name for name in report["missing_keys"] if kind != HEADLESS or UNUSED_WEIGHTS not in name)
    if missing:
        raise ModelError(
            f"The weights in {info.path} lack {len(missing)} tensors of {type(model).__name__}, "
            f"{missing[0]!r} among them. Fetch the model again; poolkit does not make up weights."
        )
    return model.to(placement.device).eval()  # type: ignore[no-any-return]  # from_pretrained is untyped


def read_config(info: ModelInfo) -> PreTrainedConfig:
    """Read a model's config.json as transformers does, with the operator's overrides."""
    from transformers import AutoConfig

    config = info.config
    settings: PreTrainedConfig = AutoConfig.from_pretrained(
        info.path, trust_remote_code=config.trust_remote_code, **config.hf_overrides
    )
    for key, value in config.hf_overrides.items():
        if not hasattr(settings, key):
            setattr(settings, key, value)  # transformers drops what its class does not declare
    settings.use_cache = settings.get_text_config().use_cache = False  # nothing is generated
    return settings


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' progress bar and notes to itself: what matters of them is in the start-up report."""
    from transformers.utils import logging

    verbosity, has_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if has_bar:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]  # transformers leaves it untyped


def _fast_bfloat16(device: torch.device) -> str | None:
    """Return which hardware runs bfloat16 faster than float32, or None."""
    if device.type == "cuda":
        return "this GPU" if torch.cuda.is_bf16_supported(including_emulation=False) else None
    if device.type == "cpu":
        # torch offers no public question for either.
        if torch.cpu._is_amx_tile_supported():
            return "AMX"
        if torch.cpu._is_avx512_bf16_supported():
            return "avx512_bf16"
    return None
