"""Turns prompts into token ids the engine can run: prompts put before, texts cut, special tokens added."""

from poolkit.tokenization.encoder import Encoder
from poolkit.tokenization.images import ImageReader
from poolkit.tokenization.truncation import Readings

__all__ = ["Encoder", "ImageReader", "Readings"]
