"""Converts a model of transformers to OpenVINO, and checks at start-up that both give the same."""

from __future__ import annotations

import inspect
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from poolkit import Batch, Decision, ModelInfo, ResolvedParams, Segments, load_base_model
from poolkit_plugins.openvino._backbone import PaddedBackbone, RunRows

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

# Importing openvino sends an event to Google Analytics unless openvino_telemetry cannot be imported: then it uses a
# stub. What is served is not to call home.
_without_telemetry = "openvino" not in sys.modules and "openvino_telemetry" not in sys.modules
if _without_telemetry:
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # the import system's mark for "not there"
try:
    import openvino
finally:
    if _without_telemetry:
        del sys.modules["openvino_telemetry"]

__all__ = ["load"]

PRECISIONS = {"float32": openvino.Type.f32, "bfloat16": openvino.Type.bf16, "float16": openvino.Type.f16}

TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 6e-2}
"""The largest error of one token's hidden state, divided by its length: that of the torch engine's self-check."""

LENGTHS = (1, 5, 5, 23, 160, 160)
"""Tokens of the prompts of the self-check: rows with and without padding, and past a window of attention."""

ATTENDED = (1, 5, 5, 23, 160, 4)
"""Tokens of each that are attended to: the last prompt ends in a long expansion."""

OUT_OF_MEMORY = ("Failed to allocate", "can't alloc", "bad_alloc")
"""Words of OpenVINO's errors where a tensor, the code of a kernel or anything else finds no memory."""


def load(info: ModelInfo) -> PaddedBackbone | str:
    """Load a model, convert it and drop torch's; or return why it cannot be run.

    Raises ModelError where the weights cannot be loaded.
    """
    model = load_base_model(info)
    if any(getattr(module, "is_causal", False) for module in model.modules()):
        return "it runs encoders, and the model is a decoder"
    parameters = inspect.signature(type(model).forward).parameters
    takes_types = (getattr(model.config, "type_vocab_size", None) or 0) > 1 and "token_type_ids" in parameters
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if takes_types else [])]
    try:
        converted = _convert(model, names)
    except Exception as error:  # noqa: BLE001 - whatever the model's code or the conversion raises is the reason
        return f"OpenVINO cannot convert {type(model).__name__}: {type(error).__name__}: {error}"
    config, core = info.config, openvino.Core()
    is_native = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    pad_token_id = getattr(model.config, "pad_token_id", None) or 0
    padded = partial(
        PaddedBackbone, pad_token_id=pad_token_id, takes_types=takes_types, max_tokens=config.max_num_batched_tokens
    )
    plain, check = padded(_run_model(model)), _check_batch(info, pad_token_id)

    def compiled(dtype: str, source: str) -> PaddedBackbone | str:
        # Without the hint OpenVINO computes in bfloat16 wherever the CPU does so fast. One stream, its default: each
        # has layers of its own, and a pass that fails must be followed by another in the same stream.
        settings = {"INFERENCE_PRECISION_HINT": PRECISIONS[dtype], "NUM_STREAMS": 1}
        try:
            runnable = core.compile_model(converted, "CPU", settings)
        except RuntimeError as error:
            return f"OpenVINO cannot compile it in {dtype}: {str(error).strip().splitlines()[-1]}"
        if runnable.get_property("INFERENCE_PRECISION_HINT") != PRECISIONS[dtype]:
            return f"OpenVINO does not compute in {dtype} on this CPU"
        decisions = (
            Decision("library", f"openvino {openvino.__version__.partition('-')[0]}", "the engine openvino"),
            Decision("device", "cpu", "the engine openvino"),
            Decision("dtype", dtype, source),
            Decision("path", "padded", "the self-check: converted it agrees with transformers"),
        )
        backbone = padded(_run_compiled(runnable, names), decisions=decisions)
        return _difference(backbone, plain, check, dtype) or backbone

    if config.dtype == "bfloat16" and not is_native:
        return compiled("bfloat16", "dtype; OpenVINO emulates it, as this CPU does not run it fast")
    if config.dtype != "auto":
        return compiled(config.dtype, "dtype")
    if not is_native:
        return compiled("float32", "auto: this CPU does not run bfloat16 fast")
    backbone = compiled("bfloat16", "auto: this CPU runs bfloat16 fast")
    return compiled("float32", f"auto: bfloat16 does not work: {backbone}") if isinstance(backbone, str) else backbone


class _AttendToNoneAsTorchDoes(TorchFunctionMode):
    """Makes OpenVINO give zeros for a token that attends to none, as torch does, where attention is traced under it.

    Padding and a query's expansion attend to none where they are further from the text than a window of attention.
    OpenVINO by itself gives NaN, which the next layer spreads to every token of the row.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        mask = kwargs.get("attn_mask")
        is_attention = func is torch.nn.functional.scaled_dot_product_attention
        if not is_attention or not isinstance(mask, torch.Tensor) or mask.dtype != torch.bool:
            return func(*args, **kwargs)
        attends_to_none = ~mask.any(dim=-1, keepdim=True)  # (rows, 1, longest, 1)
        states: torch.Tensor = func(*args, **{**kwargs, "attn_mask": mask | attends_to_none})
        return states.masked_fill(attends_to_none, 0)  # (rows, heads, longest, dim)


def _convert(model: PreTrainedModel, names: list[str]) -> openvino.Model:
    """Trace the model on two rows, one of them padded. Rows and tokens of the result are of any number."""

    class LastHiddenState(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            output = self.model(**dict(zip(names, inputs, strict=True)))
            states: torch.Tensor = output.last_hidden_state
            return states

    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    examples = {"input_ids": mask, "attention_mask": mask, "token_type_ids": torch.zeros_like(mask)}
    with warnings.catch_warnings(), torch.inference_mode(), _AttendToNoneAsTorchDoes():
        # Tracing warns of each branch in a model's code; the self-check says whether one of them matters.
        warnings.simplefilter("ignore")
        return openvino.convert_model(LastHiddenState().eval(), example_input=tuple(examples[name] for name in names))


def _run_compiled(compiled: openvino.CompiledModel, names: list[str]) -> RunRows:
    """Return what runs rows by OpenVINO, those of several threads in turn, as its one stream does anyway.

    It raises MemoryError where rows do not fit.
    """
    request, lock = compiled.create_infer_request(), threading.Lock()
    nothing = [np.zeros((0, 0), np.int64)] * len(names)

    def run(rows: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        with lock:
            try:
                states: NDArray[np.float32] = request.infer([rows[name] for name in names], share_inputs=True)[0]
            except RuntimeError as error:
                # Layers up to the one that failed remember the sizes of this pass, the others those of the pass before,
                # and further rows of such sizes would fail. After a pass of sizes that no rows have, none would.
                request.infer(nothing, share_inputs=True)
                if any(sign in str(error) for sign in OUT_OF_MEMORY):
                    raise MemoryError(str(error)) from error
                raise
        return states

    return run


def _run_model(model: PreTrainedModel) -> RunRows:
    """Return what runs rows by transformers."""

    def run(rows: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        with torch.inference_mode():
            output = model(**{name: torch.from_numpy(values) for name, values in rows.items()})
            states: NDArray[np.float32] = output.last_hidden_state.numpy()
            return states

    return run


def _check_batch(info: ModelInfo, pad_token_id: int) -> Batch:
    """Return random tokens, none of them padding, in prompts of several lengths."""
    dice = np.random.default_rng(0)
    segments = Segments.of([min(length, info.max_model_len) for length in LENGTHS])
    attended = np.minimum(ATTENDED, segments.sizes, dtype=np.int32)
    token_ids = dice.integers(info.vocab_size, size=segments.tokens, dtype=np.int32)
    token_ids[token_ids == pad_token_id] = (pad_token_id + 1) % info.vocab_size
    types = dice.integers(2, size=segments.tokens, dtype=np.int32)
    params = [ResolvedParams()] * len(segments)
    is_query = np.zeros(len(segments), np.bool_)
    return Batch(token_ids, segments.cu_seqlens, is_query, params, token_type_ids=types, attention_lengths=attended)


def _difference(backbone: PaddedBackbone, plain: PaddedBackbone, batch: Batch, dtype: str) -> str | None:
    """Return how far the converted model is off, or None if it gives what transformers gives."""
    actual, expected = backbone(batch).tokens, plain(batch).tokens
    assert actual is not None
    assert expected is not None
    if actual.shape != expected.shape:
        return f"converted it gives shape {actual.shape}, with transformers {expected.shape}"
    lengths = np.linalg.norm(expected, axis=1).clip(min=1e-12)
    worst, allowed = float((np.linalg.norm(actual - expected, axis=1) / lengths).max()), TOLERANCE[dtype]
    if worst <= allowed:
        return None
    return f"converted it differs from transformers by {worst:.1e} of a token vector's length, more than {allowed:.0e}"
