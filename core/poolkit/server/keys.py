"""Lets requests with a known API key pass: keys are hashed, and compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from http import HTTPStatus

from pydantic import SecretStr

from poolkit.server.failures import RefusedError

__all__ = ["Keys"]


class Keys:
    """The keys that open the server. Without any, everybody may pass.

    Args:
        keys: keys without a name.
        named: keys by name. Plugins are told the name, and no key.
    """

    def __init__(self, keys: Iterable[str | SecretStr], named: Mapping[str, str | SecretStr] | None = None) -> None:
        self._hashes: list[tuple[str | None, bytes]] = [(None, _hash(key)) for key in keys]
        self._hashes += [(name, _hash(key)) for name, key in (named or {}).items()]

    def check(self, authorization: str | None) -> str | None:
        """Return the name of the key that the Authorization header carries; None for one without a name.

        Raises RefusedError (401) if it carries none of the keys.
        """
        if not self._hashes:
            return None
        scheme, _, token = (authorization or "").partition(" ")
        sent = _hash(token.strip())
        fits = [hmac.compare_digest(sent, known) for _, known in self._hashes]  # all of them: no early exit to time
        if scheme.lower() == "bearer" and any(fits):
            return self._hashes[fits.index(True)][0]
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


def _hash(key: str | SecretStr) -> bytes:
    return hashlib.sha256((key if isinstance(key, str) else key.get_secret_value()).encode()).digest()
