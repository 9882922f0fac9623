"""A person decides about exactly what they saw, once."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
import rfc8785
from support.bench import OPERATOR, PAYMENT, Bench
from support.manual_clock import ManualClock
from support.stepups import approve, details_of, hold, start
from support.wire_shapes import as_json

from agentvault_tui.broker.answers import (
    Denied,
    Expired,
    Granted,
    SlowDown,
    Spent,
    Waiting,
)
from agentvault_tui.broker.shapes import stepup_info
from agentvault_tui.broker.usecases.policy_change import reload_policy
from agentvault_tui.broker.usecases.redeem import introspect, poll
from agentvault_tui.broker.usecases.revoke import panic, revoke_agent
from agentvault_tui.broker.usecases.stepup import begin_approval, problem_of
from agentvault_tui.broker.usecases.stepup_end import deny, expire_due
from agentvault_tui.encoder import to_json
from agentvault_tui.errors import (
    ConflictError,
    IdentityError,
    NotFoundError,
    TenantUnreachableError,
)
from agentvault_tui.model import (
    Draft,
    Event,
    EventType,
    StepUp,
    StepUpStatus,
    TokenKind,
)
from agentvault_tui.vault import FlowDenied, FlowExpired


def status(bench: Bench, stepup: StepUp) -> StepUpStatus:
    return bench.broker.stepups.get(stepup.id).status


async def test_a_step_up_that_its_digest_does_not_cover_is_not_approved(
    bench: Bench,
) -> None:
    """What the operator was shown under it is not what would be approved."""
    _, stepup = await hold(bench)
    bench.broker.stepups.put(replace(stepup, nonce="another"))
    with pytest.raises(ConflictError, match="digest"):
        await begin_approval(bench.broker, stepup.id, stepup.digest, OPERATOR)
    assert bench.tenant.flows == []


async def test_approval_mints_one_token_that_the_asking_agent_gets_once(
    bench: Bench,
) -> None:
    """The poll after approval yields an elevated token with the details echoed."""
    agent, stepup = await hold(bench)
    assert isinstance(await poll(bench.broker, agent, stepup.id), Waiting)
    await approve(bench, stepup)
    granted = await poll(bench.broker, agent, stepup.id)
    assert isinstance(granted, Granted)
    assert granted.token.kind is TokenKind.ELEVATED
    assert granted.expires_in == 300
    assert granted.token.authorization_details == to_json(details_of(PAYMENT))
    assert isinstance(await poll(bench.broker, agent, stepup.id), Spent)


async def test_the_approval_is_recorded_with_its_evidence(bench: Bench) -> None:
    """Who approved, by what factor, when, and for which digest stand in the ledger."""
    _, stepup = await hold(bench)
    await approve(bench, stepup)
    event = (await bench.events("stepup.approved"))[-1]
    assert event.actor.id == "agentvault|alice"
    assert event.detail["digest"] == stepup.digest
    assert event.detail["amr"] == ["mfa", "otp"]
    assert event.detail["auth_time"] == "2026-11-24T10:00:01.000000Z"
    assert len(event.detail["id_token_sha256"]) == 64


async def test_the_tenant_is_told_what_is_approved_but_not_the_agents_words(
    bench: Bench,
) -> None:
    """The tenant's page can show action, fingerprint and host, never the reason."""
    _, stepup = await hold(bench)
    await start(bench, stepup)
    (shown,) = bench.tenant.shown[-1]
    assert shown["fingerprint"] == stepup.digest[7:11].upper()
    assert shown["action"] == "send:payment"
    assert "Invoice 1881" not in str(shown)


async def test_another_digest_approves_nothing(bench: Bench) -> None:
    """Approving with a digest that is not the stored one is a conflict."""
    _, stepup = await hold(bench)
    with pytest.raises(ConflictError):
        await begin_approval(bench.broker, stepup.id, "sha256:00", OPERATOR)
    assert status(bench, stepup) is StepUpStatus.PENDING
    assert bench.tenant.flows == []


async def test_two_consoles_that_approve_share_one_flow(bench: Bench) -> None:
    """Pressed at once or again, approve yields the same code."""
    _, stepup = await hold(bench)
    first, second = await asyncio.gather(start(bench, stepup), start(bench, stepup))
    third = await start(bench, stepup)
    assert first.device == second.device == third.device
    assert len(bench.tenant.flows) == 1


async def test_the_first_decision_wins(bench: Bench) -> None:
    """Of two consoles that deny at once one succeeds, the other hears of it."""
    _, stepup = await hold(bench)
    results = await asyncio.gather(
        *(deny(bench.broker, stepup.id, f"no {n}", OPERATOR) for n in range(5)),
        return_exceptions=True,
    )
    kinds = Counter(type(result) for result in results)
    assert kinds == {tuple: 1, ConflictError: 4}
    assert len(await bench.events("stepup.denied")) == 1


async def test_a_denial_while_authorizing_ends_the_flow(bench: Bench) -> None:
    """Denied while the code is out, a later yes at the tenant changes nothing."""
    agent, stepup = await hold(bench)
    await start(bench, stepup)
    (flow,) = bench.broker.stepups.flows[stepup.id].values()
    await deny(bench.broker, stepup.id, "wrong amount", OPERATOR)
    with pytest.raises(asyncio.CancelledError):
        await flow.task
    answer = await poll(bench.broker, agent, stepup.id)
    assert isinstance(answer, Denied)
    assert answer.reason == "stepup_denied"
    assert "wrong amount" in answer.message


@pytest.mark.parametrize(
    ("who", "words"),
    [
        (IdentityError("no_mfa", "no second factor"), "no second factor"),
        (IdentityError("stale", "signed in earlier"), "signed in earlier"),
        ({"sub": "x|bob", "roles": (), "amr": ("mfa",)}, "not an allowed approver"),
    ],
)
async def test_a_yes_that_proves_too_little_leaves_it_pending(
    bench: Bench, who: object, words: str
) -> None:
    """Without MFA, with an old one, or by the wrong person: pending, with a problem."""
    agent, stepup = await hold(bench)
    await start(bench, stepup)
    bench.tenant.approve(who=who)  # type: ignore[arg-type]
    await bench.until(lambda: status(bench, stepup) is StepUpStatus.PENDING)
    problem = bench.broker.stepups.get(stepup.id).problem
    assert words in (problem or "")
    assert bench.broker.registry.tokens_of(agent.id) == []


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (FlowDenied("User cancelled the confirmation prompt."), "cancelled"),
        (FlowExpired(), "ran out"),
    ],
)
async def test_a_flow_without_a_yes_can_be_tried_again(
    bench: Bench, end: FlowDenied | FlowExpired, words: str
) -> None:
    """Cancelled at the tenant or expired, it waits again and a new flow can start."""
    _, stepup = await hold(bench)
    await start(bench, stepup)
    bench.tenant.end(end)
    await bench.until(lambda: status(bench, stepup) is StepUpStatus.PENDING)
    assert words in (bench.broker.stepups.get(stepup.id).problem or "")
    await approve(bench, stepup)


async def test_a_tenant_that_is_down_changes_nothing(bench: Bench) -> None:
    """When the flow cannot start the request stays pending and can be denied."""
    _, stepup = await hold(bench)
    bench.tenant.down = True
    with pytest.raises(TenantUnreachableError):
        await start(bench, stepup)
    assert status(bench, stepup) is StepUpStatus.PENDING
    (event,) = await bench.events("stepup.not_approved")
    assert (event.actor, event.reason) == (OPERATOR, "the tenant does not answer")
    assert bench.broker.stepups.get(stepup.id).problem == event.reason
    await deny(bench.broker, stepup.id, "", OPERATOR)


@pytest.mark.parametrize(("gone", "lasts"), [(False, 150), (True, 8)])
async def test_what_a_broker_that_died_began_can_be_approved_at_another(
    bench: Bench, clock: ManualClock, gone: bool, lasts: float
) -> None:
    """It waits again once that is known, or its code is over: no other follows it."""
    _, stepup = await hold(bench)
    brokers: Any = bench.broker.team.brokers
    brokers.run_id, brokers.gone = "here", lambda run: gone and run == "here"
    await start(bench, stepup)
    (flow,) = bench.broker.stepups.flows.pop(stepup.id).values()
    flow.task.cancel()
    clock.advance(lasts)
    await expire_due(bench.broker)
    assert status(bench, stepup) is StepUpStatus.AUTHORIZING
    clock.advance(1)
    await expire_due(bench.broker)
    (event,) = await bench.events("stepup.not_approved")
    assert event.reason == "its broker stopped; approve again"
    await approve(bench, stepup)


async def test_a_step_up_nobody_answers_expires(
    bench: Bench, clock: ManualClock
) -> None:
    """After five minutes the request is over, even while its code is out."""
    agent, stepup = await hold(bench)
    await start(bench, stepup)
    clock.advance(300)
    await expire_due(bench.broker)
    assert isinstance(await poll(bench.broker, agent, stepup.id), Expired)
    with pytest.raises(ConflictError):
        await start(bench, stepup)
    assert len(await bench.events("stepup.expired")) == 1


@pytest.mark.parametrize("cut", [revoke_agent, None])
async def test_a_revocation_cancels_what_is_being_authorized(
    bench: Bench, cut: Callable[..., Awaitable[object]] | None
) -> None:
    """Cut while the code is out, a yes at the tenant yields nothing."""
    agent, stepup = await hold(bench)
    await start(bench, stepup)
    if cut is not None:
        await cut(bench.broker, agent.id, "runaway", OPERATOR)
    else:
        await panic(bench.broker, "drill", OPERATOR)
    assert status(bench, stepup) is StepUpStatus.CANCELLED
    answer = await poll(bench.broker, agent, stepup.id)
    assert isinstance(answer, Denied)
    assert answer.reason == ("agent_revoked" if cut else "panic")
    assert len(await bench.events("stepup.cancelled")) == 1


async def test_a_revocation_overtakes_an_approval_that_is_being_recorded(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Approved and revoked in the same instant, nobody ever holds a usable token."""
    agent, stepup = await hold(bench)
    await start(bench, stepup)
    recording, go_on = asyncio.Event(), asyncio.Event()
    commit = bench.ledger.commit

    async def slow(*drafts: Draft, **more: Any) -> tuple[Event, ...]:
        if drafts and drafts[0].type is EventType.STEPUP_APPROVED:
            recording.set()
            await go_on.wait()
        return await commit(*drafts, **more)

    monkeypatch.setattr(bench.ledger, "commit", slow)
    bench.tenant.approve()
    await recording.wait()
    await revoke_agent(bench.broker, agent.id, "", OPERATOR)
    go_on.set()
    await bench.until(lambda: stepup.id not in bench.broker.stepups.deciding)
    assert isinstance(await poll(bench.broker, agent, stepup.id), Denied)
    assert bench.broker.registry.tokens_of(agent.id) == []
    assert (await bench.ledger.load()).tokens == ()


async def test_a_changed_policy_asks_the_person_to_look_again(bench: Bench) -> None:
    """Asked under one policy and approved under another: a conflict, a new digest."""
    _, stepup = await hold(bench)
    bench.home.policy_file.write_text(
        bench.broker.deciding.policy.text + "\n// a comment changes the version\n"
    )
    await reload_policy(bench.broker)
    with pytest.raises(ConflictError):
        await start(bench, stepup)
    anew = bench.broker.stepups.get(stepup.id)
    assert anew.digest != stepup.digest
    assert anew.policy_version == bench.broker.deciding.policy.version
    await approve(bench, anew)


async def test_a_broken_policy_keeps_the_old_one_in_force(bench: Bench) -> None:
    """A file that cannot be put in force is reported, and decides nothing."""
    before = bench.broker.deciding.policy.version
    bench.home.policy_file.write_text("permit (everything")
    await reload_policy(bench.broker)
    assert bench.broker.deciding.policy.version == before
    assert bench.broker.deciding.state.problem
    bench.home.policy_file.unlink()
    await reload_policy(bench.broker)
    assert bench.broker.deciding.state.problem is None


async def test_only_the_client_that_asked_can_poll(bench: Bench) -> None:
    """A foreign or unknown auth_req_id is spent, whatever its state."""
    _, stepup = await hold(bench)
    stranger = await bench.agent("stranger")
    assert isinstance(await poll(bench.broker, stranger, stepup.id), Spent)
    assert isinstance(await poll(bench.broker, stranger, "sup_none"), Spent)


async def test_polling_too_fast_is_told_to_slow_down(
    bench: Bench, clock: ManualClock
) -> None:
    """Before its interval is over a poll gets slow_down, afterwards an answer."""
    agent, stepup = await hold(bench)
    assert isinstance(await poll(bench.broker, agent, stepup.id), Waiting)
    clock.advance(0.2)
    assert isinstance(await poll(bench.broker, agent, stepup.id), SlowDown)
    clock.advance(2)
    assert isinstance(await poll(bench.broker, agent, stepup.id), Waiting)


async def test_an_elevated_token_is_redeemed_exactly_once(bench: Bench) -> None:
    """Of 64 introspections at once one is active; it is recorded, the rest are not."""
    agent, stepup = await hold(bench)
    server = await bench.agent("api", resource_server=True)
    await approve(bench, stepup)
    granted = await poll(bench.broker, agent, stepup.id)
    assert isinstance(granted, Granted)
    own = await introspect(bench.broker, agent, granted.access_token)
    assert own.token is not None
    answers = await asyncio.gather(
        *(introspect(bench.broker, server, granted.access_token) for _ in range(64))
    )
    assert sum(answer.token is not None for answer in answers) == 1
    assert len(await bench.events("token.redeemed")) == 1
    assert status(bench, stepup) is StepUpStatus.REDEEMED


async def test_a_restart_between_approval_and_poll_loses_nothing(bench: Bench) -> None:
    """Approved, then restarted: the agent still gets its token, once."""
    agent, stepup = await hold(bench)
    await approve(bench, stepup)
    async with bench.restarted() as again:
        granted = await poll(again.broker, agent, stepup.id)
        assert isinstance(granted, Granted)
        assert isinstance(await poll(again.broker, agent, stepup.id), Spent)


async def test_a_restart_before_the_approval_keeps_what_the_token_is_for(
    bench: Bench,
) -> None:
    """Asked, restarted, approved: the token carries the details and the resource."""
    agent, stepup = await hold(bench, resource="https://stripe.test")
    async with bench.restarted() as again:
        await approve(again, again.broker.stepups.get(stepup.id))
        granted = await poll(again.broker, agent, stepup.id)
        assert isinstance(granted, Granted)
        assert granted.token.authorization_details == to_json(details_of(PAYMENT))
        assert granted.token.resource == "https://stripe.test"


async def test_a_restart_puts_what_was_being_authorized_back(bench: Bench) -> None:
    """A device flow does not survive a restart; its request does, and says so."""
    _, stepup = await hold(bench)
    await start(bench, stepup)
    async with bench.restarted() as again:
        found = again.broker.stepups.get(stepup.id)
        assert found.status is StepUpStatus.PENDING
        assert "restarted" in (found.problem or "")


async def test_anyone_can_compute_the_digest_from_what_is_shown(bench: Bench) -> None:
    """The operators' API has every member it covers, under the same names."""
    _, stepup = await hold(bench, resource="https://stripe.test")
    shape = as_json(stepup_info(stepup))
    covered = (
        *("agent_id", "scope", "action", "resource", "resource_indicator"),
        *("parameters", "authorization_details", "connection"),
        *("policy_version", "nonce"),
    )
    canonical = rfc8785.dumps({name: shape[name] for name in covered})
    assert shape["digest"] == f"sha256:{hashlib.sha256(canonical).hexdigest()}"


async def test_a_live_code_is_in_memory_alone(bench: Bench) -> None:
    """Whoever reads the database, its WAL or any other file finds no code to enter."""
    _, stepup = await hold(bench)
    started = await start(bench, stepup)
    assert started.device is not None
    files = [path for path in bench.home.data.rglob("*") if path.is_file()]
    assert any(path.name.endswith("-wal") for path in files)
    written = b"".join(path.read_bytes() for path in files)
    assert stepup.id.encode() in written
    assert started.device.user_code.encode() not in written
    (flow,) = bench.tenant.flows
    assert flow.device_code.encode() not in written


async def test_unknown_step_ups_are_not_found(bench: Bench) -> None:
    """Deciding about nothing is an error, not a decision."""
    with pytest.raises(NotFoundError):
        await deny(bench.broker, "sup_none", "", OPERATOR)


async def test_an_approval_that_breaks_waits_again_with_a_word(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is granted, nobody waits for a dead flow, and the log has why."""

    async def broken(*_: object, **__: object) -> None:
        raise UnicodeEncodeError("utf-8", "secret detail", 0, 1, "no")

    monkeypatch.setattr(bench.tenant, "verify_id_token", broken)
    _, stepup = await hold(bench)
    await start(bench, stepup)
    bench.tenant.approve()
    registry = bench.broker.registry
    await bench.until(lambda: registry.stepups.get(stepup.id).status.value == "pending")
    problem = registry.stepups.get(stepup.id).problem
    assert problem == "the broker failed, see its log (UnicodeEncodeError)"
    assert registry.elevated(stepup.id) is None
    assert len([one for one in caplog.records if one.exc_info]) == 1
    await start(bench, stepup)  # and another try begins another flow
    assert len(bench.tenant.flows) == 2


def test_a_code_nobody_could_use_is_the_tenants_doing() -> None:
    """While it is away nothing can be typed there: the person let nothing run out."""
    assert problem_of(FlowExpired()) == "the code ran out before it was used"
    away = problem_of(FlowExpired(), away=True)
    assert away == "the tenant did not answer until the code ran out"
