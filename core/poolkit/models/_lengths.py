"""How long a prompt may be, by the model's files and the user's wish."""

from __future__ import annotations

from poolkit.config import ModelConfig
from poolkit.contract.model_info import Decision
from poolkit.errors import ModelError
from poolkit.models._files import read_object
from poolkit.models._sentence_transformers import SentenceTransformersFiles

__all__ = ["find_max_model_len"]

NO_MAXIMUM = 10**9
"""Tokenizers without a maximum write about 1e30 as model_max_length."""


def find_max_model_len(
    config: ModelConfig, files: SentenceTransformersFiles, *, room: int | None
) -> tuple[int, Decision]:
    """Return the longest prompt in tokens, special tokens included, and why.

    Args:
        config: what the user says.
        files: what sentence-transformers saved.
        room: how many tokens have a position; None where the model has no end of them.

    Raises ModelError where the user asks for more than there is room for, or nothing says how long a prompt may be.
    """
    limits = []
    if files.max_seq_length is not None:
        # To sentence-transformers this replaces what the tokenizer's own file says.
        limits.append((files.max_seq_length, str(files.settings_file)))
    else:
        tokenizer = read_object(files.folder / "tokenizer_config.json") or {}
        length = tokenizer.get("model_max_length")
        if isinstance(length, int | float) and length < NO_MAXIMUM:
            limits.append((int(length), "tokenizer_config.json"))
    if room is not None:
        limits.append((room, "config.json"))
        if config.max_model_len is not None and config.max_model_len > room:
            raise ModelError(
                f"max_model_len is {config.max_model_len}, but {config.model} has positions for {room} tokens "
                "(config.json). Set it to that or less."
            )
    if config.max_model_len is not None:
        limits = [(config.max_model_len, "max_model_len")]
    if not limits:
        raise ModelError(
            f"Nothing in the files of {config.model} says how long a prompt may be. Set max_model_len to its maximum."
        )
    longest, source = min(limits, key=lambda limit: limit[0])
    return longest, Decision("max length", f"{longest} tokens", source)
