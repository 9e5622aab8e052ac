"""Dialects: thin codecs between a client's JSON and an operation's request and response. They hold no logic."""

from poolkit.server.dialects.codec import Call, Decoded, Dialect
from poolkit.server.dialects.native import NativeOperation
from poolkit.server.dialects.openai import OpenAIEmbeddings
from poolkit.server.dialects.vllm import VLLMPooling

__all__ = ["Call", "Decoded", "Dialect", "NativeOperation", "OpenAIEmbeddings", "VLLMPooling", "dialects"]


def dialects(model: str) -> tuple[Dialect, ...]:
    """Return the dialects of the standard operations, for a model that is served under this name."""
    return (OpenAIEmbeddings(model), VLLMPooling(model))
