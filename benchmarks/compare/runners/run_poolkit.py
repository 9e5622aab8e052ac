"""Runs this checkout of poolkit offline."""

from __future__ import annotations

import numpy as np
from runner_protocol import packages, serve


def load(order):
    """Load a model with poolkit's defaults but for what `load` says."""
    from poolkit import LLM, PoolingParams

    task = {"embed": "embed", "rerank": "classify", "late_interaction": "token_embed"}[order["work"]]
    llm = LLM(order["model"], task=task, device=order["device"], **order["load"])
    whole = PoolingParams(truncate_prompt_tokens=-1)

    def embed(texts):
        return np.stack([one.outputs.embedding for one in llm.embed(texts, pooling_params=whole, use_tqdm=False)])

    def score(pairs):
        return [one.outputs.score for one in llm.score(*pairs, pooling_params=whole, use_tqdm=False)]

    # The folder of the model says nothing to those who read the results on another machine.
    told = [decision for decision in llm.decisions if decision.name != "model"]
    decisions = {decision.name: f"{decision.value} ({decision.source})" for decision in told}
    facts = {"versions": packages("poolkit", "torch", "poolkit-cpu-kernels"), "decisions": decisions}
    return embed if order["work"] == "embed" else score, facts


serve(load)
