"""The operator's settings: how much of the texts the model reads, and how many at a time."""

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Settings"]


class Settings(BaseModel):
    """The table `[plugins.poolkit-jina-reranker-v3]` of poolkit.toml. The defaults are the model's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_tokens_per_query: int = Field(
        default=512, ge=1, description="Cut longer queries to so many tokens, unless a request says otherwise."
    )
    max_tokens_per_doc: int = Field(
        default=2048, ge=1, description="Cut longer documents to so many tokens, unless a request says otherwise."
    )
    max_docs_per_prompt: int = Field(
        default=125, ge=1, description="How many documents the model reads at a time, where so many fit."
    )
