"""Turns prompts into token ids the engine can run: prompts put before, texts cut, special tokens added."""

from poolkit.encoding._reading import Readings
from poolkit.encoding.encoder import Encoder

__all__ = ["Encoder", "Readings"]
