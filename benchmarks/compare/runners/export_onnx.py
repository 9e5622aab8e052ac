"""Exports a model to ONNX: `export_onnx.py MODEL WORK FOLDER`, with the Python that has optimum."""

from __future__ import annotations

import sys

from sentence_transformers import CrossEncoder, SentenceTransformer

model, work, folder = sys.argv[1:]
kind = SentenceTransformer if work == "embed" else CrossEncoder
kind(model, device="cpu", backend="onnx", model_kwargs={"export": True}).save_pretrained(folder)
