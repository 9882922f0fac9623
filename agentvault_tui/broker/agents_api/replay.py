"""Which assertions were already used: each counts once (RFC 7523 section 3, jti)."""

from __future__ import annotations

import hashlib
from typing import Final

_SPAN: Final = 30
"""Seconds of expiry that share a bucket; a bucket is dropped whole."""


class FullError(Exception):
    """A client has used as many assertions as are remembered for one."""


class ReplayStore:
    """Remembers ``jti`` until its assertion has expired, bounded for each client.

    The bound is a client's own, so that one agent in a loop cannot keep another from
    authenticating; at the bound nothing is forgotten early, the client waits.
    """

    def __init__(self, per_client: int = 65_536) -> None:
        """Remember at most *per_client* live assertions of one client."""
        self._per_client = per_client
        self._buckets: dict[int, dict[str, set[bytes]]] = {}

    def use(self, client_id: str, jti: str, expires: float, now: float) -> bool:
        """Note that *jti* was used; return whether this was the first time.

        Args:
            client_id: a client known to us, so that strangers fill nothing.
            jti: the assertion's own name.
            expires: when, in epoch seconds, it is refused for its age anyway.
            now: epoch seconds.

        Raises:
            FullError: too many live ones of that client.
        """
        for index in [i for i in self._buckets if (i + 1) * _SPAN < now]:
            del self._buckets[index]
        digest = hashlib.sha256(jti.encode()).digest()[:16]
        used = 0
        for bucket in self._buckets.values():
            seen = bucket.get(client_id)
            if seen is not None:
                if digest in seen:
                    return False
                used += len(seen)
        if used >= self._per_client:
            raise FullError
        bucket = self._buckets.setdefault(int(expires // _SPAN), {})
        bucket.setdefault(client_id, set()).add(digest)
        return True
