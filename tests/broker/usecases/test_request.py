"""A token request is decided, recorded, and only then answered."""

from __future__ import annotations

import asyncio
import gc
import json
import tracemalloc
from dataclasses import replace

import pytest
from support.bench import OPERATOR, PAYMENT, Bench

from agentvault_tui.broker.answers import Denied, Escalated, Granted
from agentvault_tui.broker.stepups import digest_of
from agentvault_tui.broker.usecases.request import request_token
from agentvault_tui.broker.usecases.revoke import lift_panic, panic, revoke_agent
from agentvault_tui.broker.usecases.scopes import change_scopes
from agentvault_tui.broker.usecases.stepup_end import deny
from agentvault_tui.errors import LedgerUnwritableError
from agentvault_tui.ledger import EventQuery
from agentvault_tui.model import Action, Outcome, sha256_hex
from agentvault_tui.policy import Inputs

CALENDAR = Action(scopes=("write:calendar",), action="write:calendar")


async def ask(bench: Bench, agent: object, action: Action = CALENDAR) -> object:
    return await request_token(
        bench.broker,
        agent,  # type: ignore[arg-type]
        action,
        resource=None,
        details=None,
    )


async def test_an_allowed_request_yields_a_token_kept_only_as_a_hash(
    bench: Bench,
) -> None:
    """The secret is returned once; memory and disk know its SHA-256 alone."""
    agent = await bench.agent()
    granted = await ask(bench, agent)
    assert isinstance(granted, Granted)
    assert granted.expires_in == 3600
    assert granted.token.sha256 == sha256_hex(granted.access_token)
    assert granted.access_token not in repr(granted)
    for file in bench.home.data.glob("agentvault.db*"):
        assert granted.access_token.encode() not in file.read_bytes()


async def test_the_decision_is_in_the_ledger_when_the_answer_arrives(
    bench: Bench,
) -> None:
    """The event named in the answer can be read at once, with outcome and agent."""
    agent = await bench.agent()
    granted = await ask(bench, agent)
    assert isinstance(granted, Granted)
    event = (await bench.events("token.decision"))[-1]
    assert event.decision_id == granted.decision_id
    assert (event.agent_id, event.outcome) == (agent.id, Outcome.ALLOWED)


async def test_a_scope_that_was_not_granted_is_denied_with_words(bench: Bench) -> None:
    """The denial carries a stable code, and is recorded."""
    agent = await bench.agent()
    action = Action(scopes=("delete:records",), action="delete:records")
    denied = await ask(bench, agent, action)
    assert isinstance(denied, Denied)
    assert denied.reason == "scope_not_granted"
    assert (await bench.events("token.decision"))[-1].outcome is Outcome.DENIED


async def test_a_payment_waits_for_a_person(bench: Bench) -> None:
    """The step-up fixes exactly what was asked, under a digest anyone can recompute."""
    agent = await bench.agent()
    held = await ask(bench, agent, PAYMENT)
    assert isinstance(held, Escalated)
    assert held.expires_in == 300
    stepup = held.stepup
    assert (stepup.rule, stepup.action) == ("payments-need-step-up", "send:payment")
    assert stepup.parameters == {"amount": 4200, "currency": "USD"}
    assert stepup.digest == digest_of(stepup)
    for change in (
        {"resource": "stripe:acct_43"},
        {"parameters_json": '{"amount":4201,"currency":"USD"}'},
        {"agent_id": "agt_other"},
        {"scope": "send:payment read:finance"},
        {"nonce": "n_other"},
        {"policy_version": "other"},
    ):
        assert digest_of(replace(stepup, **change)) != stepup.digest


async def test_identical_requests_collapse_into_the_pending_one(bench: Bench) -> None:
    """The same request again yields the same id and a growing count."""
    agent = await bench.agent()
    first = await ask(bench, agent, PAYMENT)
    many = await asyncio.gather(*(ask(bench, agent, PAYMENT) for _ in range(10)))
    assert isinstance(first, Escalated)
    assert {again.stepup.id for again in many} == {first.stepup.id}  # type: ignore[attr-defined]
    assert bench.broker.stepups.get(first.stepup.id).count == 11
    assert len(bench.broker.stepups.open()) == 1


async def test_a_fourth_pending_request_is_refused(bench: Bench) -> None:
    """An agent has at most three requests waiting, however many it sends at once."""
    agent = await bench.agent()
    answers = await asyncio.gather(
        *(
            ask(bench, agent, replace(PAYMENT, parameters={"amount": n}))
            for n in range(8)
        )
    )
    refused = [answer for answer in answers if isinstance(answer, Denied)]
    assert len(refused) == 5
    assert {answer.reason for answer in refused} == {"too_many_pending"}


async def test_a_denial_starts_a_cool_down_that_grows(bench: Bench) -> None:
    """After each denial requests that need a person wait twice as long."""
    agent = await bench.agent()
    for wait in (30, 60, 120):
        held = await ask(bench, agent, PAYMENT)
        assert isinstance(held, Escalated)
        await deny(bench.broker, held.stepup.id, "not today", OPERATOR)
        bench.clock.advance(wait - 1)
        cooling = await ask(bench, agent, PAYMENT)
        assert isinstance(cooling, Denied)
        assert cooling.reason == "cooling_down"
        assert isinstance(await ask(bench, agent), Granted)
        bench.clock.advance(1)


async def test_the_backchannel_holds_what_policy_alone_would_allow(
    bench: Bench,
) -> None:
    """Asked for directly, a person decides; what policy denies stays denied."""
    agent = await bench.agent()
    held = await request_token(
        *(bench.broker, agent, CALENDAR), resource=None, details=None, backchannel=True
    )
    assert isinstance(held, Escalated)
    forbidden = Action(scopes=("read:code",), action="read:code")
    denied = await request_token(
        *(bench.broker, agent, forbidden), resource=None, details=None, backchannel=True
    )
    assert isinstance(denied, Denied)


async def test_counts_equal_the_ledger(bench: Bench) -> None:
    """The counts of an agent are the outcomes of its decisions, no more, no less."""
    agent = await bench.agent()
    for action in (CALENDAR, CALENDAR, PAYMENT, replace(CALENDAR, scopes=("x:y",))):
        await ask(bench, agent, action)
    counts = bench.broker.registry.counts(agent.id)
    page = await bench.ledger.events(EventQuery(after=0, agent=agent.id, limit=1000))
    for outcome in Outcome:
        found = sum(event.outcome is outcome for event in page.events)
        assert getattr(counts, outcome.value) == found


async def test_nothing_is_issued_to_a_revoked_agent(bench: Bench) -> None:
    """After a revocation requests are denied with a code that says so."""
    agent = await bench.agent()
    await revoke_agent(bench.broker, agent.id, "runaway", OPERATOR)
    denied = await ask(bench, agent)
    assert isinstance(denied, Denied)
    assert denied.reason == "agent_revoked"


async def test_nothing_is_issued_in_a_panic(bench: Bench) -> None:
    """While the panic switch is on every request is denied, and afterwards none."""
    agent = await bench.agent()
    await panic(bench.broker, "drill", OPERATOR)
    denied = await ask(bench, agent)
    assert isinstance(denied, Denied)
    assert denied.reason == "panic"
    await lift_panic(bench.broker, OPERATOR)
    assert isinstance(await ask(bench, agent), Granted)


@pytest.mark.parametrize("cut", ["revoke", "panic", "scope"])
async def test_a_request_overtaken_by_a_revocation_yields_nothing(
    bench: Bench, cut: str
) -> None:
    """Decided before the cut and recorded after it, a token never becomes usable."""
    agent = await bench.agent()
    asking = asyncio.create_task(ask(bench, agent))
    await asyncio.sleep(0)  # it is decided now, and waits for the disk
    match cut:
        case "revoke":
            await revoke_agent(bench.broker, agent.id, "", OPERATOR)
        case "panic":
            await panic(bench.broker, "", OPERATOR)
        case _:
            gone = frozenset({"write:calendar"})
            await change_scopes(bench.broker, agent.id, frozenset(), gone, OPERATOR)
    assert isinstance(await asking, Denied)
    assert bench.broker.registry.tokens_of(agent.id) == []
    assert (await bench.ledger.load()).tokens == ()


async def test_an_agent_gets_no_answer_that_was_not_recorded(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the ledger cannot write nothing is issued and no step-up stays behind."""
    agent = await bench.agent()

    async def broken(*_: object, **__: object) -> None:
        raise LedgerUnwritableError("no space left")

    monkeypatch.setattr(bench.ledger, "commit", broken)
    for action in (CALENDAR, PAYMENT):
        with pytest.raises(LedgerUnwritableError):
            await ask(bench, agent, action)
    assert bench.broker.registry.tokens_of(agent.id) == []
    assert bench.broker.stepups.open() == []


@pytest.mark.slow
@pytest.mark.parametrize("wanted", [CALENDAR, PAYMENT])
async def test_memory_grows_by_the_length_of_what_agents_send(
    bench: Bench, wanted: Action
) -> None:
    """Tokens and step-ups hold an agent's JSON as text: many values cost no more."""
    sent = json.dumps([{"type": "x", "parameters": {"a": [{} for _ in range(1000)]}}])
    agents = [await bench.agent(f"agent-{number}") for number in range(2)]
    tracemalloc.start()
    try:
        for agent in agents:
            (detail,) = json.loads(sent)
            answer = await request_token(
                bench.broker,
                agent,
                replace(wanted, parameters=wanted.parameters | detail["parameters"]),
                resource=None,
                details=(detail,),
            )
            assert isinstance(answer, Granted | Escalated)
            del answer, detail
        await ask(bench, agents[0])  # The writer holds the last batch until the next.
        gc.collect()
        # Not what a table of the process takes that grows just now: parsed values.
        parsed = [tracemalloc.Filter(inclusive=True, filename_pattern="*/json/*")]
        kept = tracemalloc.take_snapshot().filter_traces(parsed)
        held = sum(line.size for line in kept.statistics("filename"))
    finally:
        tracemalloc.stop()
    assert held < 6 * len(agents) * len(sent)


async def test_a_decision_records_all_that_it_was_made_from(bench: Bench) -> None:
    """Whole, also where the rest of the event is cut; and it is decided so again."""
    agent = await bench.agent()
    long = Action(
        scopes=("write:calendar",),
        action="write:calendar",
        resource="crm:" + "é" * 500,
        parameters={"note": ["x" * 4000] * 8},
        reason="y" * 4000,
    )
    for action in (CALENDAR, PAYMENT, long):
        await request_token(
            bench.broker,
            agent,
            action,
            resource=None,
            details=({"type": "another"},),
            source="192.0.2.7",
        )
        event = (await bench.events("token.decision"))[-1]
        facts = event.detail["facts"]
        inputs = Inputs.read(agent.id, facts)
        assert (inputs.environment.source, inputs.unread) == ("192.0.2.7", True)
        assert facts.get("resource") == action.resource
        verdict = bench.broker.deciding.policy.answer(inputs)
        assert verdict.outcome is event.outcome
        assert (verdict.reason, verdict.rule) == (event.reason, event.rule)
        assert verdict.policy_version == event.detail["policy_version"]
    assert "$cut" in json.dumps(event.detail)
    query = EventQuery(q="192.0.2.7")
    assert not (await bench.ledger.events(query)).events  # it is no search text


async def test_a_refusal_after_policys_answer_says_what_that_was(bench: Bench) -> None:
    """A fourth step-up is denied, although policy would ask a person."""
    agent = await bench.agent()
    for number in range(4):
        await ask(bench, agent, replace(PAYMENT, resource=f"stripe:acct_{number}"))
    event = (await bench.events("token.decision"))[-1]
    assert (event.outcome, event.reason) == (Outcome.DENIED, "too_many_pending")
    assert event.detail["verdict"] == {
        "outcome": "escalated",
        "reason": "stepup_required",
        "rule": "payments-need-step-up",
    }
