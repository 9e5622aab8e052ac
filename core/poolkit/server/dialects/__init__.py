"""Dialects: thin codecs between a client's JSON and an operation's request and response. They hold no logic."""

from poolkit.server.dialects.classify import VLLMClassify
from poolkit.server.dialects.codec import Call, Decoded, Dialect
from poolkit.server.dialects.native import NativeOperation
from poolkit.server.dialects.openai import OpenAIEmbeddings
from poolkit.server.dialects.rerank import JinaRerank
from poolkit.server.dialects.score import VLLMScore
from poolkit.server.dialects.token_classify import TokenClassify
from poolkit.server.dialects.vllm import VLLMPooling

__all__ = [
    "Call",
    "Decoded",
    "Dialect",
    "JinaRerank",
    "NativeOperation",
    "OpenAIEmbeddings",
    "TokenClassify",
    "VLLMClassify",
    "VLLMPooling",
    "VLLMScore",
    "dialects",
]


def dialects(model: str) -> tuple[Dialect, ...]:
    """Return the dialects of the standard operations, for a model that is served under this name."""
    return (
        OpenAIEmbeddings(model),
        VLLMClassify(model),
        TokenClassify(model),
        VLLMScore(model),
        JinaRerank(model),
        VLLMPooling(model),
    )
