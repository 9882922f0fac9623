"""Access tokens checked: by the tenant's own APIs, and as subjects of an exchange."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from agentvault_tui.clock import Clock
from agentvault_tui.tenant.credentials import number
from agentvault_tui.tenant.keys import SigningKeys

_TYPES: Final = frozenset({"JWT", "at+jwt"})


@dataclass(frozen=True, slots=True)
class Access:
    """What a valid access token says."""

    sub: str
    client_id: str
    scopes: frozenset[str]
    audiences: frozenset[str]


class AccessTokens:
    """Reads the access tokens that one issuer signed."""

    def __init__(self, keys: SigningKeys, clock: Clock, issuer: str) -> None:
        """Know *issuer*'s keys."""
        self._keys = keys
        self._clock = clock
        self._issuer = issuer

    def read(self, token: str, audience: str) -> Access | None:
        """Return what *token* says if it is ours, in time, and for *audience*.

        An ID token is none: it has no ``scope``, and neither ``azp`` nor
        ``client_id`` (RFC 9068 section 4, RFC 8725 section 3.12).
        """
        found = self._keys.verified(token)
        if found is None:
            return None
        header, claims = found
        listed = _words(claims.get("aud"))
        client = claims.get("azp", claims.get("client_id"))
        sub, scope, expires = (
            claims.get("sub"),
            claims.get("scope"),
            number(claims, "exp"),
        )
        if (
            header.get("typ") not in _TYPES
            or claims.get("iss") != self._issuer
            or not isinstance(client, str)
            or not isinstance(sub, str)
            or not isinstance(scope, str)
            or expires is None
            or expires <= self._clock.now().timestamp()
            or audience not in listed
        ):
            return None
        return Access(sub, client, frozenset(scope.split()), frozenset(listed))

    def bearer(self, authorization: str, audience: str) -> Access | None:
        """Read the token of an ``Authorization`` header, as `bearer_token` finds it."""
        token = bearer_token(authorization)
        return None if token is None else self.read(token, audience)


def bearer_token(authorization: str) -> str | None:
    """Return the token of an ``Authorization`` header (RFC 6750 section 2.1).

    The scheme's case does not count (RFC 9110 section 11.1).
    """
    kind, _, token = authorization.partition(" ")
    return token if kind.lower() == "bearer" and token else None


def _words(value: Any) -> list[str]:
    listed = value if isinstance(value, list) else [value]
    return [word for word in listed if isinstance(word, str)]
