"""Peculiarities of some architectures: poolkit's own entries of the table `family`."""

from __future__ import annotations

from collections.abc import Callable

from poolkit.contract import Output
from poolkit.contract.model_files import HeadKind, ModelFamily, ModelFiles
from poolkit.contract.model_specs import PoolingMode

__all__ = [
    "CAUSAL_LM",
    "DECODER",
    "EVERY_MODELS_OUTPUTS",
    "MPNET",
    "PROCESS_REWARD",
    "QWEN2_PROCESS_REWARD",
    "REWARD",
    "ROBERTA",
    "SEQUENCE_CLASSIFIER",
    "TOKEN_CLASSIFIER",
]

EVERY_MODELS_OUTPUTS = (Output.VECTOR, Output.TOKEN_VECTORS, Output.HIDDEN)

POSITIONS_AFTER_PADDING = frozenset(
    {
        "camembert",
        "data2vec-text",
        "ibert",
        "longformer",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    }
)
"""Model types that number a sequence's tokens from pad_id + 1."""

DECODERS = frozenset(
    {
        "bloom",
        "falcon",
        "gemma",
        "gemma2",
        "gemma3_text",
        "gpt2",
        "gpt_neo",
        "gpt_neox",
        "gptj",
        "llama",
        "mistral",
        "mixtral",
        "olmo",
        "olmo2",
        "opt",
        "phi",
        "phi3",
        "qwen2",
        "qwen2_moe",
        "qwen3",
        "qwen3_moe",
        "stablelm",
    }
)
"""Model types whose last token has seen all the others, so that it stands for them where no file says otherwise."""


def _ends_in(suffix: str) -> Callable[[ModelFiles], bool]:
    return lambda files: files.architecture.endswith(suffix)


def _after_padding(files: ModelFiles) -> int:
    pad_token_id = files.hf_config.get("pad_token_id")
    # 1 is the padding id that every one of these families was trained with.
    return pad_token_id + 1 if isinstance(pad_token_id, int) else 2


SEQUENCE_CLASSIFIER = ModelFamily(matches=_ends_in("ForSequenceClassification"), head=HeadKind.SEQUENCE_CLASSIFIER)
TOKEN_CLASSIFIER = ModelFamily(matches=_ends_in("ForTokenClassification"), head=HeadKind.TOKEN_CLASSIFIER)
CAUSAL_LM = ModelFamily(
    matches=_ends_in("ForCausalLM"),
    head=HeadKind.CAUSAL_LM,
    pooling=PoolingMode.LAST,
    adapters={"torch": "poolkit.engine.torch.families.causal_lm:CAUSAL_LM"},
)
DECODER = ModelFamily(matches=lambda files: files.model_type in DECODERS, pooling=PoolingMode.LAST)
ROBERTA = ModelFamily(matches=lambda files: files.model_type in POSITIONS_AFTER_PADDING, position_offset=_after_padding)
MPNET = ModelFamily(
    matches=lambda files: files.model_type == "mpnet",
    position_offset=lambda _: 2,  # whatever the padding id: its code knows no other
    adapters={"torch": "poolkit.engine.torch.families.mpnet:MPNET"},
)


def _rewards(files: ModelFiles, *, per_text: bool) -> tuple[Output, ...]:
    of_tokens = files.config.pooler_config.pooling_type in ("ALL", "STEP")
    every = EVERY_MODELS_OUTPUTS[1:] if of_tokens else EVERY_MODELS_OUTPUTS
    return (Output.LOGITS if per_text and not of_tokens else Output.TOKEN_LOGITS, *every)


REWARD = ModelFamily(
    matches=_ends_in("ForRewardModel"),
    head=HeadKind.REWARD,
    num_labels=1,
    outputs=lambda files: _rewards(files, per_text=True),
    adapters={"torch": "poolkit.engine.torch.families.rewards:REWARD_HEAD"},
)
"""Its head's code lies in the model's own repository: https://huggingface.co/Qwen/Qwen2.5-Math-RM-72B."""

PROCESS_REWARD = ModelFamily(
    matches=_ends_in("ForProcessRewardModel"),
    head=HeadKind.REWARD,
    num_labels=2,
    outputs=lambda files: _rewards(files, per_text=False),
    adapters={"torch": "poolkit.engine.torch.families.rewards:REWARD_HEAD"},
)
"""Likewise: https://huggingface.co/Qwen/Qwen2.5-Math-PRM-7B."""

QWEN2_PROCESS_REWARD = ModelFamily(
    matches=lambda files: files.architecture == "Qwen2ForProcessRewardModel",
    step_tag_id=151651,  # <extra_0>, which the model card puts after each step
)
