"""The engine: prompts as token ids in, pooled arrays out. It knows nothing of HTTP or tasks' requests."""

from poolkit.engine.protocol import EncodedPrompt, Engine, EngineProvider, Tokenizer

__all__ = ["EncodedPrompt", "Engine", "EngineProvider", "Tokenizer"]
