"""The recorded history is decided again from its own facts: none differs, or which."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from support.bench import OPERATOR, PAYMENT, Bench
from support.policies import CALENDAR, NARROW
from support.stepups import approve, ask, hold

from agentvault_tui.broker.answers import Denied, Granted
from agentvault_tui.broker.usecases.evaluate import evaluate
from agentvault_tui.broker.usecases.issue_for import issue_unscoped
from agentvault_tui.broker.usecases.policy_change import reload_policy
from agentvault_tui.broker.usecases.revoke import revoke_agent
from agentvault_tui.errors import LedgerDamagedError
from agentvault_tui.model import Action, Draft, EventType, Outcome
from agentvault_tui.operator_api.planning import MismatchInfo, ReplayInfo
from agentvault_tui.watch.plan import NO_FACTS, NOT_ASKED, replay

UNGRANTED = Action(("read:email",), "read:email")


def replayed(bench: Bench) -> ReplayInfo:
    with bench.reading() as db:
        return replay(db)


async def copy_of_last(bench: Bench, **changed: object) -> None:
    """Record the last decision once more, with other members."""
    event = (await bench.events("token.decision"))[-1]
    detail = json.loads(json.dumps(event.detail))
    for name in ("facts", "policy_version", "verdict", "parameters", "scope"):
        if name in changed:
            detail[name] = changed.pop(name)
            if detail[name] is None:
                del detail[name]
    members = {
        **{
            name: getattr(event, name)
            for name in ("agent_id", "action", "resource", "outcome", "reason", "rule")
        },
        **changed,
    }
    await bench.ledger.commit(Draft(event.type, event.actor, detail=detail, **members))


async def test_a_token_without_a_scope_follows_from_what_a_person_decides(
    bench: Bench,
) -> None:
    """Policy escalates what its agent may ask for: that is no mismatch; a denial is."""
    agent = await bench.agent("payer", "send:payment")
    assert isinstance(await issue_unscoped(bench.broker, agent, None, None), Granted)
    assert replayed(bench).mismatches == 0
    bench.home.policy_file.write_text(NARROW.replace("write:calendar", "send:payment"))
    await reload_policy(bench.broker)
    assert isinstance(await issue_unscoped(bench.broker, agent, None, None), Denied)
    assert replayed(bench).mismatches == 0


async def test_every_decision_follows_from_its_record(bench: Bench) -> None:
    """Allowed, denied, escalated, refused by the broker, approved: all under two
    policies."""
    await bench.record_start()
    payer, stepup = await hold(bench)
    for _ in range(3):
        await ask(bench, payer, CALENDAR)
    await ask(bench, payer, UNGRANTED)
    for amount in range(4):  # the last of them are too many that wait
        parameters = {"amount": amount, "currency": "USD"}
        await ask(
            bench, payer, Action(("send:payment",), "send:payment", "r", parameters)
        )
    await evaluate(bench.broker, payer, PAYMENT)
    await approve(bench, stepup)
    bench.home.policy_file.write_text(NARROW)
    await reload_policy(bench.broker)
    await ask(bench, payer, CALENDAR)
    await revoke_agent(bench.broker, payer.id, "", OPERATOR)
    await ask(bench, payer, CALENDAR)
    found = replayed(bench)
    assert (found.mismatches, found.first) == (0, None)
    decided = [e for e in await bench.events() if e.outcome is not None]
    assert found.decisions == len(decided) - 1
    assert found.apart == {NOT_ASKED: 1}
    assert found.made < found.decisions
    assert {e.outcome for e in decided} == set(Outcome)


@pytest.mark.parametrize(
    ("changed", "fact", "recorded", "decided"),
    [
        ({"rule": "another"}, "rule", "another", "granted-low-and-medium-risk"),
        ({"outcome": Outcome.DENIED}, "outcome", "denied", "allowed"),
        ({"reason": "because"}, "reason", "because", "granted"),
        (
            {
                "outcome": Outcome.ESCALATED,
                "verdict": {"outcome": "allowed", "reason": "granted"},
            },
            *("outcome", "escalated", "allowed"),
        ),
    ],
)
async def test_the_first_that_does_not_follow_is_named(
    bench: Bench, changed: dict[str, object], fact: str, recorded: str, decided: str
) -> None:
    """A record with another answer than its facts give is found, and what of it."""
    await bench.record_start()
    await ask(bench, await bench.agent(), CALENDAR)
    await copy_of_last(bench, **changed)
    seq = bench.ledger.head.seq
    await copy_of_last(bench, **changed)
    found = replayed(bench)
    assert (found.decisions, found.mismatches) == (3, 2)
    assert found.first == MismatchInfo(
        seq=seq, fact=fact, recorded=recorded, decided=decided
    )


@pytest.mark.parametrize(
    ("changed", "fact"),
    [
        ({"policy_version": "0123456789ab"}, "policy_version"),
        ({"policy_version": None}, "policy_version"),
        ({"facts": None}, "facts"),
        ({"facts": None, "rule": None}, "facts"),
        ({"facts": None, "policy_version": None, "rule": "forged"}, "facts"),
    ],
)
@pytest.mark.parametrize("outcome", [Outcome.ALLOWED, Outcome.ESCALATED])
async def test_a_decision_that_cannot_be_decided_again_is_a_mismatch(
    bench: Bench, changed: dict[str, object], fact: str, outcome: Outcome
) -> None:
    """A denial that is forged to pass hides behind no missing fact or version."""
    await bench.record_start()
    await ask(bench, await bench.agent(), CALENDAR)
    await ask(bench, await bench.agent("other"), UNGRANTED)
    await copy_of_last(bench, **changed, outcome=outcome)
    found = replayed(bench)
    assert found.mismatches == 1
    assert found.first is not None
    assert (found.first.seq, found.first.fact) == (bench.ledger.head.seq, fact)


@pytest.mark.parametrize(
    ("changed", "fact"),
    [
        ({"action": "write:email"}, "action"),
        ({"scope": "write:calendar send:payment"}, "scope"),
        ({"resource": "stripe:acct_1"}, "resource"),
        ({"resource": None}, "resource"),
        ({"parameters": {"amount": 1, "currency": "USD"}}, "amount"),
        ({"parameters": {"amount": 4200, "currency": "EUR"}}, "currency"),
        ({"parameters": {}}, "amount"),
        (
            {"parameters": {"amount": 4200, "currency": "USD", "recipients": ["a"]}},
            "recipients",
        ),
        ({"agent": True}, "agent"),
    ],
)
async def test_facts_are_those_of_the_action_beside_them(
    bench: Bench, changed: dict[str, object], fact: str
) -> None:
    """Who reads the record is shown the action that was decided about, and no other."""
    await bench.record_start()
    other = await bench.agent("other")
    await hold(bench)
    if changed.pop("agent", False):
        changed["agent_id"] = other.id
    await copy_of_last(bench, **changed)
    found = replayed(bench)
    assert (found.decisions, found.mismatches) == (2, 1)
    assert found.first is not None
    assert (found.first.seq, found.first.fact) == (bench.ledger.head.seq, fact)


async def test_what_was_recorded_before_facts_were_kept_is_counted_apart(
    bench: Bench,
) -> None:
    """So are refusals that policy was not asked about, and texts that are gone."""
    agent = await bench.agent()
    await ask(bench, agent, CALENDAR)
    await copy_of_last(bench)
    found = replayed(bench)  # no start has recorded a version
    assert (found.decisions, found.mismatches) == (0, 0)
    assert sum(found.apart.values()) == 2


async def test_old_records_without_facts_come_before_all_others(bench: Bench) -> None:
    """An old ledger is no forged one."""
    await bench.record_start()
    agent = await bench.agent()
    draft = Draft(EventType.TOKEN_DECISION, OPERATOR, agent_id=agent.id, rule="old")
    await bench.ledger.commit(replace(draft, outcome=Outcome.ALLOWED, reason="granted"))
    await ask(bench, agent, CALENDAR)
    found = replayed(bench)
    assert (found.decisions, found.mismatches, found.apart) == (1, 0, {NO_FACTS: 1})


async def test_facts_that_are_none_are_damage(bench: Bench) -> None:
    """A record whose facts cannot be read is told, and not passed over."""
    await bench.record_start()
    await ask(bench, await bench.agent(), CALENDAR)
    await copy_of_last(bench, facts={"scopes": 7})
    with pytest.raises(LedgerDamagedError, match="facts that no decision is made from"):
        replayed(bench)
