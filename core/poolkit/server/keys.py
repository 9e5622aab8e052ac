"""Which requests may pass: API keys, hashed, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from http import HTTPStatus

from pydantic import SecretStr

from poolkit.server.failures import RefusedError

__all__ = ["Keys"]


class Keys:
    """The keys that open the server. Without any, everybody may pass."""

    def __init__(self, keys: Iterable[str | SecretStr]) -> None:
        self._hashes = [_hash(key if isinstance(key, str) else key.get_secret_value()) for key in keys]

    def check(self, authorization: str | None) -> None:
        """Raise RefusedError (401) unless the Authorization header carries one of the keys."""
        if not self._hashes:
            return
        scheme, _, token = (authorization or "").partition(" ")
        sent = _hash(token.strip())
        fits = [hmac.compare_digest(sent, known) for known in self._hashes]  # all of them: no early exit to time
        if scheme.lower() == "bearer" and any(fits):
            return
        if authorization is None:
            message = "This server needs an API key. Send it as  Authorization: Bearer <key>."
        else:
            message = "The API key is not one of this server's. Send a valid one as  Authorization: Bearer <key>."
        raise RefusedError(
            message,
            status=HTTPStatus.UNAUTHORIZED,
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
