"""What the tenant says about itself (OpenID Connect Discovery), and its keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from authlib.oidc.discovery import OpenIDProviderMetadata
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from agentvault_tui.encoder import from_base64url
from agentvault_tui.errors import TenantError, TenantUnreachableError
from agentvault_tui.model.claims import DETAILS_TYPES
from agentvault_tui.text import visible
from agentvault_tui.vault.issuer import origin
from agentvault_tui.vault.reply import TenantReply

MAX_KEYS: Final = 20
"""Keys in one set: of a larger one nothing is believed."""
_MAX_KID: Final = 256
_MIN_BITS, _MAX_BITS = 2048, 8192

Keys = Mapping[str, RSAKey]
"""The tenant's signing keys; ``kid`` is an opaque name and nothing else."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """The endpoints we use; all on the issuer's own origin."""

    issuer: str
    device_authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    authorization_endpoint: str = ""
    """RFC 6749 section 3.1; empty where there is none."""
    revocation_endpoint: str = ""
    """RFC 7009; empty where there is none."""


def read_metadata(reply: TenantReply, issuer: str) -> Metadata:
    """Check a discovery document (OpenID Connect Discovery section 4.3).

    Raises:
        TenantUnreachableError: it is not one.
        TenantError: it is another issuer's, or names an endpoint on another origin.
    """
    body = _document(reply, "discovery document")
    said = body.get("issuer")
    # OpenID Connect Discovery section 4.3: exactly the issuer we asked.
    if said != issuer:
        raise TenantError(
            f"the tenant calls itself {visible(repr(said), 100)}, not {issuer}",
            "set tenant.issuer to what the tenant's discovery document says",
        )
    try:
        OpenIDProviderMetadata(body).validate_id_token_signing_alg_values_supported()
    except (ValueError, TypeError) as error:
        raise TenantError(
            f"the tenant's discovery document is not accepted: {visible(error, 120)}",
            "have it sign ID tokens with RS256",
        ) from error
    home = origin(issuer)
    for name, value in body.items():
        # One URI template is Auth0's: it has a connection in its path.
        if (name.endswith("_endpoint") or name == "jwks_uri") and (
            not isinstance(value, str)
            or origin(value.removesuffix("/{connectionName}")) != home
        ):
            raise TenantError(
                f"the tenant's {visible(name, 60)} is not on its own origin",
                "a tenant that sends its clients elsewhere is not trusted",
            )

    def endpoint(name: str) -> str:
        value = body.get(name)
        if not isinstance(value, str):
            raise TenantError(
                f"the tenant names no {name}", "enable the device flow on it"
            )
        return value

    return Metadata(
        issuer=issuer,
        device_authorization_endpoint=endpoint("device_authorization_endpoint"),
        token_endpoint=endpoint("token_endpoint"),
        jwks_uri=endpoint("jwks_uri"),
        authorization_endpoint=body.get("authorization_endpoint", ""),
        revocation_endpoint=body.get("revocation_endpoint", ""),
    )


def read_details_types(reply: TenantReply, issuer: str) -> frozenset[str]:
    """Read which types of authorization details the tenant's device flow shows.

    A document of the embedded tenant's own: Auth0 has none, which reads as no types.

    Raises:
        TenantUnreachableError: no answer to go by; what was read before still counts.
    """
    if reply.status in {408, 425, 429} or reply.status >= 500:
        raise TenantUnreachableError(
            f"the tenant does not say what it shows (status {reply.status})",
            "try again",
        )
    body = reply.body if reply.status == 200 else None
    if body is None or body.get("issuer") != issuer:
        return frozenset()
    listed = body.get(DETAILS_TYPES)
    types = listed if isinstance(listed, list) else []
    return frozenset(one for one in types if isinstance(one, str))


def read_keys(reply: TenantReply) -> Keys:
    """Check a key set (RFC 7517); what is not an RSA signing key is passed over.

    Raises:
        TenantUnreachableError: it is not a key set.
        TenantError: it has too many keys, or one that must not be public.
    """
    listed = _document(reply, "key set").get("keys")
    if not isinstance(listed, list) or not listed:
        raise TenantUnreachableError("the tenant's key set holds no keys")
    if len(listed) > MAX_KEYS:
        raise TenantError(f"the tenant's key set has more than {MAX_KEYS} keys")
    keys: dict[str, RSAKey] = {}
    for jwk in listed:
        if not isinstance(jwk, dict):
            raise TenantError("the tenant's key set holds something that is no key")
        if jwk.get("kty") == "oct" or "d" in jwk or "k" in jwk:
            # Whoever reads such a set can sign: none of it is believed.
            raise TenantError("the tenant's key set gives away a secret key")
        kid = jwk.get("kid")
        if jwk.get("kty") != "RSA" or jwk.get("use", "sig") != "sig":
            continue
        if jwk.get("alg", "RS256") != "RS256":
            continue
        if not isinstance(kid, str) or not 0 < len(kid) <= _MAX_KID or kid in keys:
            raise TenantError("the tenant's key set has a key without its own name")
        keys[kid] = _rsa(jwk)
    if not keys:
        raise TenantError("the tenant's key set has no RS256 key")
    return keys


def _rsa(jwk: dict[str, object]) -> RSAKey:
    """Take modulus and exponent alone: ``x5u`` and the like are never followed."""
    modulus, exponent = jwk.get("n"), jwk.get("e")
    if not isinstance(modulus, str) or not isinstance(exponent, str):
        raise TenantError("the tenant's key set has a malformed key")
    try:
        # Before a library sees it: leading zeros make a weak key look like a long one.
        raw = from_base64url(modulus)
        size = int.from_bytes(raw).bit_length()
        if not _MIN_BITS <= size <= _MAX_BITS:
            raise TenantError(f"the tenant signs with an RSA key of {size} bits")
        return RSAKey.import_key({"kty": "RSA", "n": modulus, "e": exponent})
    except (JoseError, ValueError, TypeError, OverflowError) as error:
        raise TenantError("the tenant's key set has a malformed key") from error


def _document(reply: TenantReply, what: str) -> dict[str, Any]:
    if reply.status != 200 or reply.body is None:
        raise TenantUnreachableError(
            f"the tenant's {what} cannot be read (status {reply.status})",
            "check tenant.issuer",
        )
    return reply.body
