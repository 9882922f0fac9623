"""Several brokers on one store grant together no more than one would."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.agents_http import CIBA
from support.bench import OPERATOR, Bench
from support.manual_clock import ManualClock
from support.patience import PATIENT
from support.postgres import Database
from support.stepups import approve
from support.team_brokers import Broker, brokers_of, known

from agentvault_tui.broker.team_files import TeamFiles
from agentvault_tui.broker.usecases.delegate import change_delegates
from agentvault_tui.broker.usecases.policy_apply import apply_policy
from agentvault_tui.broker.usecases.policy_change import (
    POLICY,
    keep_policy,
    policy_record,
)
from agentvault_tui.broker.usecases.revoke import (
    restore_agent,
    revoke_agent,
    revoke_ended,
)
from agentvault_tui.broker.usecases.scopes import change_scopes, renew_secret
from agentvault_tui.broker.usecases.stepup import begin_approval
from agentvault_tui.broker.usecases.stepup_end import deny, expire_due
from agentvault_tui.clock import iso
from agentvault_tui.errors import LedgerUnwritableError, OvertakenError
from agentvault_tui.home import Home
from agentvault_tui.ledger import Ledger, Meta
from agentvault_tui.model import Agent, AgentStatus, StepUpStatus

LIMITS = """
[[limits]]
id = "events"
scopes = ["write:calendar"]
within = "1h"
count = 10
over = "deny"
"""


def files_of(bench: Bench) -> TeamFiles:
    """Return what compares a home's files with the team's."""
    assert bench.broker.team.files is not None
    return bench.broker.team.files


@pytest.fixture
async def brokers(
    short: Path, store: Database, clock: ManualClock
) -> AsyncIterator[list[Broker]]:
    """Three brokers, each with a home of its own."""
    every = [clock] * 3, [store.settings] * 3
    async with brokers_of(short, *every, LIMITS) as made:
        yield made


async def test_an_agent_is_known_at_once_wherever_it_was_registered(
    brokers: list[Broker],
) -> None:
    """Its first request may reach another broker; so may its token."""
    a, b, c = brokers
    agent = await a.agent("one", "read:calendar")
    server = await b.agent("api", resource_server=True)
    reply = await c.token(agent, "read:calendar")
    assert reply.status_code == 200
    assert await a.active(server, reply.json()["access_token"])


async def test_an_agent_is_known_where_its_event_is_followed_just_now(
    brokers: list[Broker],
) -> None:
    """The head is the event's already, and memory is not: the request waits for it."""
    a, _, c = brokers
    ledger, reached, goes_on = c.bench.ledger, asyncio.Event(), asyncio.Event()

    async def slow(*_: Any) -> None:
        reached.set()
        await goes_on.wait()

    ledger.listeners.followed.insert(0, slow)
    agent = await a.agent("one", "read:calendar")
    async with asyncio.timeout(PATIENT):
        await reached.wait()
        asked = asyncio.create_task(c.token(agent, "read:calendar"))
        await asyncio.wait({asked}, timeout=0.05)  # what is wrong answers at once
        goes_on.set()
        assert (await asked).status_code == 200


async def test_each_event_says_which_broker_recorded_it(brokers: list[Broker]) -> None:
    """In what the chain covers, so that each broker and an export say the same."""
    a, b, c = brokers
    agent = await a.agent("one", "read:calendar")
    await b.token(agent, "read:calendar")
    await known(brokers)
    told = [
        (one.type.value, one.detail["broker"])
        for one in await c.bench.events()
        if one.agent_id == agent.id
    ]
    ids = [one.bench.ledger.shared.broker_id for one in (a, b)]  # type: ignore[union-attr]
    assert told == [("agent.registered", ids[0]), ("token.decision", ids[1])]


async def test_of_two_agents_with_one_name_one_is_registered(
    brokers: list[Broker],
) -> None:
    """Also where two operators do so at two brokers at once."""
    made = await asyncio.gather(
        *(one.agent("same", "read:calendar") for one in brokers), return_exceptions=True
    )
    assert Counter(map(type, made)) == {Agent: 1, OvertakenError: 2}


async def test_a_revocation_holds_everywhere_from_its_reply_on(
    brokers: list[Broker],
) -> None:
    """No token of the agent is active at another broker, and none is issued."""
    a, b, c = brokers
    agent = await a.agent("one", "read:calendar")
    server = await b.agent("api", resource_server=True)
    token = (await b.token(agent, "read:calendar")).json()["access_token"]
    assert await c.active(server, token)
    await revoke_agent(a.bench.broker, agent.id, "no", OPERATOR)
    assert not await c.active(server, token)
    assert (await b.token(agent, "read:calendar")).json()["reason"] == "agent_revoked"


@pytest.mark.parametrize("grant", ["client_credentials", CIBA])
async def test_a_secret_that_was_replaced_gets_nothing_at_another_broker(
    brokers: list[Broker], grant: str
) -> None:
    """From the reply on, also where the replacement is not known yet."""
    one, two = brokers[:2]
    agent = await one.agent("leaky", "read:calendar", "send:payment")
    await known(brokers)
    asked = {"grant_type": grant, "scope": "read:calendar"}
    if grant == CIBA:
        waiting = await one.pay(agent)
        await approve(one.bench, one.bench.broker.stepups.get(waiting))
        await known(brokers)
        asked = {"grant_type": grant, "auth_req_id": waiting}
    await renew_secret(one.bench.broker, agent.id, OPERATOR)
    reply = await two.post(agent, "/oauth/token", **asked)
    told = reply.status_code, reply.json().get("error")
    assert told == (401, "invalid_client")


async def test_a_limit_is_passed_by_none_across_brokers(brokers: list[Broker]) -> None:
    """Of 63 requests at three brokers at once ten are allowed, the limit's count."""
    agent = await brokers[0].agent("one", "write:calendar")
    await known(brokers)
    asked = (one.token(agent, "write:calendar") for _ in range(21) for one in brokers)
    replies = await asyncio.gather(*asked)
    told = Counter(one.status_code for one in replies)
    assert told[200] == 10
    assert told[403] + told[503] == 53


async def test_an_approved_token_is_fetched_and_used_once_across_brokers(
    brokers: list[Broker],
) -> None:
    """Asked at one, approved at another, polled and introspected at all at once."""
    a, b, _ = brokers
    agent = await a.agent("payer", "send:payment")
    server = await b.agent("api", resource_server=True)
    asked = await a.pay(agent)
    await known(brokers)
    await approve(b.bench, b.bench.broker.stepups.get(asked))
    fetched = await asyncio.gather(*(one.poll(agent, asked) for one in brokers))
    tokens = [one.json().get("access_token") for one in fetched]
    (token,) = [one for one in tokens if one]
    answers = await asyncio.gather(*(one.active(server, token) for one in brokers * 4))
    assert answers.count(True) == 1
    await known(brokers)
    status = [one.bench.broker.stepups.get(asked).status for one in brokers]
    assert status == [StepUpStatus.REDEEMED] * 3


async def test_no_more_step_ups_wait_than_one_broker_would_hold(
    brokers: list[Broker],
) -> None:
    """`max_pending` is the agent's over the team."""
    agent = await brokers[0].agent("payer", "send:payment")
    await known(brokers)
    await asyncio.gather(
        *(
            one.pay(agent, f"stripe:{number}{name}")
            for number in range(4)
            for name, one in zip("abc", brokers, strict=True)
        )
    )
    await known(brokers)
    most = brokers[0].bench.broker.settings.stepup.max_pending
    waiting = [len(one.bench.broker.stepups.open(agent.id)) for one in brokers]
    assert waiting == [most] * 3


async def test_of_an_approval_and_a_denial_at_once_each_broker_knows_the_same(
    brokers: list[Broker],
) -> None:
    """Whichever is recorded last holds, and after a denial no token is given out."""
    a, b, c = brokers
    agent = await a.agent("payer", "send:payment")
    for _ in range(5):
        for one in brokers:
            one.bench.clock.advance(1000)
        asked = await a.pay(agent)
        await known(brokers)
        stepup = a.bench.broker.stepups.get(asked)
        await begin_approval(a.bench.broker, asked, stepup.digest, OPERATOR)
        await known(brokers)
        (flow,) = a.bench.broker.stepups.flows[stepup.id].values()
        a.bench.tenant.approve()
        await asyncio.gather(
            asyncio.wait({flow.task}),
            deny(b.bench.broker, asked, "no", OPERATOR),
            return_exceptions=True,
        )
        await known(brokers)
        found = {one.bench.broker.stepups.get(asked).status for one in brokers}
        assert len(found) == 1
        given = (await c.poll(agent, asked)).status_code == 200
        assert given is (found == {StepUpStatus.APPROVED})


async def test_a_revocation_wins_over_a_restore_at_another_broker(
    brokers: list[Broker],
) -> None:
    """Whichever was recorded first, all brokers know the agent alike."""
    a, b, _ = brokers
    agent = await a.agent("one", "read:calendar")
    for _ in range(5):
        await revoke_agent(a.bench.broker, agent.id, "no", OPERATOR)
        await known(brokers)
        await asyncio.gather(
            restore_agent(b.bench.broker, agent.id, OPERATOR),
            revoke_agent(a.bench.broker, agent.id, "again", OPERATOR),
            return_exceptions=True,
        )
        await known(brokers)
        found = {one.bench.broker.registry.agent(agent.id).status for one in brokers}
        assert len(found) == 1


async def test_two_cuts_of_one_agent_at_two_brokers_both_hold(
    brokers: list[Broker],
) -> None:
    """Each writes the agent's whole row: neither brings back what the other took."""
    a, b, _ = brokers
    for number in range(5):
        agent = await a.agent(f"agent {number}", "read:calendar", "write:calendar")
        await known(brokers)
        taken = frozenset({"write:calendar"})
        await asyncio.gather(
            revoke_agent(a.bench.broker, agent.id, "no", OPERATOR),
            change_scopes(b.bench.broker, agent.id, frozenset(), taken, OPERATOR),
        )
        cut = AgentStatus.REVOKED, ("read:calendar",)
        found, stored = set[Agent](), set[Agent]()
        async with asyncio.timeout(PATIENT):
            while found != stored or {(e.status, e.scopes) for e in stored} != {cut}:
                await known(brokers)
                found = {one.bench.broker.registry.agent(agent.id) for one in brokers}
                loaded = (await b.bench.ledger.load()).agents
                stored = {one for one in loaded if one.id == agent.id}
        assert len(found) == 1


async def test_two_brokers_take_delegations_of_one_agent_at_once(
    brokers: list[Broker],
) -> None:
    """A delegation that one took is not given back by the row that the other writes."""
    a, b, _ = brokers
    scopes = frozenset({"read:calendar"})
    for number in range(5):
        names = (f"{name} {number}" for name in ("one", "two", "three"))
        one, two, three = [await a.agent(name, *scopes) for name in names]
        for other in (two, three):
            core = a.bench.broker
            await change_delegates(core, one.id, other.id, scopes, OPERATOR)
        await known(brokers)
        await asyncio.gather(
            *(
                change_delegates(at.bench.broker, one.id, to.id, frozenset(), OPERATOR)
                for at, to in ((a, two), (b, three))
            )
        )
        await known(brokers)
        loaded = {each.id: each for each in (await b.bench.ledger.load()).agents}
        assert loaded[one.id].delegates == ()
        for each in brokers:
            assert each.bench.broker.registry.agent(one.id).delegates == ()


async def test_a_step_up_that_expires_is_recorded_once(brokers: list[Broker]) -> None:
    """Though each broker sees that its time is up."""
    agent = await brokers[0].agent("payer", "send:payment")
    asked = await brokers[0].pay(agent)
    await known(brokers)
    brokers[0].bench.clock.advance(100_000)
    await asyncio.gather(*(expire_due(one.bench.broker) for one in brokers))
    await known(brokers)
    found = [one.bench.broker.stepups.get(asked).status for one in brokers]
    assert found == [StepUpStatus.EXPIRED] * 3
    assert len(await brokers[1].bench.events("stepup.expired")) == 1


async def test_the_end_of_an_agent_is_recorded_once(brokers: list[Broker]) -> None:
    """Though each broker sees that its time is over, and its step-up ends with it."""
    clock = brokers[0].bench.clock
    until = clock.now() + timedelta(seconds=100)
    agent = await brokers[0].agent("payer", "send:payment", until=iso(until))
    asked = await brokers[0].pay(agent)
    await known(brokers)
    clock.advance(100)
    await asyncio.gather(*(revoke_ended(one.bench.broker) for one in brokers))
    await known(brokers)
    for one in brokers:
        registry = one.bench.broker.registry
        assert registry.agent(agent.id).status is AgentStatus.REVOKED
        assert one.bench.broker.stepups.get(asked).status is StepUpStatus.CANCELLED
    for kind in ("agent.revoked", "stepup.cancelled"):
        assert len(await brokers[1].bench.events(kind)) == 1


async def test_an_end_that_another_change_overtook_is_recorded(
    brokers: list[Broker],
) -> None:
    """Whatever else another broker recorded of the agent, it is revoked in the end."""
    clock = brokers[0].bench.clock
    until = iso(clock.now() + timedelta(seconds=100))
    agent = await brokers[0].agent("one", "read:calendar", "read:email", until=until)
    await known(brokers)
    taken = frozenset({"read:email"})
    clock.advance(100)
    narrow = asyncio.gather(
        change_scopes(brokers[1].bench.broker, agent.id, frozenset(), taken, OPERATOR),
        *(revoke_ended(one.bench.broker) for one in brokers),
    )
    await narrow
    found, stored = set[Agent](), set[Agent]()
    async with asyncio.timeout(PATIENT):
        while found != stored or {one.status for one in found} != {AgentStatus.REVOKED}:
            await asyncio.gather(*(revoke_ended(one.bench.broker) for one in brokers))
            await known(brokers)
            found = {one.bench.broker.registry.agent(agent.id) for one in brokers}
            loaded = (await brokers[2].bench.ledger.load()).agents
            stored = {one for one in loaded if one.id == agent.id}
    assert {one.scopes for one in found} == {("read:calendar",)}


async def test_a_policy_edited_in_one_home_holds_in_all_and_is_recorded_once(
    brokers: list[Broker],
) -> None:
    """Its texts are written into every home's files."""
    a, b, c = brokers
    home, policy = a.bench.home, a.bench.broker.deciding.policy
    for one in brokers:
        await files_of(one.bench).look()
    home.policy_file.write_text(policy.texts.effective()["policy"] + "// stricter\n")
    await files_of(a.bench).look()
    await known(brokers)
    for one in brokers:
        await files_of(one.bench).look()
        await keep_policy(one.bench.broker)
    await known(brokers)
    assert len({one.bench.broker.deciding.policy.version for one in brokers}) == 1
    assert c.bench.broker.deciding.policy.version != policy.version
    assert b.bench.home.policy_file.read_text().endswith("// stricter\n")
    changes = await b.bench.events("policy.changed")
    assert [one.detail["after"] for one in changes] == [
        c.bench.broker.deciding.policy.version
    ]


async def test_of_two_edits_the_first_recorded_holds_and_the_other_is_kept_beside(
    brokers: list[Broker],
) -> None:
    """As `NAME.local`, of which operators are warned."""
    text = brokers[0].bench.broker.deciding.policy.texts.effective()["policy"]
    for one in brokers:
        await files_of(one.bench).look()
    for number, one in enumerate(brokers[:2]):
        one.bench.home.policy_file.write_text(f"{text}// edit {number}\n")
    await asyncio.gather(*(files_of(one.bench).look() for one in brokers[:2]))
    await known(brokers)
    for one in brokers:
        await files_of(one.bench).look()
        await keep_policy(one.bench.broker)
    await known(brokers)
    said = {one.bench.home.policy_file.read_text() for one in brokers}
    assert len(said) == 1
    kept = [path for one in brokers for path in files_of(one.bench).copies.aside]
    assert len(kept) == 1
    assert {kept[0].read_text(), *said} == {f"{text}// edit {n}\n" for n in (0, 1)}


async def test_a_policy_applied_at_one_broker_leaves_the_limits_of_another_s(
    brokers: list[Broker],
) -> None:
    """Also where this home's files do not say yet what was decided a moment ago."""
    a, b = (one.bench for one in brokers[:2])
    await apply_policy(a.broker, {"limits": "# none\n"}, OPERATOR, None, "why")
    await b.ledger.confirm()
    text = b.broker.deciding.policy.texts.effective()["policy"] + "// ours\n"
    await apply_policy(b.broker, {"policy": text}, OPERATOR, None, "why")
    await a.ledger.confirm()
    assert a.broker.deciding.policy.texts == b.broker.deciding.policy.texts
    assert a.broker.deciding.policy.texts[::2] == (text, "# none\n")


async def test_a_policy_that_no_event_names_is_in_force_nowhere(
    brokers: list[Broker],
) -> None:
    """Whoever wrote it is no broker: nothing is granted until somebody looked."""
    a, b = brokers[:2]
    agent = await a.agent("one", "read:calendar")
    before = b.bench.broker.deciding.policy.texts
    text = before.effective()["policy"] + "// ours\n"
    await apply_policy(a.bench.broker, {"policy": text}, OPERATOR, None, "why")
    await known(brokers)
    assert b.bench.broker.deciding.policy.texts.policy == text
    forged = {"version": "1", **before._asdict()}
    await a.bench.ledger.commit(changes=[Meta(POLICY, json.dumps(forged))])
    await b.bench.ledger.confirm()
    assert b.bench.broker.deciding.policy.texts.policy == text
    assert (await b.token(agent, "read:calendar")).status_code == 503


async def test_a_home_that_was_not_in_step_starts_with_the_team_s_policy(
    brokers: list[Broker], short: Path, store: Database, clock: ManualClock
) -> None:
    """A milder file in a new home changes nothing for the team, and stays beside."""
    home = Home(short / "d", short / "d")
    home.prepare()
    text = brokers[0].bench.broker.deciding.policy.texts.effective()["policy"]
    await apply_policy(
        brokers[0].bench.broker, {"policy": text + "// ours\n"}, OPERATOR, None, "why"
    )
    home.policy_file.write_text("permit (principal, action, resource);")
    late = await Bench.open(home, clock, settings=store.settings)
    try:
        version = brokers[0].bench.broker.deciding.policy.version
        assert late.broker.deciding.policy.version == version
        await files_of(late).look()
        assert late.broker.deciding.policy.version == version
        assert home.policy_file.read_text().endswith("// ours\n")
        (aside,) = files_of(late).copies.aside
        assert aside.read_text() == "permit (principal, action, resource);"
        assert policy_record(late.broker)[0] == []
    finally:
        await late.close()


async def test_what_others_record_while_a_broker_starts_is_known_to_it(
    brokers: list[Broker], short: Path, store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A revocation between its reading of the state and its memory of it holds."""
    a = brokers[0]
    agent = await a.agent("one", "read:calendar", "send:payment")
    diverged = Ledger.diverged

    async def meanwhile(ledger: Ledger, loaded: Any) -> Any:
        await revoke_agent(a.bench.broker, agent.id, "no", OPERATOR)
        await a.pay(await a.agent("other", "send:payment"))
        with suppress(LedgerUnwritableError):
            await ledger.confirm()
        return await diverged(ledger, loaded)

    monkeypatch.setattr(Ledger, "diverged", meanwhile)
    home = Home(short / "late", short / "late")
    clock = ManualClock(datetime.now(UTC))  # the store's: none was set back
    late = await Bench.open(home, clock, settings=store.settings)
    try:
        await late.ledger.confirm()
        assert late.broker.registry.agent(agent.id).status is AgentStatus.REVOKED
        assert len(late.broker.stepups.open()) == 1
    finally:
        await late.close()
