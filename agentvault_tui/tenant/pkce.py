"""Proof Key for Code Exchange (RFC 7636): who redeems a code is who asked for it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import Final

_VERIFIER: Final = re.compile(r"[A-Za-z0-9._~-]{43,128}")


def proven(challenge: str | None, verifier: str | None) -> bool:
    """Check *verifier* against *challenge* by S256 (RFC 7636 section 4.6).

    RFC 9700 section 2.1.1: a verifier that nobody announced is refused, too; else a
    code could be slipped in by leaving PKCE out.
    """
    if challenge is None or verifier is None:
        return challenge is verifier
    digest = hashlib.sha256(verifier.encode()).digest()
    made = base64.urlsafe_b64encode(digest).rstrip(b"=")
    return _VERIFIER.fullmatch(verifier) is not None and hmac.compare_digest(
        made, challenge.encode()
    )
