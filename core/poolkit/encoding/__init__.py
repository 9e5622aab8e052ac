"""Turns prompts into token ids the engine can run: prompts put before, texts cut, special tokens added."""

from poolkit.encoding._reading import Readings
from poolkit.encoding.encoder import Encoder
from poolkit.encoding.images import ImageReader

__all__ = ["Encoder", "ImageReader", "Readings"]
