"""Names of the outputs beside the dense vector, which `head` and `processors` share."""

__all__ = ["MULTI_VECTOR", "TOKEN_WEIGHTS"]

TOKEN_WEIGHTS = "token_weights"  # noqa: S105 - the name of an output, not a secret
"""The highest weight above zero of each token id that the prompt holds: sparse, in order of the ids."""
MULTI_VECTOR = "multi_vector"
"""A unit vector for each token but the first. (tokens - 1, dim)"""
