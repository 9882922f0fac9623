"""What a person signs in for: it travels with the pages, sealed, and takes no room."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal

from agentvault_tui.clock import Clock
from agentvault_tui.errors import TenantError
from agentvault_tui.model import sha256_hex
from agentvault_tui.tenant.sealing import Seal

Kind = Literal["authorize", "connect"]

LIFETIME: Final = 600.0
"""Seconds from one page to the form it sends."""
_KIND: Final = "login errand"
LONGEST: Final = 4_000
"""Characters a form's field may have."""


@dataclass(frozen=True, slots=True)
class Errand:
    """How far a person has come, and where to; only the tenant can read or make one."""

    kind: Kind
    client_id: str
    redirect_uri: str = ""
    scope: str = ""
    state: str | None = field(default=None, repr=False)
    audience: str | None = None
    nonce: str | None = field(default=None, repr=False)
    challenge: str | None = field(default=None, repr=False)
    method: str | None = None
    mfa: bool = False
    """Whether a second factor is needed."""
    request: str | None = field(default=None, repr=False)
    """The key of a connect request, which holds all the rest."""
    sub: str | None = None
    """Who has shown their password."""
    at: int = 0
    """When they were done with all factors; 0: not yet."""

    def signed_in(self, sub: str) -> Errand:
        """Note that *sub*'s password was right."""
        return replace(self, sub=sub)

    def done(self, at: int) -> Errand:
        """Note that every factor was shown."""
        return replace(self, at=at)


class Errands:
    """Seals errands into forms, each for one browser and some minutes.

    A form's errand is at once what no other site can guess: it takes the page that
    held it, and the cookie of the browser that got the page.
    """

    def __init__(self, seal: Seal, clock: Clock) -> None:
        """Seal with a key of *seal*'s."""
        self._seal = seal
        self._clock = clock

    def close(self, errand: Errand, cookie: str) -> str:
        """Return what the next form brings back."""
        until = self._clock.now().timestamp() + LIFETIME
        said = json.dumps([until, asdict(errand)]).encode()
        box = self._seal.close(_KIND, sha256_hex(cookie), 1, said)
        return base64.urlsafe_b64encode(box).decode()

    def open(self, sent: str, cookie: str | None) -> Errand | None:
        """Return the errand of a form; None if it is old, or another browser's."""
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
        return Errand(**known) if 0 < left <= LIFETIME else None
