"""How long a model's vectors are, and which shorter lengths they may be cut to (Matryoshka models)."""

from __future__ import annotations

from collections.abc import Mapping

from poolkit.config import ModelConfig, PoolerConfig
from poolkit.contract.model_info import Decision
from poolkit.errors import ModelError

__all__ = ["default_dimensions", "matryoshka_dimensions"]


def matryoshka_dimensions(
    hf: Mapping[str, object], shared: Mapping[str, object], pooler: PoolerConfig
) -> tuple[int, ...] | None:
    """Return the lengths that vectors may be cut to: () for any, None where they may not be cut.

    Args:
        hf: config.json with the user's overrides.
        shared: config_sentence_transformers.json.
        pooler: what the user says.
    """
    if pooler.matryoshka is False:
        return None
    listed = hf.get("matryoshka_dimensions")
    if isinstance(listed, list) and listed:
        return tuple(sorted(int(dimension) for dimension in listed))
    if pooler.matryoshka or hf.get("is_matryoshka"):
        return ()
    cut = shared.get("truncate_dim")  # sentence-transformers saves it with a model whose vectors it cuts
    return (cut,) if isinstance(cut, int) else None


def default_dimensions(
    config: ModelConfig, shared: Mapping[str, object], size: int, matryoshka: tuple[int, ...] | None
) -> tuple[int | None, Decision]:
    """Return how long vectors are unless a request says otherwise (None: all of it), and why.

    Raises ModelError where the user asks for a length that the model does not allow.
    """
    asked, name = config.pooler_config.dimensions, config.model
    if asked is None:
        cut = shared.get("truncate_dim")
        if isinstance(cut, int) and cut < size and matryoshka is not None:
            return cut, Decision("dimensions", str(cut), "config_sentence_transformers.json truncate_dim")
        return None, Decision("dimensions", str(size), "config.json")
    if matryoshka is None:
        raise ModelError(
            f"pooler_config.dimensions is {asked}, but {name} is not a Matryoshka model: its vectors of "
            f"{size} numbers cannot be cut. Leave it out, or set pooler_config.matryoshka if it is one."
        )
    if asked > size or (matryoshka and asked not in matryoshka):
        allowed = ", ".join(map(str, matryoshka)) if matryoshka else f"1 to {size}"
        raise ModelError(f"pooler_config.dimensions is {asked}; {name} allows {allowed}.")
    return asked, Decision("dimensions", str(asked), "pooler_config.dimensions")
