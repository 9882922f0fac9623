"""Requests that revoke or deny have places that no other request takes."""

from __future__ import annotations

import pytest

from agentvault_tui.broker.operators_api.streams import is_urgent


@pytest.mark.parametrize(
    ("method", "path", "urgent"),
    [
        ("POST", "/api/agents/revoke", True),
        ("POST", "/api/tokens/revoke", True),
        ("POST", "/api/agents/scopes", True),
        ("POST", "/api/agents/delegates", True),
        ("POST", "/api/agents/stepup", True),
        ("POST", "/api/changes", True),
        ("POST", "/api/calls/call_1/cut", True),
        ("GET", "/api/agents/scopes", False),
        ("POST", "/api/agents", False),
        ("POST", "/api/agents/restore", False),
        ("POST", "/api/policy/plan", False),
    ],
)
def test_revoking_and_denying_have_places_of_their_own(
    method: str, path: str, *, urgent: bool
) -> None:
    """What takes away waits for no request that reads, plans or only grants."""
    assert is_urgent({"method": method, "path": path}) is urgent
