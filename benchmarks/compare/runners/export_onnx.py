"""Exports a model to ONNX: `export_onnx.py MODEL WORK FOLDER`, with the Python that has optimum."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from sentence_transformers import CrossEncoder, SentenceTransformer

model, work, folder = sys.argv[1:]
kind = SentenceTransformer if work == "embed" else CrossEncoder
kind(model, device="cpu", backend="onnx", model_kwargs={"export": True}).save_pretrained(folder)
path = Path(folder) / "tokenizer_config.json"
config = json.loads(path.read_text())
config.pop("max_length", None)  # 128, of one call long ago: fastembed takes it for the model's limit
path.write_text(json.dumps(config))
