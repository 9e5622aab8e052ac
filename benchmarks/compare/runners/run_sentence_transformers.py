"""Runs sentence-transformers offline, on torch, ONNX Runtime or OpenVINO."""

from __future__ import annotations

from runner_protocol import packages, serve


def load(order):
    """Load a model on the backend and in the dtype that `load` names."""
    import torch

    backend = order["load"]["backend"]
    options = {"dtype": getattr(torch, order["load"]["dtype"])} if backend == "torch" else {"export": True}
    if backend == "torch":
        torch.set_num_threads(order["threads"])
    settings = {"device": order["device"], "model_kwargs": options}
    if backend != "torch":
        settings["backend"] = backend
    names = ("sentence-transformers", "transformers", "torch", "openvino", "onnxruntime", "optimum")
    return {"embed": embedder, "rerank": reranker, "late_interaction": late_interaction}[order["work"]](
        order["model"], settings
    ), {"versions": packages(*names)}


def embedder(model, settings):
    """Return what embeds texts."""
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(model, **settings)
    return lambda texts, batch_size: encoder.encode(
        texts, batch_size=batch_size, show_progress_bar=False, normalize_embeddings=True
    )


def reranker(model, settings):
    """Return what scores the documents of a query with a cross-encoder."""
    from sentence_transformers import CrossEncoder

    encoder = CrossEncoder(model, **settings)

    def score(pairs, batch_size):
        query, documents = pairs
        both = [(query, document) for document in documents]
        return encoder.predict(both, batch_size=batch_size, show_progress_bar=False, convert_to_tensor=True).float()

    return score


def late_interaction(model, settings):
    """Return what scores the documents of a query by MaxSim."""
    import torch
    from sentence_transformers import MultiVectorEncoder

    encoder = MultiVectorEncoder(model, **settings)

    def score(pairs, batch_size):
        query, documents = pairs
        options = {"batch_size": batch_size, "show_progress_bar": False}
        with torch.inference_mode():
            vectors = encoder.encode_document(documents, **options)
            return encoder.similarity(encoder.encode_query([query], **options), vectors)[0].float()

    return score


serve(load)
