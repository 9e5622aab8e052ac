"""Runs fastembed offline, on an ONNX file that sentence-transformers exported."""

from __future__ import annotations

import json
from pathlib import Path

from runner_protocol import packages, serve


def load(order):
    """Register the exported model under a name of its own and load it."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType
    from fastembed.rerank.cross_encoder import TextCrossEncoder

    options = {"specific_model_path": order["model"], "threads": order["threads"], "cuda": order["device"] == "cuda"}
    facts = {"versions": packages("fastembed", "onnxruntime", "tokenizers")}
    source = ModelSource(hf="benchmarks/model")
    if order["work"] == "embed":
        TextEmbedding.add_custom_model(
            "benchmarks/model", pooling=PoolingType.MEAN, normalization=True, sources=source, dim=_width(order["model"])
        )
        encoder = TextEmbedding("benchmarks/model", **options)
        return lambda texts, batch_size: list(encoder.embed(texts, batch_size=batch_size)), facts
    TextCrossEncoder.add_custom_model("benchmarks/model", sources=source)
    reranker = TextCrossEncoder("benchmarks/model", **options)

    def score(pairs, batch_size):
        import numpy as np

        logits = np.array(list(reranker.rerank(*pairs, batch_size=batch_size)))
        return 1 / (1 + np.exp(-logits))

    return score, facts


def _width(folder):
    return json.loads((Path(folder) / "config.json").read_text())["hidden_size"]


serve(load)
