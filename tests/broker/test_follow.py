"""A broker's memory follows what another recorded, as if it were loaded anew."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from support.bench import OPERATOR, PAYMENT
from support.follow_pair import NOTHING, SCOPES, START, Pair, action, memory
from support.manual_clock import ManualClock
from support.patience import PATIENT
from support.scripted_tenant import ScriptedTenant
from support.stepups import ask, details_of, hold

from agentvault_tui.broker.accounts import HeldProviderToken
from agentvault_tui.broker.answers import Escalated, Granted
from agentvault_tui.broker.authority import Sessions
from agentvault_tui.broker.extensions import CallsCut
from agentvault_tui.broker.follow import _recording, follow
from agentvault_tui.broker.policy_files import kept_policy
from agentvault_tui.broker.usecases import policy_change
from agentvault_tui.broker.usecases.delegate import change_delegates, pass_on
from agentvault_tui.broker.usecases.policy_apply import apply_policy
from agentvault_tui.broker.usecases.policy_change import (
    POLICY,
    keep_policy,
    reload_policy,
)
from agentvault_tui.broker.usecases.redeem import introspect, poll, revoke_token
from agentvault_tui.broker.usecases.register import register
from agentvault_tui.broker.usecases.request import request_token
from agentvault_tui.broker.usecases.revoke import (
    lift_panic,
    panic,
    restore_agent,
    revoke_agent,
    revoke_ended,
)
from agentvault_tui.broker.usecases.scopes import change_scopes
from agentvault_tui.broker.usecases.stepup import begin_approval
from agentvault_tui.broker.usecases.stepup_end import deny, expire_due
from agentvault_tui.clock import Deadline, iso
from agentvault_tui.errors import AgentVaultError
from agentvault_tui.ledger import DropAccount, DropToken
from agentvault_tui.model import (
    Account,
    Agent,
    AgentId,
    AgentStatus,
    EventType,
    Repeat,
    StepUp,
    StepUpId,
    StepUpStatus,
)
from agentvault_tui.model.event import user_changed
from agentvault_tui.operator_api.requests import AgentRequest
from agentvault_tui.policy import Policy
from agentvault_tui.vault import Secret

PICK = st.integers(0, 5)
_T = TypeVar("_T")


class Following(RuleBasedStateMachine):
    """Anything that agents and operators do at one broker, followed by another."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="h-")
        self.runner = asyncio.Runner()
        self.clock = ManualClock(START)
        self.pair = self.run(Pair.open(Path(self.folder.name), self.clock))
        self.broker, self.secrets = self.pair.bench.broker, list[tuple[str, str]]()
        self.stepups: dict[StepUpId, None] = {}
        for name in ("one", "two"):
            self.run(self.pair.bench.agent(name, *SCOPES))
        self.run(self.pair.bench.agent("api", resource_server=True))

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return self.runner.run(work)

    def teardown(self) -> None:
        self.run(self.pair.bench.close())
        self.runner.close()
        self.folder.cleanup()

    def agent(self, number: int) -> Agent:
        return self.broker.registry.agents()[number]

    @rule(number=st.integers(0, 1), scope=st.sampled_from(SCOPES))
    def asks(self, number: int, scope: str) -> None:
        agent, wanted = self.agent(number), action(scope)
        answer = self.run(
            request_token(
                *(self.broker, agent, wanted),
                resource=None,
                details=details_of(wanted) if wanted is PAYMENT else None,
            )
        )
        if isinstance(answer, Granted):
            self.secrets.append((agent.id, answer.access_token))
        elif isinstance(answer, Escalated):
            self.stepups[answer.stepup.id] = None

    @rule(number=st.integers(0, 1), pick=PICK)
    def passes_on(self, number: int, pick: int) -> None:
        agent, other = self.agent(number), self.agent(1 - number)
        held = [one for one in self.broker.registry.tokens_of(agent.id) if one.scope]
        parents = [one for one in held if one.stepup_id is None]
        if not parents:
            return
        parent = parents[pick % len(parents)]
        wanted = action(parent.scope)
        self.run(
            pass_on(
                *(self.broker, agent, parent, other, wanted),
                resource=None,
                details=None,
            )
        )

    @rule(number=st.integers(0, 1), scopes=st.sets(st.sampled_from(SCOPES[:2])))
    def delegates(self, number: int, scopes: set[str]) -> None:
        one, other = self.agent(number), self.agent(1 - number)
        self.attempt(
            change_delegates(self.broker, one.id, other.id, frozenset(scopes), OPERATOR)
        )

    @rule(pick=PICK, how=st.sampled_from(["introspect", "return"]))
    def uses(self, pick: int, how: str) -> None:
        if not self.secrets:
            return
        agent_id, secret = self.secrets[pick % len(self.secrets)]
        if how == "introspect":
            self.attempt(introspect(self.broker, self.agent(2), secret))
        else:
            agent = self.broker.registry.agent(agent_id)
            self.attempt(revoke_token(self.broker, agent, secret))

    @rule(number=st.integers(0, 1))
    def polls(self, number: int) -> None:
        agent = self.agent(number)
        for stepup in list(self.broker.stepups.approved(agent.id)):
            answer = self.run(poll(self.broker, agent, stepup.id))
            if isinstance(answer, Granted):
                self.secrets.append((agent.id, answer.access_token))

    @rule(pick=PICK, how=st.sampled_from(["approve", "begin", "deny"]))
    def decides(self, pick: int, how: str) -> None:
        known = map(self.broker.stepups.get, self.stepups)
        waiting = [stepup for stepup in known if stepup.status.open]
        if not waiting:
            return
        stepup = waiting[pick % len(waiting)]
        if how == "deny":
            self.attempt(deny(self.broker, stepup.id, "no", OPERATOR))
        elif how == "approve" and stepup.status is StepUpStatus.PENDING:
            self.attempt(self.approve(stepup))
        else:
            self.attempt(
                begin_approval(self.broker, stepup.id, stepup.digest, OPERATOR)
            )

    async def approve(self, stepup: StepUp) -> None:
        await begin_approval(self.broker, stepup.id, stepup.digest, OPERATOR)
        self.pair.bench.tenant.approve()
        flows = self.broker.stepups.flows[stepup.id].values()
        await asyncio.wait({flow.task for flow in flows})

    @rule(number=st.integers(0, 1))
    def revokes(self, number: int) -> None:
        self.attempt(revoke_agent(self.broker, self.agent(number).id, "no", OPERATOR))

    @rule(number=st.integers(0, 1))
    def restores(self, number: int) -> None:
        self.attempt(restore_agent(self.broker, self.agent(number).id, OPERATOR))

    @rule(number=st.integers(0, 1), scope=st.sampled_from(SCOPES), given=st.booleans())
    def changes_scopes(self, number: int, scope: str, given: bool) -> None:
        one = frozenset({scope})
        pair = (one, NOTHING) if given else (NOTHING, one)
        self.attempt(change_scopes(self.broker, self.agent(number).id, *pair, OPERATOR))

    @rule(on=st.booleans())
    def panics(self, on: bool) -> None:
        self.attempt(
            panic(self.broker, "drill", OPERATOR)
            if on
            else lift_panic(self.broker, OPERATOR)
        )

    @rule(seconds=st.sampled_from([1, 60, 600, 3600]))
    def waits(self, seconds: int) -> None:
        self.clock.advance(seconds)
        self.run(expire_due(self.broker))

    def attempt(self, work: Coroutine[Any, Any, Any]) -> None:
        with suppress(AgentVaultError):
            self.run(work)

    @invariant()
    def follows(self) -> None:
        """What the follower knows is what a start would."""
        self.run(self.pair.catch_up())
        other = self.pair.other
        known = memory(other.registry, other.deciding.limits, other.recording.meta)
        anew = memory(*self.run(self.pair.loaded()))
        for name, value in known.items():
            assert value == anew[name], name


TestFollowing = Following.TestCase
TestFollowing.settings = settings(max_examples=15, stateful_step_count=25)


@pytest.fixture
async def pair(short: Path, clock: ManualClock) -> AsyncIterator[Pair]:
    pair = await Pair.open(short, clock)
    yield pair
    await pair.bench.close()


class Plane:
    """A data plane that keeps what it was told to cut."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def cut(self, agent_id: AgentId | None, scopes: Any = None, *_: Any) -> CallsCut:
        self.told.append((agent_id, scopes))
        return CallsCut()

    def cut_tokens(self, tokens: Any) -> CallsCut:
        self.told.append(set(tokens))
        return CallsCut()

    def over(self, call_id: str) -> None:
        self.told.append(call_id)


async def test_a_revocation_elsewhere_cuts_calls_and_voids_decisions_here(
    pair: Pair,
) -> None:
    """In the turn in which it is followed, whatever was being decided."""
    plane = Plane()
    pair.other.extensions.gateway = plane  # type: ignore[assignment]
    agent = await pair.bench.agent("payer")
    await pair.catch_up()
    grant = pair.other.registry.unless_revoked(agent.id)
    await revoke_agent(pair.bench.broker, agent.id, "no", OPERATOR)
    await pair.catch_up()
    assert (agent.id, None) in plane.told
    assert grant.revoked
    assert not pair.other.registry.serves(agent.id)


async def test_a_scope_taken_elsewhere_cuts_the_calls_under_it(pair: Pair) -> None:
    """Also where no token carries it: the agent's row alone says so."""
    plane = Plane()
    pair.other.extensions.gateway = plane  # type: ignore[assignment]
    agent = await pair.bench.agent("payer")
    await pair.catch_up()
    grant = pair.other.registry.unless_revoked(agent.id)
    taken = frozenset({"send:payment"})
    await change_scopes(pair.bench.broker, agent.id, NOTHING, taken, OPERATOR)
    await pair.catch_up()
    assert (agent.id, taken) in plane.told
    assert grant.revoked


async def test_a_delegation_taken_elsewhere_voids_decisions_here(pair: Pair) -> None:
    """An exchange under way would pass on what may not be passed on any more."""
    broker = pair.bench.broker
    agent, other = [await pair.bench.agent(name) for name in ("one", "two")]
    scopes = frozenset({"read:calendar"})
    await change_delegates(broker, agent.id, other.id, scopes, OPERATOR)
    await pair.catch_up()
    grant = pair.other.registry.unless_revoked(agent.id)
    await change_delegates(broker, agent.id, other.id, NOTHING, OPERATOR)
    await pair.catch_up()
    assert grant.revoked


async def test_agents_that_end_elsewhere_end_here(pair: Pair) -> None:
    """By their time without any word, and with their template from its record on; what
    another broker has revoked by then is not revoked again."""
    bench, lifetimes = pair.bench, pair.other.registry.lifetimes
    template = await bench.agent("template", "read:calendar", template=True)
    wanted = AgentRequest(name="made", from_template=template.id)
    made = (await register(bench.broker, wanted, OPERATOR)).agent
    end = iso(bench.clock.now() + timedelta(seconds=60))
    brief, other = [await bench.agent(name, until=end) for name in ("brief", "other")]
    await pair.catch_up()
    assert all(map(lifetimes.is_active, (made.id, brief.id)))
    await revoke_agent(bench.broker, template.id, "", OPERATOR)
    events, changes = pair.queue.pop(0)
    await follow(pair.other, events, changes)
    assert pair.other.registry.agent(made.id).status is AgentStatus.ACTIVE
    assert not lifetimes.is_active(made.id)
    await pair.catch_up()
    assert pair.other.registry.agent(made.id).status is AgentStatus.REVOKED
    bench.clock.advance(60)
    assert not lifetimes.is_active(brief.id)
    assert lifetimes.take_ended(late=0.5) == []
    await revoke_ended(bench.broker)
    await pair.catch_up()
    bench.clock.advance(0.5)
    assert lifetimes.take_ended(late=0.5) == []
    assert pair.other.registry.agent(other.id).status is AgentStatus.REVOKED


async def test_who_waits_here_is_woken_by_a_decision_elsewhere(pair: Pair) -> None:
    """A poll, a held call or an evaluation; and its device flow here ends."""
    _, stepup = await hold(pair.bench)
    await pair.catch_up()
    waiter = asyncio.ensure_future(pair.other.stepups.decision(stepup.id))
    await asyncio.sleep(0)
    begun = await begin_approval(pair.other, stepup.id, stepup.digest, OPERATOR)
    (flow,) = pair.other.stepups.flows[begun.id].values()
    pair.queue.clear()  # its own record, which it need not follow
    await deny(pair.bench.broker, stepup.id, "no", OPERATOR)
    await pair.catch_up()
    async with asyncio.timeout(PATIENT):
        await waiter
        await asyncio.wait({flow.task})
    assert flow.task.cancelled()
    assert pair.other.stepups.get(stepup.id).denial == "no"


async def test_a_policy_applied_elsewhere_is_in_force_here(pair: Pair) -> None:
    """It decides at once, and nothing of it is recorded a second time."""
    text = pair.bench.broker.deciding.policy.texts.effective()["policy"]
    changed = {"policy": text + "\n// stricter\n"}
    await apply_policy(pair.bench.broker, changed, OPERATOR, None, "why")
    await pair.catch_up()
    assert (
        pair.other.deciding.policy.version == pair.bench.broker.deciding.policy.version
    )
    await reload_policy(pair.other)
    await keep_policy(pair.other)
    assert len(await pair.bench.events("policy.changed")) == 1


async def test_a_policy_and_its_record_change_together_here(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another broker's policy is read, both are still the earlier ones."""
    deciding, meta = pair.other.deciding, pair.other.recording.meta
    before = deciding.policy.version, deciding.state.recorded, meta.get(POLICY)
    reads, go_on = threading.Event(), threading.Event()

    def slow(*given: Any) -> Policy:
        reads.set()
        assert go_on.wait(PATIENT)
        return kept_policy(*given)

    text = pair.bench.broker.deciding.policy.texts.effective()["policy"]
    changed = {"policy": text + "\n// stricter\n"}
    await apply_policy(pair.bench.broker, changed, OPERATOR, None, "why")
    monkeypatch.setattr(policy_change, "kept_policy", slow)
    following = asyncio.ensure_future(pair.catch_up())
    assert await asyncio.to_thread(reads.wait, PATIENT)
    now = deciding.policy.version, deciding.state.recorded, meta.get(POLICY)
    go_on.set()
    await following
    assert now == before
    assert deciding.state.recorded == deciding.policy.version != before[0]
    assert deciding.policy.version in meta[POLICY]


async def test_only_what_consoles_show_in_their_head_is_told_to_them(
    pair: Pair,
) -> None:
    """An agent that came or ended, a step-up, panic; not each token."""
    told = list[int]()
    agent = await pair.bench.agent("reader", "read:calendar")
    await pair.catch_up()
    pair.other.health.listeners.append(lambda: told.append(1))
    asked = {"resource": None, "details": None}
    await request_token(pair.bench.broker, agent, action("read:calendar"), **asked)
    await pair.catch_up()
    assert not told
    await hold(pair.bench)
    await pair.catch_up()
    assert told
    told.clear()
    await panic(pair.bench.broker, "drill", OPERATOR)
    await pair.catch_up()
    assert told


async def test_a_call_that_ended_elsewhere_is_over_here(pair: Pair) -> None:
    """Its result is recorded, so that no broker records another for it."""
    plane = Plane()
    pair.other.extensions.gateway = plane  # type: ignore[assignment]
    await pair.bench.agent("caller")
    (event,) = await pair.bench.events("agent.registered")
    ended = event._replace(type=EventType.GATEWAY_RESULT, detail={"call_id": "call_1"})
    await follow(pair.other, [ended], [])
    assert plane.told == ["call_1"]


async def test_a_step_up_counts_what_was_repeated_here_and_elsewhere(
    pair: Pair,
) -> None:
    """The larger count stands: requests that are under way have no event yet."""
    agent, stepup = await hold(pair.bench)
    await pair.catch_up()
    stepups = pair.other.stepups
    for _ in range(4):
        stepups.count_again(stepups.get(stepup.id))
    await follow(pair.other, [], [replace(stepup, count=2)])
    assert stepups.get(stepup.id).count == 5
    await ask(pair.bench, agent, PAYMENT)
    (events, changes) = pair.queue.pop()
    assert [event.detail["count"] for event in events] == [2]
    await follow(pair.other, events, changes)
    assert stepups.get(stepup.id).count == 5
    later = [one._replace(detail={**one.detail, "count": 9}) for one in events]
    await follow(pair.other, later, [])
    assert stepups.get(stepup.id).count == 9


async def test_a_device_flow_ends_here_when_what_it_shows_changed_elsewhere(
    pair: Pair,
) -> None:
    """A person would approve what the step-up is no more."""
    _, stepup = await hold(pair.bench)
    await pair.catch_up()
    begun = await begin_approval(pair.other, stepup.id, stepup.digest, OPERATOR)
    (flow,) = pair.other.stepups.flows[begun.id].values()
    await follow(pair.other, [], [replace(begun, count=2)])
    assert not flow.task.done()
    await follow(pair.other, [], [replace(begun, digest=f"sha256:{'0' * 64}")])
    async with asyncio.timeout(PATIENT):
        await asyncio.wait({flow.task})
    assert flow.task.cancelled()


async def test_a_token_ended_elsewhere_is_not_ended_again_here(pair: Pair) -> None:
    """A policy that ended it here has nothing of it left to record."""
    agent = await pair.bench.agent("reader", "read:calendar")
    asked = {"resource": None, "details": None}
    for _ in range(2):
        await request_token(pair.bench.broker, agent, action("read:calendar"), **asked)
    await pair.catch_up()
    first, second = pair.other.registry.tokens_of(agent.id)
    outdated = pair.other.deciding.state.outdated
    outdated += [first, second]
    await follow(pair.other, [], [DropToken(first.id)])
    assert outdated == [second]


async def test_an_assertion_used_elsewhere_is_used_up_here(pair: Pair) -> None:
    """It counts once in the whole team (RFC 7523 section 3, jti)."""
    clock = pair.bench.clock
    now, ends = clock.now().timestamp(), clock.now().timestamp() + 60
    used = pair.bench.broker.admitting.replays.use(
        "agt_1", "one", ends, now, clock.boot()
    )
    assert used is not None
    await follow(pair.other, [], [used])
    again = pair.other.admitting.replays.use("agt_1", "one", ends, now, clock.boot())
    assert again is None


async def test_an_account_changed_elsewhere_voids_what_is_decided_here(
    pair: Pair,
) -> None:
    """Both ways: another account at the provider, or none."""
    agent = await pair.bench.agent("crm")
    await pair.catch_up()
    registry = pair.other.registry
    account = account_of(agent)
    for change in (account, DropAccount(agent.id, "google")):
        grant = registry.unless_revoked(agent.id)
        await follow(pair.other, [], [change])
        assert grant.revoked


def account_of(agent: Agent) -> Account:
    return Account(agent.id, "google", "cac_1", "https://t/", "auth0|u", "u", (), START)


async def test_a_provider_token_that_a_cut_overtook_serves_to_revoke_it(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was on its way to the agent: the provider is told of the grant it is of."""
    kept = list[HeldProviderToken]()
    monkeypatch.setattr(pair.other.reaching.outbox, "keep_undelivered", kept.append)
    agent = await pair.bench.agent("crm")
    await pair.catch_up()
    clock = pair.bench.clock
    held = HeldProviderToken(
        *(account_of(agent), Secret("ya29.x"), "mail", "ab"),
        until=START + timedelta(hours=1),
        lease=Deadline.after(clock, 600),
    )
    pair.other.registry.provider_tokens.put(held)
    await revoke_agent(pair.bench.broker, agent.id, "no", OPERATOR)
    await pair.catch_up()
    assert kept == [held]
    assert pair.other.registry.provider_tokens.of(agent.id) == ()


async def test_a_person_who_was_changed_elsewhere_is_signed_out_here(
    pair: Pair,
) -> None:
    """Whoever recorded it, also a command in a home without a broker."""
    tenant, sessions = pair.other.reaching.tenant, Sessions(pair.other)
    assert isinstance(tenant, ScriptedTenant)
    await sessions.login(OPERATOR)
    tenant.approve()
    await pair.bench.until(lambda: sessions.of(OPERATOR.id) is not None)
    session = sessions.of(OPERATOR.id)
    assert session is not None
    sub = session.identity.sub
    await pair.bench.broker.record(user_changed(OPERATOR, "password", "bob", "b", ()))
    await pair.catch_up()
    assert sessions.of(OPERATOR.id) is not None
    await pair.bench.broker.record(user_changed(OPERATOR, "role", "alice", sub, ()))
    await pair.catch_up()
    assert sessions.of(OPERATOR.id) is None


async def test_repeats_of_an_approver_who_was_removed_elsewhere_end(pair: Pair) -> None:
    """All brokers see it, and one of them records it."""
    _, stepup = await hold(pair.bench)
    await begin_approval(
        pair.bench.broker, stepup.id, stepup.digest, OPERATOR, Repeat(3, 600, ())
    )
    pair.bench.tenant.approve()
    await pair.bench.until(lambda: bool(pair.bench.broker.stepups.repeating(None)))
    await pair.catch_up()
    (approved,) = pair.other.stepups.repeating(None)
    assert approved.decided_by is not None
    sub = approved.decided_by.sub
    await pair.bench.broker.record(user_changed(OPERATOR, "removed", "alice", sub, ()))
    await pair.catch_up()
    await pair.bench.until(lambda: not pair.other.stepups.repeating(None))
    await asyncio.gather(*_recording)
    assert len(await pair.bench.events("stepup.repeat_ended")) == 1
