"""The proof of an ID token: the person, the factor, and the time."""

from __future__ import annotations

import hmac
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, NewType

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey
from joserfc.jwt import JWTClaimsRegistry

from agentvault_tui import strict_json
from agentvault_tui.encoder import from_base64url
from agentvault_tui.errors import IdentityError
from agentvault_tui.model.claims import MFA_AT, ROLES, STEPUP
from agentvault_tui.text import visible

APPROVER: Final = "approver"
SKEW: Final = 30
"""Seconds by which the tenant's clock may be ahead of ours, or ours of its."""
MAX_TOKEN: Final = 8192
"""Characters."""
_MAX_LIFE: Final = 31 * 86_400
"""Seconds from ``iat`` to ``exp``."""
_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_SUBJECT: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")
_EVIDENCE: Final = (
    "iss", "sub", "aud", "azp", "iat", "exp", "amr", "acr", "auth_time", "sid", MFA_AT,
    STEPUP,
)  # fmt: skip
_FOREIGN: Final = ("events", "scope", "gty", "permissions", "client_id")
"""Claims of logout tokens and access tokens; no ID token has them."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A person, as the tenant vouches for them; texts are untrusted."""

    sub: str
    name: str
    email: str
    email_verified: bool
    roles: tuple[str, ...]
    amr: tuple[str, ...]
    authenticated_at: datetime
    """When they last proved a second factor, as far as the tenant says."""
    claims: dict[str, object] = field(repr=False)
    """The claims worth keeping as evidence."""


IdTokenClaims = NewType("IdTokenClaims", dict[str, Any])
"""Claims of an ID token that `verify` has verified."""


class PageAnswer(NamedTuple):
    """A person's answer at the approval page, other than an approval."""

    sub: str
    name: str
    roles: tuple[str, ...]
    denied: bool
    """Whether it is a no; else they want to approve with another repeat."""
    repeat: object = None
    """Which, as JSON; None: with none."""
    reason: str = ""
    """Of a no: it reaches the agent."""
    stop: bool = False
    """Whether the agent is to be revoked as well."""


def is_approver(identity: Identity, approvers: Sequence[str]) -> bool:
    """Check whether *identity* may approve.

    With a list, by subject or verified e-mail; with none, by the approver role.

    Args:
        identity: as the ID token proves it.
        approvers: subjects and e-mail addresses; empty: the role decides.

    Returns:
        True when they may approve step-ups.
    """
    if not approvers:
        return APPROVER in identity.roles
    return is_listed(approvers, identity.sub, verified_email(identity))


def is_listed(approvers: Sequence[str], sub: str, email: str | None) -> bool:
    """Check whether a list of approvers names a person by subject or e-mail."""
    if sub in approvers:
        return True
    return bool(email) and email in {_folded(entry) for entry in approvers}


def verified_email(identity: Identity) -> str | None:
    """Return a person's e-mail address as a list is searched for it, if verified."""
    return _folded(identity.email) if identity.email_verified else None


def _folded(email: str) -> str:
    """Return *email* in small letters, as far as that keeps two people apart.

    Unicode folds "weiß" to "weiss" and a Kelvin sign to "k": other mailboxes.
    """
    return email.lower() if email.isascii() else email


def key_id(raw: str) -> str:
    """Return the ``kid`` of a token with an accepted form and header.

    The algorithm and type are pinned (RFC 8725 sections 3.1 and 3.11); ``jku``,
    ``x5u`` and ``jwk`` are never looked at.

    Raises:
        IdentityError: it is not a token we would verify.
    """
    if len(raw) > MAX_TOKEN or not raw.isascii() or not _COMPACT.fullmatch(raw):
        raise _unsigned("it is not a signed token")
    try:
        head = raw.partition(".")[0]
        header = strict_json.loads(from_base64url(head))
    except ValueError as error:
        raise _unsigned("its header cannot be read") from error
    if not isinstance(header, dict) or header.get("alg") != "RS256":
        raise _unsigned("it is not signed with RS256")
    typ = header.get("typ", "JWT")
    if not isinstance(typ, str) or typ.upper() != "JWT" or "crit" in header:
        raise _unsigned("it is a token of another kind")
    kid = header.get("kid")
    if not isinstance(kid, str):
        raise _unsigned("it does not name its key")
    return kid


def verify(
    raw: str, key: RSAKey, *, issuer: str, client_id: str, now: datetime
) -> IdTokenClaims:
    """Verify an ID token's signature, and the claims that every one has.

    OpenID Connect Core section 3.1.3.7; `identity_of`, `login_of` and `page_answer_of`
    read its proof. *key* is the tenant's of the name that `key_id` read.

    Raises:
        IdentityError: with the stable reason.
    """
    claims = _signed(raw, key)
    _standard(claims, issuer, client_id, math.floor(now.timestamp()))
    return IdTokenClaims(claims)


def identity_of(
    claims: IdTokenClaims,
    *,
    now: datetime,
    not_before: datetime,
    mfa_at_required: bool = False,
    amr_required: bool = True,
) -> Identity:
    """Return who an ID token says it was, once its second factor is verified.

    ``amr`` and the times are covered by the tenant's signature alike. Auth0 documents
    ``amr`` for hosted logins and does not say whether a device flow's ID token has it,
    so where our own Action runs, the claim it sets is the proof and ``amr`` a record.

    Args:
        claims: of the token.
        now: the time.
        not_before: the person must have proved their second factor since then.
        mfa_at_required: whether only our Action's claim says when that was.
        amr_required: whether ``amr`` must say that there was a second factor.

    Raises:
        IdentityError: with the stable reason.
    """
    # RFC 8628 gives no nonce: that the token is newer than the flow binds it instead.
    # The tenant's clock shows whole seconds, so ours is floored to compare.
    since = math.floor(not_before.timestamp())
    if claims["iat"] < since:
        raise _stale("the ID token is older than the request")
    if amr_required:
        _second_factor(claims)
    seconds = math.floor(now.timestamp())
    authenticated = _authenticated_at(claims, seconds, required=mfa_at_required)
    if authenticated < since:
        raise _stale("the second factor was proved before the request was made")
    return Identity(
        sub=claims["sub"],
        name=_name(claims),
        email=_text(claims, "email"),
        email_verified=claims.get("email_verified") is True,
        roles=_words(claims, ROLES),
        amr=_words(claims, "amr"),
        authenticated_at=datetime.fromtimestamp(authenticated, UTC),
        claims={name: claims[name] for name in _EVIDENCE if name in claims},
    )


def login_of(claims: IdTokenClaims, nonce: str) -> tuple[str, str]:
    """Return subject and name, untrusted, of a sign-in that we began with *nonce*.

    It proves nothing for an approval: no factor is looked for.

    Raises:
        IdentityError: ``claims``: it answers another sign-in.
    """
    value = claims.get("nonce")
    # OpenID Connect Core section 3.1.3.7, number 11: it answers this sign-in alone.
    if not isinstance(value, str) or not hmac.compare_digest(
        value.encode(), nonce.encode()
    ):
        raise _claims("its nonce is not the one that was sent")
    return claims["sub"], _name(claims)


def page_answer_of(claims: IdTokenClaims, digest: str) -> PageAnswer:
    """Return a person's answer at the approval page other than an approval.

    It needs no second factor: neither a no nor the wish to approve more grants a thing.

    Raises:
        IdentityError: ``claims``: it does not answer the shown content, of *digest*.
    """
    value = claims.get(STEPUP)
    answer = dict(value) if isinstance(value, dict) else {}
    kind = answer.get("decision")
    repeat = answer.pop("repeat", None) if kind == "repeat" else None
    reason: object = answer.pop("reason", "") if kind == "deny" else ""
    stop = kind == "deny" and answer.pop("stop", False) is True
    if answer not in [{"digest": digest, "decision": k} for k in ("deny", "repeat")]:
        raise _claims("it answers something else")
    return PageAnswer(
        *(claims["sub"], _name(claims), _words(claims, ROLES)),
        denied=kind == "deny",
        repeat=repeat,
        reason=visible(reason, 300),
        stop=stop,
    )


def _words(claims: dict[str, Any], name: str) -> tuple[str, ...]:
    value = claims.get(name)
    listed = value if isinstance(value, list) else []
    return tuple(word[:100] for word in listed if isinstance(word, str))[:50]


def _signed(raw: str, key: RSAKey) -> dict[str, Any]:
    """Return the claims, once their signature is known to be the tenant's."""
    try:
        payload = jws.deserialize_compact(raw, key, algorithms=["RS256"]).payload
    except (JoseError, ValueError, TypeError) as error:
        raise _unsigned("its signature is not the tenant's") from error
    try:
        claims = strict_json.loads(payload, mend=True)
    except ValueError as error:
        raise _claims(f"they cannot be read ({visible(error, 80)})") from error
    if not isinstance(claims, dict):
        raise _claims("they are not an object")
    return claims


def _standard(claims: dict[str, Any], issuer: str, client_id: str, now: int) -> None:
    """Check the claims every ID token has, their types before their values."""
    for name in ("exp", "iat"):
        if type(claims.get(name)) is not int:
            raise _claims(f"{name} is missing or no whole number")
    registry = JWTClaimsRegistry(
        now=now,
        leeway=SKEW,
        iss={"essential": True, "value": issuer},
        sub={"essential": True},
        aud={"essential": True, "value": client_id},
        exp={"essential": True},
        iat={"essential": True},
    )
    try:
        registry.validate(claims)
    except (JoseError, ValueError, TypeError, OverflowError) as error:
        raise _claims(visible(error, 120)) from error
    if not claims["iat"] < claims["exp"] <= claims["iat"] + _MAX_LIFE:
        raise _claims("exp is out of bounds")
    subject = claims["sub"]
    if not isinstance(subject, str) or not _SUBJECT.fullmatch(subject):
        raise _claims("sub is not a plain string")
    _party(claims, client_id)


def _party(claims: dict[str, Any], client_id: str) -> None:
    """Check that it is an ID token, and was made for us (OpenID Connect Core 2)."""
    audience = claims["aud"]
    if isinstance(audience, list) and len(audience) > 1 and "azp" not in claims:
        raise _claims("it has several audiences and does not say for whom it was made")
    if claims.get("azp", client_id) != client_id:
        raise _claims("it was made for another client")
    for name in _FOREIGN:
        if name in claims:
            raise _claims(f"{name} belongs to a token of another kind")


def _second_factor(claims: dict[str, Any]) -> None:
    """Check that there was one, by `amr` (RFC 8176 section 2)."""
    amr = claims.get("amr")
    if isinstance(amr, list) and "mfa" in amr:
        return
    remedy = "sign in with a one-time code; on Auth0, agentvault auth0 apply"
    if MFA_AT in claims:
        # Any tenant can send a claim of that name: it counts where our Action sets it.
        remedy = (
            f"the tenant sends {MFA_AT} but no amr, and was not set up by this home: "
            "agentvault auth0 apply"
        )
    raise IdentityError("no_mfa", "the sign-in used no second factor", remedy)


def _authenticated_at(claims: dict[str, object], now: int, *, required: bool) -> int:
    """Return when the person proved who they are, in whole seconds.

    Auth0's device flow has no `auth_time`, so our Action's claim comes first.
    """
    name = MFA_AT if required or MFA_AT in claims else "auth_time"
    value = claims.get(name)
    if value is None and required:
        raise IdentityError(
            "no_mfa",
            f"the ID token has no {MFA_AT}: our Action proved no second factor",
            "agentvault auth0 doctor: is it bound to the login, and deployed?",
        )
    if value is None:
        raise _stale(
            "the tenant does not say when the second factor was proved",
            f"have the tenant set the claim {MFA_AT}",
        )
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _claims("the time of the second factor is no number")
    if not 0 <= value <= now + SKEW:
        raise _claims("the time of the second factor is out of bounds")
    return math.floor(value)


def _name(claims: dict[str, Any]) -> str:
    """Return the person's name, as far as the tenant has one."""
    texts = (_text(claims, name) for name in ("name", "nickname", "email"))
    return next(filter(None, texts), claims["sub"])


def _text(claims: dict[str, object], name: str) -> str:
    value = claims.get(name)
    return value[:200] if isinstance(value, str) else ""


def _unsigned(what: str) -> IdentityError:
    return IdentityError("signature", f"the ID token is not accepted: {what}")


def _claims(what: str) -> IdentityError:
    return IdentityError("claims", f"the ID token's claims are not accepted: {what}")


def _stale(what: str, remedy: str = "start again, and sign in afresh") -> IdentityError:
    return IdentityError("stale", what, remedy)
