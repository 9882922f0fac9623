"""The Actions' JavaScript, run under node with an event and an api that writes down."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from support.needs import needs

from agentvault_tui.model.claims import MFA_AT, ROLES
from agentvault_tui.vault.provision import actions

NODE = shutil.which("node")
pytestmark = needs(NODE, "node", "apt-get install nodejs")
RUNNER = Path(__file__).with_name("run-action.mjs")
DEVICE = "oauth2-device-code"
OTHERS = ["operator", "agentvault-root", "x", "helpdesk01-viewer"]
"""Roles that are none of ours; the last has a prefix as long as ours."""

Calls = list[list[Any]]
Run = Callable[[dict[str, Any]], Calls]


def run(script: actions.Script, events: list[dict[str, Any]]) -> list[Calls]:
    asked = [{"action": str(script.path), "event": event} for event in events]
    done = subprocess.run(
        [str(NODE), str(RUNNER)],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
    )
    answers: list[Calls] = json.loads(done.stdout)
    return answers


def login(**changes: Any) -> dict[str, Any]:
    """The event of a device-flow sign-in at the console by someone with a code."""
    event: dict[str, Any] = {
        "client": {
            "client_id": "c1",
            "name": "x",
            "metadata": {"agentvault": "console"},
        },
        "transaction": {"protocol": DEVICE, "requested_scopes": ["openid"]},
        "user": {"user_id": "auth0|1", "enrolledFactors": [{"type": "otp"}]},
        "authentication": {"methods": [{"name": "pwd", "timestamp": ago(1)}]},
    }
    return {**event, **changes}


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


def proved(seconds: float, kind: str = "otp", **changes: Any) -> dict[str, Any]:
    """The same sign-in, a second factor having been met so many seconds ago."""
    methods = [
        {"name": "pwd", "timestamp": ago(seconds + 5)},
        {"name": "mfa", "type": kind, "timestamp": ago(seconds)},
    ]
    return login(authentication={"methods": methods}, **changes)


def stamped(calls: Calls) -> dict[str, dict[str, Any]]:
    """The claims on each token."""
    found: dict[str, dict[str, Any]] = {"idToken": {}, "accessToken": {}}
    for token, name, value in calls:
        found[token][name] = value
    return found


def test_each_device_flow_of_the_console_is_challenged() -> None:
    """By factors that prove presence, also with one met earlier in the session."""
    (first, again) = run(actions.CHALLENGE, [login(), proved(3600)])
    factors = [{"type": t} for t in ("webauthn-roaming", "webauthn-platform", "otp")]
    assert first == [["challengeWithAny", factors]]
    assert again == first


def test_nothing_else_of_the_tenant_is_challenged() -> None:
    """Other applications, refreshes and exchanges pass: it would break them."""
    events = [
        login(client={"client_id": "other", "name": "AgentVault", "metadata": {}}),
        login(client={"client_id": "other", "name": "x"}),
        login(transaction={"protocol": "oauth2-refresh-token"}),
        login(transaction={"protocol": "oauth2-token-exchange"}),
        login(transaction={"protocol": "oidc-basic-profile"}),
        login(transaction=None),
    ]
    assert run(actions.CHALLENGE, events) == [[]] * len(events)


def test_a_person_without_a_factor_is_refused_and_never_enrolled() -> None:
    """A stolen password must not be enough to enrol a factor and approve with it."""
    without = login(user={"enrolledFactors": []})
    by_phone = login(user={"enrolledFactors": [{"type": "phone"}]})
    for calls in run(actions.CHALLENGE, [without, by_phone]):
        assert [call[0] for call in calls] == ["deny"]
        assert "second factor" in calls[0][1]


def test_a_fresh_factor_is_stamped_with_its_time_and_the_roles_on_both_tokens() -> None:
    """The broker reads the claims by the names of the model, in whole seconds."""
    roles = {"roles": ["agentvault-approver", *OTHERS]}
    before = int(datetime.now(UTC).timestamp()) - 3
    (calls,) = run(actions.PROOF, [proved(2, authorization=roles)])
    found = stamped(calls)
    assert found["idToken"] == found["accessToken"]
    assert before <= found["idToken"][MFA_AT] <= before + 3
    assert found["idToken"][ROLES] == ["approver"]


def test_the_newest_factor_counts_whatever_the_order() -> None:
    """An old factor of the session beside the fresh one does no harm."""
    methods = [
        {"name": "mfa", "type": "otp", "timestamp": ago(2)},
        {"name": "mfa", "type": "otp", "timestamp": ago(7200)},
    ]
    (calls,) = run(actions.PROOF, [login(authentication={"methods": methods})])
    assert MFA_AT in stamped(calls)["idToken"]


def test_without_a_fresh_factor_nobody_gets_in() -> None:
    """Whatever is missing, old or unreadable ends the sign-in, with no claim set."""
    soon = [{"name": "mfa", "type": "otp", "timestamp": "soon"}]
    events = {
        "no factor": login(),
        "no methods": login(authentication=None),
        "a minute old": proved(61),
        "an hour old": proved(3600),
        "from the future": proved(-86_400),
        "by phone": proved(1, kind="phone"),
        "by e-mail": proved(1, kind="email"),
        "by push": proved(1, kind="push-notification"),
        "by recovery code": proved(1, kind="recovery-code"),
        "of an unknown kind": proved(1, kind="a kind of tomorrow"),
        "without a time": login(authentication={"methods": soon}),
    }
    ends = run(actions.PROOF, list(events.values()))
    for name, calls in zip(events, ends, strict=True):
        assert [call[0] for call in calls] == ["deny"], name
        assert "fresh second factor" in calls[0][1], name


def unnamed(seconds: float, **more: Any) -> dict[str, Any]:
    """A second factor of so many seconds ago, of which no kind is told."""
    return {"name": "mfa", "timestamp": ago(seconds), **more}


def test_a_factor_that_is_not_named_is_refused_for_that_reason() -> None:
    """It may have been a text message; the person is not told to try again."""
    otp = {"name": "mfa", "type": "otp", "timestamp": ago(1)}
    ends = run(
        actions.PROOF,
        [
            login(authentication={"methods": methods})
            for methods in (
                [unnamed(1)],
                [unnamed(1, type=None)],
                [unnamed(1), {**otp, "timestamp": ago(600)}],
                [unnamed(600)],
                [unnamed(1), otp],
            )
        ],
    )
    assert [calls[0][0] for calls in ends[:4]] == ["deny"] * 4
    assert all("cannot tell which" in calls[0][1] for calls in ends[:3])
    assert "fresh second factor" in ends[3][0][1]
    assert MFA_AT in stamped(ends[4])["idToken"]
    # `broker.usecases.stepup.problem_of` shows so many characters of it.
    assert all(len(calls[0][1]) <= 120 for calls in ends[:4])


def test_a_refreshed_token_of_the_console_has_roles_and_no_time() -> None:
    """A refresh proves nothing about a person, but the roles are those of now."""
    event = proved(
        1,
        transaction={"protocol": "oauth2-refresh-token"},
        authorization={"roles": ["agentvault-viewer"]},
    )
    (calls,) = run(actions.PROOF, [event])
    assert stamped(calls)["idToken"] == {ROLES: ["viewer"]}


def test_other_applications_get_no_claim_of_ours() -> None:
    """What is not the console's passes through without a mark."""
    other = {"client_id": "other", "name": "x", "metadata": {"agentvault": "agent"}}
    assert run(actions.PROOF, [login(client=other)]) == [[]]


def machine(country: str | None = "DE", **metadata: str) -> dict[str, Any]:
    """The event of a client credentials exchange from a country."""
    geo = {} if country is None else {"countryCode": country}
    return {
        "client": {"client_id": f"c-{sorted(metadata.items())}", "metadata": metadata},
        "request": {"ip": "192.0.2.1", "geoip": geo},
        "transaction": {"requested_scopes": ["read:files"]},
    }


def refused_tokens(*events: dict[str, Any]) -> list[bool]:
    """Run the Action that limits tokens, one event after the other."""
    answered = run(actions.TOKEN_LIMITS, list(events))
    return [any(call[0] == "deny" for call in calls) for calls in answered]


def test_tokens_are_limited_by_country_and_an_unknown_one_is_refused() -> None:
    """Only for applications whose metadata says so, and never by a misspelt list."""
    fenced = {"agentvault_countries": "DE, FR"}
    assert refused_tokens(
        machine("DE", **fenced),
        machine("FR", **fenced),
        machine("US", **fenced),
        machine(None, **fenced),
        machine("US"),
        machine("DE", agentvault_countries="Germany DE"),
        machine("DE", agentvault_countries=""),
    ) == [False, False, True, True, False, True, True]


def test_tokens_are_limited_by_rate_for_each_application() -> None:
    """The third of two in a minute is refused; another application is not."""
    fast = machine(agentvault_per_minute="2")
    other = machine(agentvault_per_minute="3")
    assert refused_tokens(fast, fast, fast, other) == [False, False, True, False]
    for word in ("0", "-1", "many", "1.5", ""):
        assert refused_tokens(machine(agentvault_per_minute=word)) == [True]
