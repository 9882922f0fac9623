"""Refusals in three envelopes become one kind of error each, with a remedy."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.exchanges import NOON, answer, recorded

from agentvault_tui.errors import (
    TenantBusyError,
    TenantConflictError,
    TenantCredentialError,
    TenantError,
    TenantNotFoundError,
    TenantRefusedError,
    TenantScopeError,
    TenantUnreachableError,
)
from agentvault_tui.vault.refusals import read_refusal, refused
from agentvault_tui.vault.reply import TenantReply, read_reply


def reply(file: str, name: str) -> TenantReply:
    """Return a recorded answer as the wire reads it."""
    found = answer(file, name)
    body = found.body if isinstance(found.body, bytes) else json.dumps(found.body)
    headers = {key.lower(): value for key, value in found.headers.items()}
    return read_reply(
        found.status, headers, body if isinstance(body, bytes) else body.encode()
    )


@pytest.mark.parametrize(
    ("file", "name", "code", "kind"),
    [
        ("management", "inexistent_user", "inexistent_user", 404),
        ("management", "insufficient_scope", "insufficient_scope", 403),
        ("management", "invalid_token", "Unauthorized", 401),
        ("management", "action_not_found", "not_found", 404),
        ("management", "conflict", "auth0_idp_error", 409),
        ("management", "invalid_body", "invalid_body", 400),
        ("my_account", "conflict", "A0E-409-0001", 409),
        ("my_account", "invalid", "A0E-400-0003", 400),
        ("my_account", "insufficient_scope", "A0E-403-0002", 403),
        ("authentication", "no_service", "access_denied", 400),
        ("authentication", "wrong_secret", "invalid_client", 401),
    ],
)
def test_the_three_envelopes_are_told_apart(
    file: str, name: str, code: str, kind: int
) -> None:
    """Each API's refusal gives its code, and an error of its own kind."""
    kinds = {
        400: TenantRefusedError,
        401: TenantCredentialError,
        403: TenantScopeError,
        404: TenantNotFoundError,
        409: TenantConflictError,
    }
    found = read_refusal(reply(file, name))
    assert found.code == code
    error = refused(reply(file, name), "do it", NOON)
    assert type(error) is kinds[kind]
    assert isinstance(error, TenantRefusedError)
    assert (error.error, error.status) == (code, recorded(file)[name]["status"])
    assert "the tenant would not do it" in error.diagnosis()


@pytest.mark.parametrize(
    ("file", "name", "scopes"),
    [
        ("management", "insufficient_scope", ("delete:grants",)),
        ("management", "insufficient_scopes", ("read:logs", "read:logs_users")),
        ("my_account", "insufficient_scope", ("delete:me:connected_accounts",)),
    ],
)
def test_each_missing_scope_is_named(
    file: str, name: str, scopes: tuple[str, ...]
) -> None:
    """Whoever reads the error knows what to grant, without the documentation."""
    error = refused(reply(file, name), "do it", NOON, scope="another:scope")
    assert isinstance(error, TenantScopeError)
    assert error.scopes == scopes
    assert f"the scope {' or '.join(scopes)}" in error.remedy


def test_a_scope_the_tenant_does_not_name_is_the_calls_own() -> None:
    """A refusal without a list still tells what the call needs."""
    said = TenantReply(403, {"statusCode": 403, "errorCode": "insufficient_scope"})
    error = refused(said, "do it", NOON, scope="read:grants")
    assert isinstance(error, TenantScopeError)
    assert error.scopes == ("read:grants",)


@pytest.mark.parametrize(
    ("file", "name", "remedy"),
    [
        ("authentication", "no_device_grant", "enable the Device Code grant"),
        ("authentication", "no_service", "make an API with this identifier"),
        ("authentication", "no_client_grant", "with a client grant"),
        ("authentication", "wrong_secret", "secret or key"),
        ("authentication", "unknown_refresh_token", "sign in again"),
        ("authentication", "unmet_requirements", "second factor"),
        ("token_vault", "grant_disabled", "enable the Token Vault grant"),
        ("token_vault", "factor_required", "MFA policy to Never"),
    ],
)
def test_known_refusals_have_a_remedy(file: str, name: str, remedy: str) -> None:
    """A refusal that has a known cause comes with what to do about it."""
    assert remedy in refused(reply(file, name), "do it", NOON).remedy


@pytest.mark.parametrize(
    ("file", "name", "pause"),
    [
        ("management", "too_many_requests", 1.0),
        ("authentication", "custom_rate_limit", 17.0),
        ("authentication", "prose_rate_limit", 60.0),
        ("my_account", "too_many", 7.0),
    ],
)
def test_a_rate_limit_says_how_long_to_wait(file: str, name: str, pause: float) -> None:
    """`Retry-After` goes before the reset, which is an epoch of the tenant's clock."""
    error = refused(reply(file, name), "do it", NOON)
    assert isinstance(error, TenantBusyError)
    assert error.retry_after == pause


@pytest.mark.parametrize("status", [408, 425, 500, 502, 503, 504, 206, 226])
def test_outages_and_unexpected_successes_are_no_refusals(status: int) -> None:
    """What is no answer is worth asking again, whatever its body says."""
    error = refused(TenantReply(status, {"error": "access_denied"}), "do it", NOON)
    assert type(error) is TenantUnreachableError


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)
members = st.sampled_from(
    ["error", "error_description", "statusCode", "message", "errorCode"]
) | st.sampled_from(["type", "status", "title", "detail", "validation_errors"])


@pytest.mark.slow
@given(st.integers(400, 599), json_values | st.dictionaries(members, json_values))
@example(400, {"error": ": "})
def test_any_refusal_is_displayable(status: int, body: Any) -> None:
    """No body, however made up, ends in an exception or in a hidden character."""
    error = refused(TenantReply(status, body), "do it", NOON)
    assert isinstance(error, TenantError)
    assert error.diagnosis().isprintable()
    assert len(error.diagnosis()) < 1500
    if isinstance(error, TenantRefusedError):
        assert error.error


@given(st.text(max_size=300))
def test_scopes_are_read_from_any_sentence(text: str) -> None:
    """Scopes taken from a sentence of the tenant's are plain words, and few."""
    body = {"statusCode": 403, "message": f"Insufficient scope, expected: {text}"}
    scopes = read_refusal(TenantReply(403, body)).scopes
    assert len(scopes) <= 20
    assert all(one.isprintable() and " " not in one for one in scopes)


def test_a_cap_of_the_embedded_tenant_is_no_rate_limit() -> None:
    """Auth0 names no cap: of ours the refusal says which it is."""
    told = "16 device codes of this agent are waiting for a person, as many as may."
    body = {"error": "too_many_requests", "error_description": told, "cap": 16}
    error = refused(TenantReply(429, body), "start the device flow", NOON)
    assert type(error) is TenantRefusedError
    assert told.rstrip(".") in error.what
    assert "rate limit" not in error.diagnosis()
