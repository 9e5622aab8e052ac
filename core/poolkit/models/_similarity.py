"""Reads how the answers of a model are compared, as its sentence-transformers files say."""

from __future__ import annotations

from collections.abc import Mapping

from poolkit.contract.model_info import Decision
from poolkit.contract.model_specs import Similarity
from poolkit.errors import ModelError, did_you_mean

__all__ = ["read_similarity"]

KEY = "similarity_fn_name"
SOURCE = "config_sentence_transformers.json"
OF_TOKENS = (Similarity.MAXSIM, Similarity.MEAN_MAXSIM)
OF_VECTORS = tuple(one for one in Similarity if one not in OF_TOKENS)


def read_similarity(settings: Mapping[str, object], *, is_multi_vector: bool) -> tuple[Similarity, Decision]:
    """Return how two answers are compared, and why.

    A multi-vector model that names what compares single vectors (PyLate wrote cosine once) is compared by MaxSim.

    Raises ModelError where the name is unknown.
    """
    named = settings.get(KEY)
    known = OF_TOKENS if is_multi_vector else OF_VECTORS
    if named is None or (is_multi_vector and named not in known):
        default = known[0]
        return default, Decision("similarity", default, "sentence-transformers' default")
    if named not in known:
        names = [one.value for one in known]
        raise ModelError(
            f"{SOURCE} has {KEY} {named!r}, which poolkit does not know.{did_you_mean(str(named), names)} It knows "
            f"{', '.join(names)}."
        )
    return Similarity(str(named)), Decision("similarity", str(named), SOURCE)
