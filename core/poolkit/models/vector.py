"""Reads what the model's vectors are like: how they are compared, and to which widths they may be cut."""

from __future__ import annotations

from poolkit.contract.model_files import SHARED, ModelFiles
from poolkit.contract.model_info import Decision
from poolkit.contract.model_specs import Similarity, VectorSpec
from poolkit.errors import ModelError, did_you_mean
from poolkit.models.pooling import VECTORS

__all__ = ["read_vector"]

SIMILARITY = "similarity_fn_name"
OF_TOKENS = (Similarity.MAXSIM, Similarity.MEAN_MAXSIM)
OF_VECTORS = tuple(similarity for similarity in Similarity if similarity not in OF_TOKENS)


def read_vector(
    files: ModelFiles, *, embedding_size: int, answered_size: int, is_multi_vector: bool
) -> tuple[VectorSpec, tuple[Decision, ...]]:
    """Return what the vectors are like, and why.

    Args:
        files: the model's.
        embedding_size: width of the vector of a text.
        answered_size: width of the vectors that the model is for: of a text, or of each token.
        is_multi_vector: True if each token has a vector.

    Raises ModelError where the similarity is unknown, or the operator asks for a width that the model does not allow.
    """
    similarity, similarity_decision = _similarity(files, is_multi_vector=is_multi_vector)
    matryoshka = _matryoshka_dimensions(files)
    dimensions, dimensions_decision = _default_dimensions(files, answered_size, matryoshka)
    spec = VectorSpec(
        size=embedding_size, similarity=similarity, dimensions=dimensions, matryoshka_dimensions=matryoshka
    )
    return spec, (*similarity_decision, dimensions_decision)


def _similarity(files: ModelFiles, *, is_multi_vector: bool) -> tuple[Similarity, tuple[Decision, ...]]:
    """Return how two answers are compared; a default that says nothing new is not worth a line of the report.

    A multi-vector model that names what compares single vectors (PyLate wrote cosine once) is compared by MaxSim.
    """
    named = files.shared.get(SIMILARITY)
    known = OF_TOKENS if is_multi_vector else OF_VECTORS
    if named is None or (is_multi_vector and named not in known):
        decision = Decision("similarity", known[0], "sentence-transformers' default", VECTORS)
        return known[0], (decision,) if is_multi_vector else ()
    if named not in known:
        names = [similarity.value for similarity in known]
        raise ModelError(
            f"{SHARED} has {SIMILARITY} {named!r}, which poolkit does not know.{did_you_mean(str(named), names)} It "
            f"knows {', '.join(names)}."
        )
    return Similarity(str(named)), (Decision("similarity", str(named), SHARED, VECTORS),)


def _matryoshka_dimensions(files: ModelFiles) -> tuple[int, ...] | None:
    """Return the widths that vectors may be cut to: () for any, None if they may not be cut."""
    pooler, hf_config = files.config.pooler_config, files.hf_config
    if pooler.matryoshka is False:
        return None
    listed = hf_config.get("matryoshka_dimensions")
    if isinstance(listed, list) and listed:
        return tuple(sorted(int(dimension) for dimension in listed))
    if pooler.matryoshka or hf_config.get("is_matryoshka"):
        return ()
    cut = files.shared.get("truncate_dim")  # sentence-transformers saves it with a model whose vectors it cuts
    return (cut,) if isinstance(cut, int) else None


def _default_dimensions(
    files: ModelFiles, size: int, matryoshka: tuple[int, ...] | None
) -> tuple[int | None, Decision]:
    """Return the width of vectors unless a request says otherwise; None for all of it."""
    asked, name = files.config.pooler_config.dimensions, files.config.model
    if asked is None:
        cut = files.shared.get("truncate_dim")
        if isinstance(cut, int) and cut < size and matryoshka is not None:
            return cut, Decision("dimensions", str(cut), "config_sentence_transformers.json truncate_dim", VECTORS)
        return None, Decision("dimensions", str(size), "config.json", VECTORS)
    if matryoshka is None:
        raise ModelError(
            f"pooler_config.dimensions is {asked}, but {name} is not a Matryoshka model: its vectors of "
            f"{size} numbers cannot be cut. Leave it out, or set pooler_config.matryoshka if it is one."
        )
    if asked > size or (matryoshka and asked not in matryoshka):
        allowed = ", ".join(map(str, matryoshka)) if matryoshka else f"1 to {size}"
        raise ModelError(f"pooler_config.dimensions is {asked}; {name} allows {allowed}.")
    return asked, Decision("dimensions", str(asked), "pooler_config.dimensions", VECTORS)
