"""Proof Key for Code Exchange (RFC 7636): who redeems a code is who asked for it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import Final

_VERIFIER: Final = re.compile(r"[A-Za-z0-9._~-]{43,128}")


def proven(challenge: str | None, method: str, verifier: str | None) -> bool:
    """Check *verifier* both ways: one that nobody announced is refused, too.

    RFC 9700 section 2.1.1: else a code could be slipped in by leaving PKCE out.
    """
    if challenge is None or verifier is None:
        return challenge is verifier
    return proves(verifier, challenge, method)


def proves(verifier: str, challenge: str, method: str) -> bool:
    """Tell whether *verifier* is the one behind *challenge* (RFC 7636 section 4.6)."""
    if not _VERIFIER.fullmatch(verifier):
        return False
    if method == "S256":
        digest = hashlib.sha256(verifier.encode()).digest()
        made = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    else:
        made = verifier
    return hmac.compare_digest(made.encode(), challenge.encode())
