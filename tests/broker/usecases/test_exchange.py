"""Agents exchange for a provider's token, through policy, person and record."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from support.agents_http import Caller
from support.bench import OPERATOR, Bench
from support.rogue_tenant import TOKEN, Answer, rogue_tenant
from support.stepups import Gate
from support.token_vault import (
    BANK,
    GOOGLE,
    REFRESH,
    TO_PROVIDER,
    VAULT,
    Vaulted,
    exchange,
    recorded,
    vaulted,
)

from agentvault_tui.broker.floods import RATE, SPAN
from agentvault_tui.broker.usecases.revoke import (
    lift_panic,
    panic,
    restore_agent,
    revoke_agent,
)
from agentvault_tui.broker.usecases.scopes import change_scopes
from agentvault_tui.broker.vault_access import VaultAccess
from agentvault_tui.errors import LedgerUnwritableError
from agentvault_tui.home import put_private
from agentvault_tui.ledger import Ledger
from agentvault_tui.model import EventType, StepUpStatus
from agentvault_tui.policy import Policy
from agentvault_tui.settings import Settings

PROVIDER_TOKEN = "ya29.provider-token"
NOT_FOUND = "federated_connection_refresh_token_not_found"
FLOW_FAILED = "federated_connection_refresh_token_flow_failed"


@pytest.fixture
async def vault(bench: Bench) -> AsyncIterator[Vaulted]:
    async with rogue_tenant() as tenant, vaulted(bench, tenant) as vault:
        vault.answers(recorded("ok"))
        yield vault


async def hanging(
    vault: Vaulted, caller: Caller, *connection: str
) -> tuple[asyncio.Task[httpx.Response], asyncio.Event]:
    """Return an exchange that waits for the tenant, and what lets it go on."""
    release = asyncio.Event()
    vault.auth0.arrived.clear()
    vault.answers(Answer(recorded("ok").body, after=release))
    asking = asyncio.create_task(exchange(caller, *connection))
    await vault.auth0.arrived.wait()
    return asking, release


async def test_an_allowed_exchange_gives_the_providers_token(vault: Vaulted) -> None:
    """The answer is Auth0's, its life no longer than a lease, and it is recorded."""
    caller = await vault.connected()
    answer = await exchange(caller)
    body = answer.json()
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert body.pop("decision_id").startswith("dec_")
    assert body == {
        "access_token": PROVIDER_TOKEN,
        "scope": "https://www.googleapis.com/auth/calendar openid",
        "expires_in": 60,
        "issued_token_type": TO_PROVIDER,
        "token_type": "Bearer",
    }
    (asked,) = vault.auth0.sent(TOKEN)
    assert asked.form["subject_token"] == REFRESH
    assert (asked.form["client_id"], asked.form["connection"]) == ("app-agent", GOOGLE)
    decided, given = (await vault.bench.events())[-2:]
    assert (decided.type, decided.outcome) == (EventType.TOKEN_DECISION, "allowed")
    assert decided.detail["scope"] == "read:calendar write:calendar"
    assert given.type is EventType.TOKEN_EXCHANGED
    assert given.detail["connection"] == GOOGLE
    thumbprint = hashlib.sha256(PROVIDER_TOKEN.encode()).hexdigest()[:16]
    assert given.detail["token_sha256"] == thumbprint
    ends = vault.bench.clock.now() + timedelta(seconds=1377)
    assert vault.broker.registry.leases.outside_until(caller.agent.id) == ends


async def test_no_secret_is_in_the_ledger(vault: Vaulted) -> None:
    """Neither the provider's token nor the vault user's is in any file but sealed."""
    caller = await vault.connected()
    assert (await exchange(caller)).status_code == 200
    await vault.bench.events()
    for path in vault.bench.home.data.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert PROVIDER_TOKEN.encode() not in content, path
            assert REFRESH.encode() not in content, path
    assert vault.bench.home.vault_users.stat().st_mode & 0o777 == 0o600


async def test_a_form_with_extras_is_taken_as_well(vault: Vaulted) -> None:
    """Forms, unknown members, nulls and a login_hint change nothing."""
    caller = await vault.connected()
    form = {"requested_token_type": TO_PROVIDER, "connection": GOOGLE}
    by_form = await caller.post(
        "/oauth/token", grant_type=VAULT, login_hint="x", odd="1", **form
    )
    assert by_form.status_code == 200
    by_json = await exchange(
        caller, login_hint="104", organization=None, subject_token=None, audience="x"
    )
    assert by_json.status_code == 200


@pytest.mark.parametrize(
    "members",
    [
        {"connection": None},
        {"connection": ""},
        {"connection": "a b"},
        {"connection": "../x"},
        {"connection": "x" * 200},
        {"connection": "\u202egoogle"},
        {"connection": ["google-oauth2"]},
        {"requested_token_type": None},
        {"requested_token_type": "urn:ietf:params:oauth:token-type:access_token"},
    ],
)
async def test_what_makes_no_sense_is_malformed(
    vault: Vaulted, members: dict[str, Any]
) -> None:
    """A name no connection can have is refused before anything is decided."""
    caller = await vault.connected()
    answer = await exchange(caller, **members)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert vault.exchanges == 0


async def test_a_connection_nobody_described_is_denied_and_recorded(
    vault: Vaulted,
) -> None:
    """What nobody said the meaning of cannot be decided about, so the answer is no."""
    caller = await vault.connected()
    answer = await exchange(caller, "github")
    assert answer.status_code == 403
    assert answer.json()["reason"] == "unknown_connection"
    assert (await vault.bench.events())[-1].detail["connection"] == "github"
    assert vault.exchanges == 0


async def test_a_providers_token_performs_any_scope_of_its_connection(
    vault: Vaulted,
) -> None:
    """A rule about one of them as the action holds, though another is riskier."""
    caller = await vault.connected()
    broker = vault.broker
    least = min(
        broker.settings.connections[GOOGLE].scopes,
        key=lambda name: broker.deciding.policy.catalogue.get(name).risk.rank,  # type: ignore[union-attr]
    )
    forbid = (
        '@id("never") @why("no") forbid (principal, action, resource)'
        f' when {{ context.performs == "{least}" }};'
    )
    broker.deciding.policy = Policy(
        broker.deciding.policy.text + forbid, broker.deciding.policy.catalogue
    )
    answer = await exchange(caller)
    assert answer.json()["reason"] == "policy_forbids"
    assert vault.exchanges == 0


async def test_every_scope_of_the_connection_is_needed(vault: Vaulted) -> None:
    """The vault gives all its owner allowed, so one scope that is missing denies."""
    caller = await vault.connected("reader", "read:calendar")
    answer = await exchange(caller)
    assert answer.status_code == 403
    body = answer.json()
    assert (body["error"], body["reason"]) == ("access_denied", "scope_not_granted")
    assert body["error_description"]
    assert vault.exchanges == 0


async def test_an_agent_without_an_account_is_told_in_auth0s_words(
    vault: Vaulted,
) -> None:
    """SDKs match the code; and nobody is asked to approve the use of nothing."""
    caller = await vault.connected(connections=())
    for connection in (GOOGLE, BANK):
        answer = await exchange(caller, connection)
        assert answer.status_code == 401
        assert answer.json()["error"] == NOT_FOUND
        assert "www-authenticate" not in answer.headers
    assert vault.broker.stepups.open() == []
    assert (await vault.bench.events())[-1].reason == "not_connected"


@pytest.mark.parametrize(
    ("name", "status", "error", "reason"),
    [
        ("not_connected", 401, NOT_FOUND, None),
        (
            "provider_refused",
            401,
            "federated_connection_refresh_token_flow_failed",
            None,
        ),
        ("no_such_account", 401, NOT_FOUND, None),
        ("subject_refused", 401, NOT_FOUND, None),
        ("client_refused", 403, "access_denied", "tenant_client_refused"),
        ("grant_disabled", 403, "access_denied", "tenant_grant_disabled"),
        ("denied", 403, "access_denied", "tenant_denied"),
        ("factor_required", 403, "access_denied", "tenant_factor_required"),
    ],
)
async def test_a_refusal_of_the_tenant_becomes_the_agents_answer(
    vault: Vaulted, name: str, status: int, error: str, reason: str | None
) -> None:
    """What connecting again mends is 401, what an operator mends 403; both recorded."""
    caller = await vault.connected()
    vault.answers(recorded(name))
    answer = await exchange(caller)
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert answer.json().get("reason") == reason
    assert "mfa-token-secret" not in answer.text
    last = (await vault.bench.events())[-1]
    assert last.type is EventType.TOKEN_NOT_EXCHANGED
    assert vault.broker.registry.leases.outside_until(caller.agent.id) is None


@pytest.mark.parametrize(
    "broken",
    [
        Answer({"error": "x"}, 503),
        Answer(b"<html>"),
        Answer({"access_token": "x", "token_type": "mac", "expires_in": 9}),
        Answer({"access_token": PROVIDER_TOKEN, "token_type": "Bearer"}),
        Answer(raw=b"\x00garbage\r\n\r\n"),
        Answer({"error": "too_many_requests"}, 429, {"retry-after": "7"}),
        Answer(hang=True),
    ],
    ids=["503", "html", "mac", "endless", "garbage", "429", "slow"],
)
async def test_a_tenant_that_is_away_is_no_reason_to_reconnect(
    vault: Vaulted, broken: Answer
) -> None:
    """An outage is 503 with a time to come again, never 4xx or 429."""
    caller = await vault.connected()
    vault.broker.reaching.vault = VaultAccess(
        vault.bench.home, vault.auth0.issuer, vault.bench.clock, deadline=0.2
    )
    vault.answers(broken)
    answer = await exchange(caller)
    await vault.broker.reaching.vault.aclose()
    assert answer.status_code == 503
    assert answer.json()["error"] == "temporarily_unavailable"
    assert int(answer.headers["retry-after"]) >= 1
    last = (await vault.bench.events())[-1]
    assert (last.type, last.reason) == (EventType.TOKEN_NOT_EXCHANGED, "unavailable")


async def test_without_the_teams_key_an_exchange_is_sealed_and_nobody_reconnects(
    vault: Vaulted,
) -> None:
    """503 sealed until the key is there; it says what to do and names no file."""
    caller = await vault.connected()
    home, clock = vault.bench.home, vault.bench.clock
    shared = VaultAccess(home, vault.auth0.issuer, clock, shared=True)
    vault.broker.reaching.vault = shared
    vault.answers(recorded("ok"))
    for content in (None, b"k" * 32):  # none, and one that seals nothing of this
        if content is not None:
            put_private(home.team_key, content, replace=False)
        answer = await exchange(caller)
        assert (answer.status_code, answer.json()["error"]) == (503, "sealed")
        assert "agentvault team key import" in answer.json()["error_description"]
        assert str(home.data) not in answer.text
        last = (await vault.bench.events())[-1]
        assert (last.type, last.reason) == (EventType.TOKEN_NOT_EXCHANGED, "sealed")
        clock.advance(3)
    assert vault.exchanges == 0
    await shared.users.seal_anew()
    assert (await exchange(caller)).status_code == 200
    await shared.aclose()


async def test_a_no_is_not_asked_for_again_at_once(vault: Vaulted) -> None:
    """An agent in a loop hears the same for a moment, and the tenant nothing."""
    caller = await vault.connected()
    vault.answers(recorded("not_connected"))
    for _ in range(5):
        assert (await exchange(caller)).status_code == 401
    assert vault.exchanges == 1
    vault.answers(recorded("ok"))
    vault.bench.clock.advance(3)
    assert (await exchange(caller)).status_code == 200
    vault.answers(Answer({"error": "too_many_requests"}, 429, {"retry-after": "30"}))
    vault.bench.clock.advance(61)
    vault.broker.reaching.vault._deadline = 0.2
    busy = await exchange(caller)
    assert (busy.status_code, busy.headers["retry-after"]) == (503, "30")
    asked = vault.exchanges
    vault.bench.clock.advance(20)
    assert (await exchange(caller)).status_code == 503
    assert vault.exchanges == asked


async def test_others_do_not_feel_a_slow_tenant(vault: Vaulted) -> None:
    """While an exchange hangs, another agent and the same one are served."""
    caller, other = await vault.connected(), await vault.caller("other")
    asking, release = await hanging(vault, caller)
    assert (await other.token()).status_code == 200
    assert (await caller.token()).status_code == 200
    release.set()
    assert (await asking).status_code == 200


async def test_a_token_is_kept_for_a_lease_and_no_longer(vault: Vaulted) -> None:
    """Within it the vault is not asked again and the answer's life shrinks with it."""
    caller = await vault.connected()
    assert (await exchange(caller)).json()["expires_in"] == 60
    vault.bench.clock.advance(50)
    assert (await exchange(caller)).json()["expires_in"] == 10
    assert vault.exchanges == 1
    vault.bench.clock.advance(10)
    assert (await exchange(caller)).json()["expires_in"] == 60
    assert vault.exchanges == 2


async def test_a_token_about_to_end_is_told_so(vault: Vaulted) -> None:
    """What has 7 s left is not said to have 60."""
    caller = await vault.connected()
    vault.answers(recorded("ok", expires_in=7))
    assert (await exchange(caller)).json()["expires_in"] == 7
    vault.bench.clock.advance(8)
    await exchange(caller)
    assert vault.exchanges == 2


async def test_two_at_once_ask_the_vault_once(vault: Vaulted) -> None:
    """The second waits for the first's token; each has its own decision."""
    caller = await vault.connected()
    first, second = await asyncio.gather(exchange(caller), exchange(caller))
    assert first.json()["access_token"] == second.json()["access_token"]
    assert first.json()["decision_id"] != second.json()["decision_id"]
    assert vault.exchanges == 1
    assert len(await vault.bench.events("token.exchanged")) == 2


async def test_one_agent_never_gets_anothers_token(vault: Vaulted) -> None:
    """What is kept is kept for one agent: the next one's client asks for itself."""
    first, second = await vault.connected("first"), await vault.connected("second")
    await exchange(first)
    vault.answers(recorded("not_connected"))
    assert (await exchange(second)).status_code == 401
    assert vault.auth0.sent(TOKEN)[-1].form["client_id"] == "app-second"


@pytest.mark.parametrize("how", ["revoke", "panic", "ungrant"])
async def test_what_comes_back_after_a_cut_never_leaves(
    vault: Vaulted, how: str
) -> None:
    """Revoked while the exchange is on the wire, the agent gets a no and no token."""
    caller = await vault.connected()
    agent_id, broker = caller.agent.id, vault.broker
    asking, release = await hanging(vault, caller)
    if how == "revoke":
        await revoke_agent(broker, agent_id, "", OPERATOR)
    elif how == "panic":
        await panic(broker, "drill", OPERATOR)
    else:
        cut = frozenset({"write:calendar"})
        await change_scopes(broker, agent_id, frozenset(), cut, OPERATOR)
    release.set()
    answer = await asking
    assert answer.status_code == 403
    assert PROVIDER_TOKEN not in answer.text
    assert await vault.bench.events("token.exchanged") == []
    assert len(await vault.bench.events("token.not_exchanged")) == 1
    assert broker.registry.leases.outside_until(agent_id) is None


async def test_a_cut_while_the_delivery_is_recorded_wins(
    vault: Vaulted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Revoked between record and answer, the agent gets no token either."""
    caller = await vault.connected()
    gate = Gate(vault.bench, monkeypatch, EventType.TOKEN_EXCHANGED)
    asking = asyncio.create_task(exchange(caller))
    await gate.reached.wait()
    await revoke_agent(vault.broker, caller.agent.id, "", OPERATOR)
    gate.open.set()
    answer = await asking
    assert answer.status_code == 403
    assert answer.json()["reason"] == "agent_revoked"


@pytest.mark.parametrize("how", ["revoke", "panic", "ungrant"])
async def test_what_is_kept_goes_with_a_cut(vault: Vaulted, how: str) -> None:
    """After a revocation and a restore, the vault is asked anew."""
    caller = await vault.connected()
    agent_id, broker = caller.agent.id, vault.broker
    await exchange(caller)
    if how == "revoke":
        await revoke_agent(broker, agent_id, "", OPERATOR)
        assert (await exchange(caller)).json()["reason"] == "agent_revoked"
        await restore_agent(broker, agent_id, OPERATOR)
    elif how == "panic":
        await panic(broker, "drill", OPERATOR)
        assert (await exchange(caller)).json()["reason"] == "panic"
        await lift_panic(broker, OPERATOR)
    else:
        cut = frozenset({"write:calendar"})
        await change_scopes(broker, agent_id, frozenset(), cut, OPERATOR)
        await change_scopes(broker, agent_id, cut, frozenset(), OPERATOR)
    assert vault.exchanges == 1
    assert (await exchange(caller)).status_code == 200
    assert vault.exchanges == 2


async def test_a_delivery_that_cannot_be_recorded_gives_no_token(
    vault: Vaulted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the delivery cannot be recorded, the token does not leave."""
    caller = await vault.connected()
    commit = Ledger.commit

    async def failing(self: Ledger, *drafts: Any, **more: Any) -> Any:
        if any(draft.type is EventType.TOKEN_EXCHANGED for draft in drafts):
            raise LedgerUnwritableError("the disk is full")
        return await commit(self, *drafts, **more)

    monkeypatch.setattr(Ledger, "commit", failing)
    answer = await exchange(caller)
    assert answer.status_code == 503
    assert PROVIDER_TOKEN not in answer.text


async def test_an_approval_delivers_once(vault: Vaulted) -> None:
    """Escalated, approved, asked again: the token, once; then a person again."""
    caller = await vault.connected()
    held = await exchange(caller, BANK)
    body = held.json()
    assert held.status_code == 403
    assert body["error"] == "insufficient_user_authentication"
    assert body["error_description"]
    again = await exchange(caller, BANK)
    assert again.json()["auth_req_id"] == body["auth_req_id"]
    assert vault.exchanges == 0
    stepup = vault.broker.stepups.get(body["auth_req_id"])
    assert (stepup.action, stepup.resource) == ("send:payment", "connection:bank")
    assert stepup.parameters["user"] == "auth0|ursula"
    await vault.approve(body["auth_req_id"])
    ((shown,),) = vault.bench.tenant.shown
    assert shown["connection"] == BANK
    given = await exchange(caller, BANK)
    assert given.status_code == 200
    assert given.json()["decision_id"] == stepup.decision_id
    stepup = vault.broker.stepups.get(body["auth_req_id"])
    assert stepup.status is StepUpStatus.REDEEMED
    assert vault.broker.registry.tokens_of(caller.agent.id) == []
    after = await exchange(caller, BANK)
    assert after.json()["error"] == "insufficient_user_authentication"
    assert after.json()["auth_req_id"] != body["auth_req_id"]
    assert (await caller.poll(body["auth_req_id"])).json()["error"] == "invalid_grant"


async def test_a_poll_gets_what_was_approved_as_well(vault: Vaulted) -> None:
    """Whoever polls for the approval gets the provider's token, not one of ours."""
    caller = await vault.connected()
    held = (await exchange(caller, BANK)).json()["auth_req_id"]
    assert (await caller.poll(held)).json()["error"] == "authorization_pending"
    await vault.approve(held)
    given = await caller.poll(held)
    assert given.status_code == 200
    assert given.json()["access_token"] == PROVIDER_TOKEN
    assert given.json()["issued_token_type"] == TO_PROVIDER
    assert (await caller.poll(held)).json()["error"] == "invalid_grant"


async def test_two_that_come_for_one_approval_get_it_once(vault: Vaulted) -> None:
    """A poll and a repeated exchange at once: one token, and one new request."""
    caller = await vault.connected()
    held = (await exchange(caller, BANK)).json()["auth_req_id"]
    await vault.approve(held)
    answers = await asyncio.gather(
        exchange(caller, BANK), exchange(caller, BANK), caller.poll(held)
    )
    assert sorted(a.status_code == 200 for a in answers) == [False, False, True]
    assert vault.exchanges == 1


@pytest.mark.slow
async def test_an_outage_does_not_spend_an_approval(vault: Vaulted) -> None:
    """While the tenant is away the approval waits; nothing else is granted."""
    caller = await vault.connected()
    held = (await exchange(caller, BANK)).json()["auth_req_id"]
    await vault.approve(held)
    vault.answers(Answer({}, 503))
    vault.broker.reaching.vault._deadline = 0.2
    assert (await exchange(caller, BANK)).status_code == 503
    assert (await caller.poll(held)).status_code == 503
    vault.answers(recorded("ok"))
    vault.bench.clock.advance(3)
    assert (await exchange(caller, BANK)).status_code == 200


async def test_a_revoked_approval_gives_nothing(vault: Vaulted) -> None:
    """A cut while the approved exchange is on the wire ends approval and token."""
    caller = await vault.connected()
    held = (await exchange(caller, BANK)).json()["auth_req_id"]
    await vault.approve(held)
    asking, release = await hanging(vault, caller, BANK)
    await revoke_agent(vault.broker, caller.agent.id, "", OPERATOR)
    release.set()
    assert (await asking).status_code == 403
    await restore_agent(vault.broker, caller.agent.id, OPERATOR)
    assert (await exchange(caller, BANK)).status_code == 403
    assert (await caller.poll(held)).status_code == 400


async def test_an_approval_is_for_one_account(vault: Vaulted) -> None:
    """Connected anew as someone else meanwhile, the approval is for nothing."""
    caller = await vault.connected()
    held = (await exchange(caller, BANK)).json()["auth_req_id"]
    await vault.approve(held)
    accounts = vault.broker.registry.accounts
    account = accounts.get(caller.agent.id, BANK)
    assert account is not None
    accounts.put(replace(account, user="auth0|mallory", user_name="Mallory"))
    assert (await exchange(caller, BANK)).status_code == 403
    assert (await caller.poll(held)).status_code == 401
    assert vault.exchanges == 0


async def test_a_look_alike_request_shares_no_approval(vault: Vaulted) -> None:
    """An ordinary request that names the connection's resource is another request."""
    caller = await vault.connected()
    held = (await exchange(caller, BANK)).json()["auth_req_id"]
    plain = await caller.token(
        "read:finance send:payment", resource=f"connection:{BANK}"
    )
    assert plain.json()["auth_req_id"] != held
    await vault.approve(plain.json()["auth_req_id"])
    assert (await exchange(caller, BANK)).status_code == 403
    assert vault.exchanges == 0


@pytest.mark.slow
async def test_a_sealed_token_that_was_moved_does_not_open(vault: Vaulted) -> None:
    """Another agent's sealed token under one's own name is none."""
    victim, thief = await vault.connected("victim"), await vault.connected("thief")
    path = vault.bench.home.vault_users
    kept = json.loads(path.read_text())
    kept[thief.agent.id] = kept[victim.agent.id]
    path.write_text(json.dumps(kept))
    answer = await exchange(thief)
    assert answer.status_code == 401
    assert vault.exchanges == 0
    assert (await exchange(victim)).status_code == 200


async def test_the_metadata_names_the_grant_where_there_are_connections(
    vault: Vaulted,
) -> None:
    """Discovery says what is served, and nothing that is not."""
    url = "/.well-known/oauth-authorization-server"
    assert VAULT in (await vault.http.get(url)).json()["grant_types_supported"]
    vault.broker.settings = Settings()
    assert VAULT not in (await vault.http.get(url)).json()["grant_types_supported"]


@pytest.mark.parametrize("how", ["panic", "ungrant"])
async def test_an_approval_that_was_cut_is_cut_on_disk(
    vault: Vaulted, how: str
) -> None:
    """What a delivery had in its hands when everything was cut revives at no start."""
    caller = await vault.connected()
    held = (await exchange(caller, BANK)).json()["auth_req_id"]
    await vault.approve(held)
    asking, release = await hanging(vault, caller, BANK)
    if how == "panic":
        await panic(vault.broker, "drill", OPERATOR)
        # From here on, whatever becomes of the broker.
        assert (await vault.broker.ledger.load()).tokens == ()
    else:
        cut = frozenset({"send:payment"})
        await change_scopes(vault.broker, caller.agent.id, frozenset(), cut, OPERATOR)
    release.set()
    assert (await asking).status_code == 403
    loaded = await vault.broker.ledger.load()
    assert loaded.tokens == ()
    (stepup,) = [s for s in loaded.stepups if s.id == held]
    assert stepup.status is StepUpStatus.CANCELLED


@pytest.mark.slow
async def test_a_poll_is_decided_by_what_holds_now(vault: Vaulted) -> None:
    """Approved before the connection came to stand for something else: no token."""
    caller = await vault.connected()
    held = (await exchange(caller, BANK)).json()["auth_req_id"]
    await vault.approve(held)
    broker = vault.broker
    other = replace(broker.settings.connections[BANK], scopes=("write:calendar",))
    connections = {**broker.settings.connections, BANK: other}
    broker.settings = replace(broker.settings, connections=connections)
    answer = await caller.poll(held)
    assert answer.json()["reason"] == "request_changed"
    assert vault.exchanges == 0
    # Each such answer is an event, so they count against the agent's budget.
    for _ in range(RATE * SPAN):
        assert (await caller.poll(held)).status_code == 400
    vault.bench.clock.advance(SPAN)
    assert (await caller.poll(held)).status_code == 400
    assert (await caller.poll(held)).status_code == 429
