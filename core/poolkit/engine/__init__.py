"""The engine: prompts as token ids in, pooled arrays out. It knows nothing of HTTP or tasks' requests."""

from poolkit.engine.heads.masked_lm import load_masked_lm_head
from poolkit.engine.heads.task_head import Head, HeadFactory, Pooled
from poolkit.engine.passes.segments import Segments
from poolkit.engine.protocol import EncodedPrompt, Engine, EngineProvider, ImageInput, Tokenizer
from poolkit.engine.text.located import LocatedTokens
from poolkit.engine.text.pairs import PairTemplate
from poolkit.engine.text.text_tokens import TextToken

__all__ = [
    "EncodedPrompt",
    "Engine",
    "EngineProvider",
    "Head",
    "HeadFactory",
    "ImageInput",
    "LocatedTokens",
    "PairTemplate",
    "Pooled",
    "Segments",
    "TextToken",
    "Tokenizer",
    "load_masked_lm_head",
]
