"""Turns prompts into token ids the engine can run: prompts put before, texts truncated, special tokens added."""

from poolkit.tokenization.encoder import Encoder
from poolkit.tokenization.truncation import TokenizedTexts

__all__ = ["Encoder", "TokenizedTexts"]
