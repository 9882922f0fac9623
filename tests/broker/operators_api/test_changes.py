"""A loosening asked for elsewhere waits for an approver's factor for exactly that."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.bench import OPERATOR, Bench
from support.elsewhere import Stand
from support.loosenings import (
    HOOK,
    MILD,
    SERVICE,
    STRICT,
    approve,
    loosenings,
    opened,
    signed_in,
    waits,
)
from support.manual_clock import ManualClock
from support.scripted_tenant import ALICE
from support.stepups import ask

from agentvault_tui.broker.answers import Escalated
from agentvault_tui.broker.riders import text_change
from agentvault_tui.broker.stepups import digest_of
from agentvault_tui.broker.usecases.policy_apply import apply_policy
from agentvault_tui.broker.usecases.policy_change import reload_policy
from agentvault_tui.broker.usecases.revoke import panic, restore_agent, revoke_agent
from agentvault_tui.errors import OvertakenError
from agentvault_tui.gateway import Gateway
from agentvault_tui.home import Home
from agentvault_tui.model import Actor, ActorKind
from agentvault_tui.operator_api.advice import AdviceEvidence, AdviceInfo, AdvisedChange
from agentvault_tui.origins import ServerOrigin
from agentvault_tui.policy import shipped_policy
from agentvault_tui.settings import ChangeRule, ChangeSettings, Settings
from agentvault_tui.watch.watch import LedgerWatch

BOB = {**ALICE, "sub": "agentvault|bob"}


@pytest.fixture
async def stand(bench: Bench) -> AsyncIterator[Stand]:
    async with opened(bench) as stand:
        yield stand


KINDS = {
    "policy": "policy",
    "limits": "limits",
    "lift": "panic",
    "secret": "secrets",
    "token": "tokens",
    "service": "services",
    "connect": "connections",
}


async def test_an_operator_elsewhere_loosens_nothing(stand: Stand) -> None:
    """Every call that loosens needs the role approver, and says so."""
    operator = await signed_in(stand, "operator")
    before = stand.bench.broker.deciding.policy.version
    for name, (path, body) in (await loosenings(stand)).items():
        answer = await operator.post(path, **body)
        assert answer.status_code == 403, (name, answer.text)
        assert answer.json()["needed_role"] == "approver", name
    broker = stand.bench.broker
    assert broker.deciding.policy.version == before
    assert broker.stepups.open() == []
    assert not broker.home.secrets_file.exists()
    assert not (broker.home.database.parent / "services" / "stripe.toml").exists()


async def test_what_an_approver_loosens_waits_for_a_factor(stand: Stand) -> None:
    """Nothing has changed when the answer comes, and the change says what it is of."""
    approver = await signed_in(stand, "approver")
    before = stand.bench.broker.deciding.policy.version
    asked = await loosenings(stand)
    for name, (path, body) in asked.items():
        change = await waits(await approver.post(path, **body))
        assert change["kind"] == KINDS.get(name, "agents"), name
        assert change["requested_by"] == {"sub": "auth0|vera", "name": "vera"}
    listed = (await approver.get("/api/changes")).json()["changes"]
    assert len(listed) == len(asked)
    assert stand.bench.broker.deciding.policy.version == before
    assert not stand.bench.broker.home.secrets_file.exists()
    texts = json.dumps([event.detail for event in await stand.bench.events()])
    assert "sk_live_1" not in texts


async def test_a_replaced_policy_pays_nothing_until_it_is_approved(
    stand: Stand,
) -> None:
    """The hole: a payment of 1,000,000 passed after a lesser role replaced the rule."""
    approver = await signed_in(stand, "approver")
    agent = await stand.bench.agent("payer")
    change = await waits(await approver.post("/api/policy/apply", policy=MILD))
    assert isinstance(await ask(stand.bench, agent), Escalated)
    done = await approve(stand, approver, change)
    assert (done["status"], done["have"]) == ("applied", 1)
    assert done["decided_by"]["sub"] == "agentvault|alice"
    assert not isinstance(await ask(stand.bench, agent), Escalated)
    (applied,) = await stand.bench.events("change.applied")
    told = applied.detail["loosened"]
    assert applied.detail["digest"] == told["digest"] == change["digest"]
    assert told["proof"] == "factor"
    assert told["by"][0]["sub"] == applied.actor.id == "agentvault|alice"
    assert told["requested_by"]["sub"] == "auth0|vera"
    assert [*told["texts"]] == ["policy.cedar"]
    assert told["texts"]["policy.cedar"]["after"] == change["texts"][0]["after"]
    (changed,) = await stand.bench.events("policy.changed")
    assert changed.actor.id == "agentvault|alice"
    assert "loosened" not in changed.detail


async def test_a_change_on_record_is_applied_whatever_fails_behind_it(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its own effect cancelled it as outdated, and the asker saw a failure."""
    approver = await signed_in(stand, "approver")
    agent = await stand.bench.agent("payer", "read:calendar")
    carriers = stand.bench.broker.extensions.carriers
    (name,) = (one for one in carriers if one.endswith("/api/agents/scopes"))
    carry = carriers[name]

    async def failing(request: Any, actor: Actor) -> bytes:
        await carry(request, actor)
        raise OvertakenError("another broker wrote first")

    monkeypatch.setitem(carriers, name, failing)
    body = {"agent_id": agent.id, "grant": ["send:payment"]}
    change = await waits(await approver.post("/api/agents/scopes", **body))
    done = await approve(stand, approver, change)
    assert done["status"] == "applied"
    assert done["problem"] == "another broker wrote first"
    assert "send:payment" in stand.bench.broker.registry.agent(agent.id).scopes
    (applied,) = await stand.bench.events("change.applied")
    assert applied.detail["digest"] == change["digest"]
    assert await stand.bench.events("stepup.cancelled") == []


async def test_a_changed_text_is_shown_as_the_lines_that_differ(stand: Stand) -> None:
    """An approver reads what is added and removed; the digest covers these lines."""
    approver = await signed_in(stand, "approver")
    looser = shipped_policy().replace("recipients <= 20", "recipients <= 9000")
    change = await waits(await approver.post("/api/policy/apply", policy=looser))
    read = (await approver.get(f"/api/changes/{change['id']}")).json()
    (text,) = read["texts"]
    lines = text["diff"].splitlines()
    assert [one for one in lines if one.startswith(("+", "-"))] == [
        *("-" + one for one in shipped_policy().splitlines() if "<= 20" in one),
        *("+" + one for one in looser.splitlines() if "<= 9000" in one),
    ]
    listed = (await approver.get("/api/changes")).json()["changes"]
    assert "diff" not in listed[0]["texts"][0]
    events = json.dumps([event.detail for event in await stand.bench.events()])
    assert "9000" not in events

    stepup = stand.bench.broker.stepups.get(change["id"])
    assert stepup.change is not None
    texts = (replace(stepup.change.texts[0], diff=""),)
    hidden = replace(stepup, change=replace(stepup.change, texts=texts))
    assert digest_of(hidden) != stepup.digest


async def test_long_texts_are_shown_without_being_compared() -> None:
    """Comparing 60,000 lines with as many would stop the event loop."""
    old, new = "a\n" * 60_000, "b\n" * 60_000
    lines = text_change("policy.cedar", old, new).diff.splitlines()
    assert lines == ["-a"] * 60_000 + ["+b"] * 60_000


async def test_the_tenants_page_shows_the_digest_that_is_approved(stand: Stand) -> None:
    """Who enters the code sees what changes; another digest is refused."""
    approver = await signed_in(stand, "approver")
    change = await waits(await approver.post("/api/policy/apply", policy=MILD))
    wrong = await approver.post(
        "/api/changes", id=change["id"], decision="approve", digest="sha256:" + "0" * 64
    )
    assert wrong.status_code == 409
    await approve(stand, approver, change)
    (shown,) = stand.bench.tenant.shown[-1]
    assert shown["fingerprint"] == change["fingerprint"]
    assert shown["action"] == "change:policy"
    assert shown["why"] == change["summary"]
    assert shown["risk"] == "high"


async def test_who_has_no_approver_role_at_the_tenant_approves_no_change(
    stand: Stand,
) -> None:
    """The role that counts is the one of the person who proves the factor."""
    approver = await signed_in(stand, "approver")
    change = await waits(await approver.post("/api/policy/apply", policy=MILD))
    oscar = {**ALICE, "sub": "agentvault|oscar", "roles": ("operator",)}
    done = await approve(stand, approver, change, who=oscar)
    assert done["status"] == "pending"
    assert "not an allowed approver" in done["problem"]
    operator = await signed_in(stand, "operator", "olga")
    asked = {"id": change["id"], "decision": "approve", "digest": change["digest"]}
    assert (await operator.post("/api/changes", **asked)).status_code == 403


async def test_a_change_is_denied_by_an_operator_and_never_applied(
    stand: Stand,
) -> None:
    """Denying needs the role operator; a decided change is a conflict."""
    approver = await signed_in(stand, "approver")
    operator = await signed_in(stand, "operator", "olga")
    change = await waits(await approver.post("/api/policy/apply", policy=MILD))
    denied = await operator.post(
        "/api/changes", id=change["id"], decision="deny", reason="not now"
    )
    assert (denied.status_code, denied.json()["status"]) == (200, "denied")
    asked = {"id": change["id"], "decision": "approve", "digest": change["digest"]}
    assert (await approver.post("/api/changes", **asked)).status_code == 409
    again = await operator.post("/api/changes", id=change["id"], decision="deny")
    assert again.status_code == 409
    missing = await operator.get("/api/changes/chg_0000000000000000")
    assert missing.status_code == 404
    assert (await operator.get("/api/changes/sup_x")).status_code == 404


async def test_a_change_is_cancelled_once_its_subject_has_changed(stand: Stand) -> None:
    """Also where it is being approved: the text it was made from is another now."""
    approver = await signed_in(stand, "approver")
    change = await waits(await approver.post("/api/policy/apply", policy=MILD))
    asked = {"id": change["id"], "decision": "approve", "digest": change["digest"]}
    assert (await approver.post("/api/changes", **asked)).status_code == 202
    texts = {"policy": STRICT}
    await apply_policy(stand.bench.broker, texts, OPERATOR, None, "")
    stand.bench.tenant.approve()
    known = stand.bench.broker.stepups
    await stand.bench.until(lambda: known.get(change["id"]).status != "authorizing")
    now = (await approver.get(f"/api/changes/{change['id']}")).json()
    assert now["status"] == "cancelled"
    assert "changed meanwhile" in now["problem"]
    assert stand.bench.broker.deciding.policy.text == STRICT


async def test_who_approves_reads_what_changes(stand: Stand) -> None:
    """Rules by id, where a service points, and the whole request but for secrets."""
    approver = await signed_in(stand, "approver")
    asked = {"policy": MILD, "reason": "tired of it"}
    change = await waits(await approver.post("/api/policy/apply", **asked))
    assert change["details"]["rules added"] == ["all"]
    assert "payments-need-step-up" in change["details"]["rules removed"]
    assert change["reason"] == "tired of it"
    assert change["request"] is None
    shown = (await approver.get(f"/api/changes/{change['id']}")).json()
    assert shown["request"]["policy"] == MILD
    files = {"services": {"stripe": SERVICE}}
    change = await waits(await approver.post("/api/files", **files))
    assert change["details"]["origins"] == ["stripe: https://evil.example"]
    await stand.bench.agent("payer", "send:payment")
    payer = {"owner": "eve", "scopes": ["send:payment"], "purpose": "tests"}
    change = await waits(await approver.post("/api/files", agents={"payer": payer}))
    shown = (await approver.get(f"/api/changes/{change['id']}")).json()
    assert [one["name"] for one in shown["texts"]] == ["agent payer"]
    lines = shown["texts"][0]["diff"].splitlines()
    assert lines[1:3] == ['-owner = "olga"', '+owner = "eve"']
    server = {"name": "api", "owner": "o", "serves": ["send:payment"]}
    change = await waits(await approver.post("/api/agents", **server))
    assert change["details"]["serves"] == ["send:payment"]
    secret = {"name": "stripe", "value": "sk_live_1", "for": ["https://api.test"]}
    change = await waits(await approver.post("/api/secrets", **secret))
    shown = (await approver.get(f"/api/changes/{change['id']}")).json()
    assert shown["request"] is None
    assert "sk_live_1" not in json.dumps(shown)


async def test_panic_cancels_what_waits(stand: Stand) -> None:
    """Whoever stops everything need not look for what was about to be loosened."""
    approver = await signed_in(stand, "approver")
    change = await waits(await approver.post("/api/policy/apply", policy=MILD))
    await panic(stand.bench.broker, "stop", OPERATOR)
    now = (await approver.get(f"/api/changes/{change['id']}")).json()
    assert (now["status"], now["problem"]) == ("cancelled", "panic")


async def test_a_change_lives_a_day(stand: Stand, clock: ManualClock) -> None:
    """`[changes] expires_in`: no answer is a no."""
    approver = await signed_in(stand, "approver")
    change = await waits(await approver.post("/api/policy/apply", policy=MILD))
    clock.advance(12 * 3600 - 1)
    (one,) = (await approver.get("/api/changes?status=pending")).json()["changes"]
    assert one["id"] == change["id"]
    clock.advance(12 * 3600 + 2)
    again = await signed_in(stand, "viewer", "vic")
    now = (await again.get(f"/api/changes/{change['id']}")).json()
    assert now["status"] == "expired"


async def test_a_secret_that_is_shown_once_is_given_to_who_asked(stand: Stand) -> None:
    """By the change, once, and to that session alone."""
    approver = await signed_in(stand, "approver")
    other = await signed_in(stand, "approver", "bob")
    body = {"name": "new", "owner": "o", "scopes": ["read:calendar"]}
    change = await waits(await approver.post("/api/agents", **body))
    done = await approve(stand, other, change)
    assert done["status"] == "applied"
    assert done["result"] is None
    assert "client_secret" not in done
    mine = (await approver.get(f"/api/changes/{change['id']}")).json()
    assert mine["client_secret"].startswith("av_s_")
    assert mine["result"]["name"] == "new"
    again = (await approver.get(f"/api/changes/{change['id']}")).json()
    assert again["result"] is None
    assert "client_secret" not in again
    texts = json.dumps([event.detail for event in await stand.bench.events()])
    assert mine["client_secret"] not in texts


async def test_a_waiting_secret_is_encrypted_and_under_the_digest(stand: Stand) -> None:
    """It is on the disk as a ciphertext alone, and another value has another digest."""
    approver = await signed_in(stand, "approver")
    listed = {"for": ["https://api.test"]}

    async def asked(value: str, **more: Any) -> dict[str, Any]:
        given = {"name": "stripe", "value": value, **listed, **more}
        return await waits(await approver.post("/api/secrets", **given))

    first, second = await asked("sk_live_one"), await asked("sk_live_two")
    assert first["digest"] != second["digest"]
    assert "for https://api.test" in first["summary"]
    other = await asked("sk_live_one", **{"for": ["https://evil.test"]})
    assert other["digest"] != first["digest"]
    files = [*stand.bench.home.database.parent.rglob("*")]
    written = b"".join(one.read_bytes() for one in files if one.is_file())
    assert b"sk_live" not in written
    done = await approve(stand, approver, first)
    assert done["status"] == "applied"
    gateway = stand.bench.broker.extensions.gateway
    assert isinstance(gateway, Gateway)
    meant = [ServerOrigin.parse("https://api.test")]
    assert gateway.secrets.open("stripe", meant).reveal() == "sk_live_one"
    now = (await approver.get(f"/api/changes/{second['id']}")).json()
    assert now["status"] == "cancelled"


async def test_what_takes_is_done_at_once_and_what_gives_waits(stand: Stand) -> None:
    """One call that does both ends the scope before anybody proves a factor."""
    approver = await signed_in(stand, "approver")
    agent = await stand.bench.agent("payer")
    answer = await approver.post(
        "/api/agents/scopes",
        agent_id=agent.id,
        grant=["send:email"],
        ungrant=["send:payment"],
    )
    change = await waits(answer)
    assert change["taken"]["scopes"] == ["write:calendar"]
    registry = stand.bench.broker.registry
    assert registry.agent(agent.id).scopes == ("write:calendar",)
    done = await approve(stand, approver, change)
    assert done["status"] == "applied"
    assert registry.agent(agent.id).scopes == ("send:email", "write:calendar")


async def test_a_refusal_to_give_says_that_what_takes_is_done(stand: Stand) -> None:
    """An operator may take a scope, and may not grant one in the same call."""
    operator = await signed_in(stand, "operator")
    agent = await stand.bench.agent("payer")
    to = await stand.bench.agent("to")
    scopes = {
        "agent_id": agent.id,
        "grant": ["send:email"],
        "ungrant": ["send:payment"],
    }
    refused = await operator.post("/api/agents/scopes", **scopes)
    assert refused.status_code == 403
    assert refused.headers["content-type"] == "application/problem+json"
    problem = refused.json()
    assert problem["needed_role"] == "approver"
    assert problem["detail"].endswith("the rights to take away have ended")
    assert problem["taken"]["scopes"] == ["write:calendar"]
    assert stand.bench.broker.registry.agent(agent.id).scopes == ("write:calendar",)
    approver = await signed_in(stand, "approver")
    passed = {"agent_id": agent.id, "to": to.id, "scopes": ["write:calendar"]}
    change = await waits(await approver.post("/api/agents/delegates", **passed))
    assert (await approve(stand, approver, change))["status"] == "applied"
    passed["scopes"] = ["read:email"]
    refused = await operator.post("/api/agents/delegates", **passed)
    assert refused.status_code == 403
    assert "have ended" in refused.json()["detail"]
    assert not stand.bench.broker.registry.agent(agent.id).may_pass_on(to.id)


async def test_an_operator_tightens(stand: Stand) -> None:
    """Takes a scope, adds a forbid, lowers a limit; a change that does both waits."""
    operator = await signed_in(stand, "operator")
    agent = await stand.bench.agent("payer")
    took = await operator.post(
        "/api/agents/scopes", agent_id=agent.id, ungrant=["send:payment"]
    )
    assert took.status_code == 200
    stricter = await operator.post("/api/policy/apply", policy=STRICT)
    assert stricter.status_code == 200, stricter.text
    undone = await operator.post("/api/policy/apply", policy=shipped_policy())
    assert undone.status_code == 403
    new = {"name": "new", "owner": "o", "scopes": []}
    assert (await operator.post("/api/agents", **new)).status_code == 201


def by(sub: str) -> Actor:
    return Actor(ActorKind.OPERATOR, sub, "somebody")


@pytest.mark.parametrize("since", ["", "later", "another", "panic", "template"])
async def test_an_operator_restores_what_they_alone_revoked_just_now(
    stand: Stand, clock: ManualClock, since: str
) -> None:
    """For 10 minutes, unless anybody or anything else has revoked it since."""
    operator = await signed_in(stand, "operator")
    broker = stand.bench.broker
    agent = await stand.bench.agent("payer")
    if since == "template":
        plan = await stand.bench.agent("plan", template=True)
        made = {"name": "made", "from": plan.id}
        agent = await stand.bench.made_from(**made)
        await operator.post("/api/agents/revoke", agent_id=agent.id, reason="r")
        await revoke_agent(broker, plan.id, "r", by("auth0|vera"))
        # It is served again, and agents that ended with it are not.
        await restore_agent(broker, plan.id, by("auth0|vera"))
    else:
        await operator.post("/api/agents/revoke", agent_id=agent.id, reason="r")
    if since == "another":
        await revoke_agent(broker, agent.id, "signal", by("agentvault|sig"))
    if since == "panic":
        await panic(broker, "stop", by("auth0|vera"))
    clock.advance(10 * 60 + (1 if since == "later" else -1))
    back = await operator.post("/api/agents/restore", agent_id=agent.id)
    if since:
        assert (back.status_code, back.json()["needed_role"]) == (403, "approver")
    else:
        assert back.status_code == 200
        cut = await operator.post("/api/agents/revoke", agent_id=agent.id, reason="r")
        assert cut.status_code == 200


@pytest.mark.parametrize("how", ["running", "restarted"])
async def test_a_clock_set_back_gives_no_more_time_to_restore(
    bench: Bench, clock: ManualClock, how: str
) -> None:
    """The 10 minutes end by both clocks, and with the process."""
    agent = await bench.agent("payer")
    async with opened(bench) as stand:
        operator = await signed_in(stand, "operator")
        await operator.post("/api/agents/revoke", agent_id=agent.id, reason="r")
        if how == "running":
            clock.advance(10 * 60 + 1)
            clock.jump_wall(-60)
            back = await operator.post("/api/agents/restore", agent_id=agent.id)
            assert (back.status_code, back.json()["needed_role"]) == (403, "approver")
            return
    clock.advance(9 * 60)
    clock.jump_wall(-8 * 60)
    async with bench.restarted() as again, opened(again) as stand:
        operator = await signed_in(stand, "operator")
        back = await operator.post("/api/agents/restore", agent_id=agent.id)
        assert (back.status_code, back.json()["needed_role"]) == (403, "approver")


async def test_a_viewer_asks_no_agents_questions(stand: Stand) -> None:
    """A hook and a run need no role at the socket; elsewhere they do."""
    viewer = await signed_in(stand, "viewer")
    hook = await viewer.post("/api/hooks/claude-code", agent="x", tool="Bash")
    assert (hook.status_code, hook.json()["needed_role"]) == (403, "operator")
    for path in ("/api/runs", "/api/runs/run_1/news", "/api/runs/run_1/end"):
        assert (await viewer.post(path)).status_code == 409, path


async def test_people_are_changed_on_the_machine_whatever_the_role(
    stand: Stand,
) -> None:
    """409 for every role elsewhere: no role there makes an approver."""
    for role in ("viewer", "operator", "approver"):
        person = await signed_in(stand, role, role)
        body = {"change": "role", "user": "eve", "sub": "s", "roles": ["approver"]}
        answer = await person.post("/api/tenant/people", **body)
        assert answer.status_code == 409, role
    assert await stand.bench.events("tenant.user_changed") == []


def with_rules(*rules: ChangeRule) -> Settings:
    return Settings(changes=ChangeSettings(rules=rules))


async def test_rules_ask_several_people_and_refuse_who_asked_at_once(
    short: Any, clock: ManualClock
) -> None:
    """`[[changes.rules]]` by kind: two different people, and not the one who asked."""
    rule = ChangeRule(kinds=("policy",), approvals=2, no_self=True)
    bench = await Bench.open(Home.locate(short / "h"), clock, "", with_rules(rule))
    async with opened(bench) as stand:
        vera = await signed_in(stand, "approver")
        bob = await signed_in(stand, "approver", "bob")
        asked = await vera.post("/api/policy/apply", policy=MILD)
        change = asked.json()
        assert (asked.status_code, change["need"], change["have"]) == (202, 2, 0)
        body = {"id": change["id"], "decision": "approve", "digest": change["digest"]}
        own = await vera.post("/api/changes", **body)
        assert own.status_code == 403
        assert "no_self" in own.json()["detail"]
        one = await approve(stand, bob, change)
        assert (one["status"], one["have"]) == ("pending", 1)
        twice = await approve(stand, bob, change)
        assert "has approved this already" in twice["problem"]
        vera_at_the_page = {**ALICE, "sub": "auth0|vera"}
        self_made = await approve(stand, bob, change, who=vera_at_the_page)
        assert "asked for it (no_self)" in self_made["problem"]
        done = await approve(stand, bob, change, who=BOB)
        assert (done["status"], done["have"]) == ("applied", 2)
        (event,) = await bench.events("change.applied")
        names = [one["sub"] for one in event.detail["loosened"]["by"]]
        assert names == ["agentvault|alice", "agentvault|bob"]
    await bench.close()


async def test_a_change_outlives_a_restart(bench: Bench) -> None:
    """It waits again, with its request sealed, and the chain vouches for its row."""
    async with opened(bench) as stand:
        approver = await signed_in(stand, "approver")
        body = {"name": "new", "owner": "o", "scopes": ["read:calendar"]}
        change = await waits(await approver.post("/api/agents", **body))
    async with bench.restarted() as again, opened(again) as stand:
        assert again.broker.health.state_problem is None
        approver = await signed_in(stand, "approver")
        (listed,) = (await approver.get("/api/changes")).json()["changes"]
        assert listed["digest"] == change["digest"]
        done = await approve(stand, approver, change)
        assert done["status"] == "applied"
        assert done["result"] is None  # the session that asked is over
        assert again.broker.registry.agents_named("new")


async def load_and_delete(bench: Bench, file: Path, text: str) -> None:
    """Load a file of rules, and then delete it: its text stays the active version."""
    for change in (partial(file.write_text, text), file.unlink):
        change()
        await reload_policy(bench.broker)


async def test_the_shipped_policy_is_put_back_once_that_is_approved(
    stand: Stand,
) -> None:
    """A reset is carried out as any change: its proof is in its own transaction."""
    bench = stand.bench
    await load_and_delete(bench, bench.home.policy_file, STRICT)
    approver = await signed_in(stand, "approver")
    operator = await signed_in(stand, "operator", "olga")
    assert (await operator.post("/api/policy/reset")).status_code == 403
    change = await waits(await approver.post("/api/policy/reset"))
    assert bench.broker.deciding.policy.text == STRICT
    done = await approve(stand, approver, change)
    assert done["status"] == "applied", done
    assert bench.broker.deciding.policy.text == shipped_policy()
    assert (await approver.post("/api/policy/reset")).status_code == 409
    assert (await operator.post("/api/policy/reset")).status_code == 403


async def test_an_edited_policy_is_recorded_by_file(stand: Stand) -> None:
    """With what it loosens, for alerts; one that only tightens loosens nothing."""
    bench = stand.bench
    for text, kinds in ((STRICT, None), (MILD, ["policy"])):
        bench.home.policy_file.write_text(text)
        await reload_policy(bench.broker)
        event = (await bench.events("policy.changed"))[-1]
        assert event.detail["by"] == "file"
        assert event.detail.get("loosened", {}).get("kinds") == kinds


async def test_what_advice_took_does_not_come_back_once_others_took_it(
    bench: Bench,
) -> None:
    """A waiting give-back restores nobody who was revoked meanwhile, and says whom."""
    bench.broker.extensions.watch = watch = LedgerWatch(bench.broker, lambda _: None)  # type: ignore[arg-type,return-value]
    async with opened(bench) as stand:
        approver = await signed_in(stand, "approver")
        agent = await bench.agent("idle")
        info = AdviceInfo(
            id="adv_1",
            kind="idle_agent",
            agent_id=agent.id,
            scope="",
            evidence=AdviceEvidence(since="", until=""),
            change=AdvisedChange(revoke=True),
        )
        await watch.trials.apply(info, OPERATOR, 3600)
        change = await waits(await approver.post("/api/advice/adv_1/give-back"))
        assert change["details"]["agent"] == agent.id
        assert change["details"]["revoke"] is True
        await revoke_agent(bench.broker, agent.id, "an incident", by("auth0|sig"))
        now = (await approver.get(f"/api/changes/{change['id']}")).json()
        assert now["status"] == "cancelled"
    await watch.aclose()


async def test_a_reset_is_of_the_kinds_of_the_files_that_are_gone(stand: Stand) -> None:
    """Or rules for limits are passed by deleting their file."""
    await load_and_delete(stand.bench, stand.bench.home.limits_file, HOOK)
    approver = await signed_in(stand, "approver")
    change = await waits(await approver.post("/api/policy/reset"))
    assert change["kind"] == "limits"
