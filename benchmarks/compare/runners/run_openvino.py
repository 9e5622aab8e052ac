"""Runs OpenVINO itself, without a library around it: batches sorted by length, asynchronous on several streams."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from runner_protocol import packages, serve


def load(order):
    """Convert the encoder once; each number of streams compiles it for itself when it is first asked for."""
    import openvino
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModel, AutoTokenizer

    names = AutoTokenizer.from_pretrained(order["model"]).model_input_names
    tokenizer = Tokenizer.from_file(str(Path(order["model"]) / "tokenizer.json"))
    tokenizer.enable_truncation(256)
    encoder = AutoModel.from_pretrained(order["model"], dtype=torch.float32).eval()
    encoder.config.return_dict = False
    example = {name: torch.ones(2, 8, dtype=torch.int64) for name in names}
    converted = openvino.convert_model(encoder, example_input=example)
    del encoder
    core, compiled = openvino.Core(), {}
    pools_last = _pools_last(Path(order["model"]))

    def embed(texts, streams, batch_tokens):
        if streams not in compiled:
            compiled[streams] = core.compile_model(
                converted,
                "CPU",
                {"NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": order["threads"], "PERFORMANCE_HINT": "THROUGHPUT"},
            )
        queue = openvino.AsyncInferQueue(compiled[streams], streams)
        tokenizer.no_padding()
        encodings = tokenizer.encode_batch(texts)
        lengths = np.array([len(encoding.ids) for encoding in encodings])
        rows = [None] * len(texts)

        def keep(request, batch):
            states = request.get_output_tensor(0).data  # (texts, tokens, dim)
            for row, index in enumerate(batch):
                own = states[row, : lengths[index]].astype(np.float32)
                vector = own[-1] if pools_last else own.mean(0)
                rows[index] = vector / np.linalg.norm(vector)

        queue.set_callback(keep)
        for batch in _batches(lengths, batch_tokens):
            longest = lengths[batch].max()
            inputs = {name: np.zeros((len(batch), longest), np.int64) for name in names}
            for row, index in enumerate(batch):
                inputs["input_ids"][row, : lengths[index]] = encodings[index].ids
                inputs["attention_mask"][row, : lengths[index]] = 1
            queue.start_async(inputs, batch)
        queue.wait_all()
        return np.stack(rows)

    return embed, {"versions": packages("openvino", "transformers", "torch", "tokenizers")}


def _pools_last(folder):
    pooling = json.loads((folder / "1_Pooling" / "config.json").read_text())
    return pooling.get("pooling_mode") == "lasttoken" or bool(pooling.get("pooling_mode_lasttoken"))


def _batches(lengths, batch_tokens):
    """Return indices of texts of like length, longest first, so many tokens a batch with their padding."""
    batches, batch = [], []
    for index in np.argsort(-lengths, kind="stable"):
        if batch and (len(batch) + 1) * lengths[batch[0]] > batch_tokens:
            batches.append(batch)
            batch = []
        batch.append(int(index))
    return [*batches, batch]


serve(load)
