"""An agent that was cut off, as the broker tells how far tenant and providers are."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from agentvault_tui.clock import iso


def half_done(now: datetime) -> dict[str, Any]:
    """Some steps are done, an account is left for another, and two are on their way."""
    left = "workspace stays: mail-agent uses it too"
    again = iso(now + timedelta(seconds=16))
    return _told(
        now,
        _step("vault grant", ms=212.0),
        _step("connected accounts", "left", ms=1340.0, problem=left),
        _step("held refresh token", ms=1410.0),
        _step("refresh tokens", "pending", attempts=2, problem="busy", next_at=again),
        _step("client secret", "pending", attempts=0),
        _step("provider token", connection="google-oauth2", ms=388.0),
    )


def uncredited(now: datetime) -> dict[str, Any]:
    """What takes the Management API is not done, and the provider refused."""
    problem = "no Management API credential here: agentvault auth0 apply"
    lacking = {"problem": problem, "reason": "no_credential", "ms": 3.0}
    by_hand = (
        "revoke at google-oauth2 by hand, or wait until 14:44 UTC: "
        "google-oauth2 answered 400 unsupported_token_type"
    )
    provider = {"connection": "google-oauth2", "ms": 90.0, "problem": by_hand}
    return _told(
        now,
        _step("vault grant", "failed", **lacking),
        _step("connected accounts", ms=340.0),
        _step("held refresh token", ms=410.0),
        _step("refresh tokens", "failed", **lacking),
        _step("client secret", "failed", **lacking),
        _step("provider token", "failed", **provider),
    )


def _told(now: datetime, *steps: dict[str, Any]) -> dict[str, Any]:
    shares = {
        "connection": "workspace",
        "shared_with": [{"id": "agt_mail", "name": "mail-agent"}],
    }
    return {
        "status": "revoked",
        "upstream": list(steps),
        "connections": [shares, {"connection": "google-oauth2", "shared_with": []}],
        "shared_with": [{"id": "agt_mail", "name": "mail-agent"}],
        "outside_until": iso(now + timedelta(seconds=2467)),
    }


def _step(name: str, status: str = "confirmed", **more: Any) -> dict[str, Any]:
    return {"step": name, "status": status, "ms": None, "attempts": 1, **more}
