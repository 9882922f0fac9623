"""Who may approve: by role, or by the list of subjects and verified addresses."""

from typing import Any

import pytest
from support.manual_clock import ManualClock

from agentvault_tui.vault import Identity, is_approver


@pytest.mark.parametrize(
    ("changes", "approvers", "allowed"),
    [
        ({}, (), True),
        ({"roles": ()}, (), False),
        ({"roles": ("Approver", "approvers")}, (), False),
        ({}, ("auth0|u1",), True),
        ({}, ("auth0|u2",), False),
        ({}, ("AUTH0|U1",), False),
        ({}, ("alice@acme.test",), True),
        ({}, ("Alice@ACME.test",), True),
        ({"email": "wei\u00df@acme.test"}, ("weiss@acme.test",), False),
        ({"email": "weiss@acme.test"}, ("wei\u00df@acme.test",), False),
        ({"email": "\u212aim@acme.test"}, ("kim@acme.test",), False),
        ({"email": "wei\u00df@acme.test"}, ("wei\u00df@acme.test",), True),
        ({"email_verified": False}, ("alice@acme.test",), False),
        ({"email": ""}, ("",), False),
        ({"email": "\u0430lice@acme.test"}, ("alice@acme.test",), False),
        ({"name": "alice@acme.test", "email": ""}, ("alice@acme.test",), False),
    ],
)
def test_approvers_are_named_by_subject_or_verified_email_or_role(
    clock: ManualClock, changes: Any, approvers: tuple[str, ...], allowed: bool
) -> None:
    """A list replaces the role; an address nobody verified opens nothing."""
    person = {
        "sub": "auth0|u1",
        "name": "Alice",
        "email": "alice@acme.test",
        "email_verified": True,
        "roles": ("approver",),
        "amr": ("mfa",),
        "authenticated_at": clock.now(),
        "claims": {},
        **changes,
    }
    assert is_approver(Identity(**person), approvers) is allowed
