"""The engine: prompts as token ids in, pooled arrays out. It knows nothing of HTTP or tasks' requests."""

from poolkit.engine.protocol import EncodedPrompt, Engine, EngineFactory, Tokenizer

__all__ = ["EncodedPrompt", "Engine", "EngineFactory", "Tokenizer"]
