"""Runs infinity offline, through its synchronous engine."""

from __future__ import annotations

from runner_protocol import packages, serve


def load(order):
    """Return what embeds or scores; each batch size has an engine that is made when it is first asked for."""
    from infinity_emb import EngineArgs, SyncEngineArray

    engines = {}

    def engine(batch_size):
        if batch_size not in engines:
            engines[batch_size] = SyncEngineArray.from_args(
                [
                    EngineArgs(
                        model_name_or_path=order["model"],
                        served_model_name="model",
                        engine="torch",
                        device=order["device"],
                        batch_size=batch_size,
                        model_warmup=False,
                        bettertransformer=False,
                        **order["load"],
                    )
                ]
            )
        return engines[batch_size]

    def embed(texts, batch_size):
        vectors, _ = engine(batch_size).embed(model="model", sentences=texts).result()
        return vectors

    def score(pairs, batch_size):
        query, documents = pairs
        ranked, _ = engine(batch_size).rerank(model="model", query=query, docs=documents).result()
        scores = [0.0] * len(documents)
        for one in ranked:
            scores[one.index] = one.relevance_score
        return scores

    facts = {"versions": packages("infinity-emb", "sentence-transformers", "transformers", "torch")}
    return embed if order["work"] == "embed" else score, facts


serve(load)
