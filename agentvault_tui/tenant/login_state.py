"""The state of a sign-in on the login pages: sealed into each form, stored nowhere."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from agentvault_tui.clock import Clock
from agentvault_tui.errors import TenantError
from agentvault_tui.model import sha256_hex
from agentvault_tui.tenant.sealing import Seal

LoginKind = Literal["authorize", "connect"]

LIFETIME: Final = 600.0
"""Seconds from one page to the form it sends."""
_KIND: Final = "login state"
LONGEST: Final = 4_000
"""Characters a form's field may have."""


@dataclass(frozen=True, slots=True)
class LoginState:
    """What is asked for, and who signed in; only the tenant can read or make one."""

    kind: LoginKind
    client_id: str
    redirect_uri: str = ""
    scope: str = ""
    state: str | None = field(default=None, repr=False)
    audience: str | None = None
    nonce: str | None = field(default=None, repr=False)
    challenge: str | None = field(default=None, repr=False)
    request: str | None = field(default=None, repr=False)
    """The key of a connect request, which holds all the rest."""
    sub: str | None = None
    """Who has shown their password."""
    at: int = 0
    """When, in epoch seconds."""


class SealedStates:
    """Seals states into forms, each for one browser and some minutes.

    A form's state also protects against cross-site request forgery: it takes the page
    that held it, and the cookie of the browser that got the page.
    """

    def __init__(self, seal: Seal, clock: Clock) -> None:
        self._seal = seal
        self._clock = clock

    def close(self, state: LoginState, cookie: str) -> str:
        """Return what the next form brings back."""
        until = self._clock.now().timestamp() + LIFETIME
        said = json.dumps([until, asdict(state)]).encode()
        box = self._seal.close(_KIND, sha256_hex(cookie), 1, said)
        return base64.urlsafe_b64encode(box).decode()

    def open(self, sent: str, cookie: str | None) -> LoginState | None:
        """Return the state of a form; None if it is old, or another browser's."""
        if not cookie or len(sent) > LONGEST:
            return None
        try:
            box = base64.urlsafe_b64decode(sent.encode())
            raw = self._seal.open(_KIND, sha256_hex(cookie), 1, box)
        except (TenantError, binascii.Error, ValueError):
            return None
        until, members = json.loads(raw)
        # Not after its time, and not if the clock was set back by more than its life.
        left: float = until - self._clock.now().timestamp()
        known: dict[str, Any] = members
        return LoginState(**known) if 0 < left <= LIFETIME else None
