"""The engine: tokenized prompts in, pooled arrays out. It knows nothing of HTTP or of a task's requests."""

from poolkit.engine.heads.masked_lm import load_masked_lm_head
from poolkit.engine.heads.task_head import Head, HeadFactory, Pooled
from poolkit.engine.passes.segments import Segments

__all__ = ["Head", "HeadFactory", "Pooled", "Segments", "load_masked_lm_head"]
