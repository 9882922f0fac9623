"""Shapes about the operator's own session: the person, and the session's rights."""

from __future__ import annotations

from msgspec import UNSET, UnsetType, field

from agentvault_tui.operator_api.shapes import Moment, WireShape
from agentvault_tui.operator_api.stepups import DeviceInfo


class UserSessionInfo(WireShape, kw_only=True):
    """An operator who is signed in."""

    sub: str
    name: str
    email: str | None
    roles: tuple[str, ...]
    amr: tuple[str, ...]
    since: Moment
    expires_at: Moment
    idle_at: Moment


class DeskInfo(WireShape, kw_only=True):
    """Who may approve here with a one-time code alone: see `Factor`."""

    name: str
    since: Moment
    """When both factors were proven."""
    fresh_until: Moment
    """From then on the password is asked for as well."""
    passkey_only: bool
    """Whether a one-time code approves nothing of high risk."""


class KeyChallenge(WireShape, kw_only=True):
    """The challenge for a security key at the caller's machine (WebAuthn)."""

    rp_id: str
    origin: str
    challenge: str
    """In base64url; bound to the request and good for five minutes."""
    credentials: tuple[str, ...]
    """Ids of the person's passkeys, in base64url."""


class MeInfo(WireShape, kw_only=True):
    """The person that the broker sees at the socket, and the missing rights."""

    local: str | UnsetType = UNSET
    """The local user's name; only in the answer to ``GET /api/auth/me``."""
    device: DeviceInfo | UnsetType = UNSET
    """Only in the answer to ``POST /api/auth/login``."""
    uid: str
    user: UserSessionInfo | None
    role: str | None = None
    refused: dict[str, str] = field(default_factory=dict)
    """The operator's missing rights, each with the reason."""
    pending: bool
    problem: str | None
    desk: DeskInfo | None = None
    """Null if no person signed in, and at Auth0."""
    page: str | None = None
    """Root of the approval pages that a browser of the caller's can open."""
