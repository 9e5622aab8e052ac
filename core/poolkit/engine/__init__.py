"""The engine: tokenized prompts in, pooled arrays out. It knows nothing of HTTP or of a task's requests.

    prompts ─► batch ─► backbone ─► hidden states ─► pooler ─► rows ─► finish ─► outputs

An engine plugin brings the backbone alone; the rest is shared by all.
"""

from poolkit.engine.base_model import BaseWithHead, load_base_model, load_base_with_head
from poolkit.engine.lm_heads import load_causal_lm_rows, load_masked_lm_head

__all__ = ["BaseWithHead", "load_base_model", "load_base_with_head", "load_causal_lm_rows", "load_masked_lm_head"]
