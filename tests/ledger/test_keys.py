"""Which commits of several brokers overtake each other, by their keys."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from support.ledger_kit import agent, decision, manual_clock, note, stepup, token

from agentvault_tui.ledger import (
    Cooldown,
    DropAgentTokens,
    DropAllTokens,
    DropScopeTokens,
    DropToken,
    KeptText,
    Meta,
    Panic,
    UsedAssertion,
)
from agentvault_tui.ledger.keys import keys_of, written_keys
from agentvault_tui.ledger.state import change_of, row_of
from agentvault_tui.model import (
    AgentId,
    AgentStatus,
    Credential,
    Draft,
    EventType,
    Evidence,
    Outcome,
    StepUpId,
    TokenId,
)
from agentvault_tui.model.event import user_changed

CLOCK = manual_clock()
AGENT, OTHER = AgentId("agt_1"), AgentId("agt_2")
NAMES = itertools.count(1)
Commit = tuple[list[Draft], list[Any]]


def granted(name: str = "tok_1", who: str = "agt_1", **detail: Any) -> Commit:
    return [decision(who, **detail)], [token(CLOCK, name, who)]


def delegated(parent: str, name: str) -> Commit:
    made = token(CLOCK, name, "agt_2")._replace(
        parent_id=TokenId(parent), chain=(AGENT,)
    )
    return [note(EventType.TOKEN_DELEGATED, "agt_2")], [made]


def elevated(stepup_id: str) -> Commit:
    """Return what gives another agent than the step-up's the token of an approval."""
    made = token(CLOCK, "tok_9", "agt_9")
    return [], [made._replace(stepup_id=StepUpId(stepup_id))]


def redeemed(name: str) -> Commit:
    return [note(EventType.TOKEN_REDEEMED)], [DropToken(TokenId(name))]


def limited(limit: str) -> Commit:
    name = f"tok_{next(NAMES)}"
    return granted(name, "agt_9", counted={"limits": {limit: {"count": 1}}})


REVOKED: Commit = ([note(EventType.AGENT_REVOKED)], [DropAgentTokens(AGENT)])
ASKED: Commit = ([decision(outcome=Outcome.ESCALATED)], [stepup(CLOCK, "sup_3")])


def made(name: str, **changes: Any) -> Commit:
    """Return what registers another agent."""
    one = replace(agent(name), name=name, **changes)
    return [note(EventType.AGENT_REGISTERED, name)], [one]


def named(agent_id: str, name: str) -> Commit:
    return [], [replace(agent(agent_id), name=name)]


GRANTING = (
    EventType.TOKEN_DELIVERED,
    EventType.TOKEN_EXCHANGED,
    EventType.STEPUP_CONFIRMED,
    EventType.STEPUP_APPROVED,
    EventType.CONNECTION_ADDED,
)
SUBJECT = Credential(subject="ci:repo:acme/app:x")
ENDED_SUBJECT = made("agt_3", credential=SUBJECT, status=AgentStatus.REVOKED)
CALLED: Commit = ([replace(decision(), type=EventType.GATEWAY_ATTEMPT)], [])
ENDED: Commit = (
    [replace(note(EventType.GATEWAY_RESULT), detail={"call_id": "call_1"})],
    [],
)
REMOVED: Commit = ([user_changed(note().actor, "removed", "al", "u|al", ())], [])
AL = Evidence("u|al", "al")
USED: Commit = ([], [UsedAssertion("agt_1", "ab", CLOCK.now())])


def overtakes(first: Commit, second: Commit) -> bool:
    """Tell whether *second*, decided before *first* was placed, may not be placed."""
    numbers = itertools.count(1)
    rows, others = (
        [row_of(change, next(numbers)) for change in changes]
        for _, changes in (first, second)
    )
    return not written_keys(*first, rows).isdisjoint(keys_of(*second, others))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (REVOKED, granted()),
        (REVOKED, redeemed("tok_1")),
        (REVOKED, delegated("tok_1", "tok_2")),
        (REVOKED, ASKED),
        *((REVOKED, ([note(one)], [])) for one in GRANTING),
        (([], [stepup(CLOCK, "sup_3")]), elevated("sup_3")),
        (REVOKED, CALLED),
        (([], [DropScopeTokens(AGENT, "read:mail")]), granted()),
        (([], [DropAllTokens()]), granted()),
        (([], [agent()]), granted()),
        (([], [agent()]), ([], [agent()])),
        (([], [Panic(True, CLOCK.now(), "olga", "")]), granted()),
        (([note(EventType.POLICY_CHANGED)], []), granted()),
        (redeemed("tok_1"), redeemed("tok_1")),
        (redeemed("tok_1"), delegated("tok_1", "tok_2")),
        (delegated("tok_1", "tok_2"), delegated("tok_1", "tok_3")),
        (ASKED, ([decision(outcome=Outcome.ESCALATED)], [stepup(CLOCK, "sup_4")])),
        (([], [Cooldown(AGENT, 1)]), ASKED),
        (USED, USED),
        (limited("mail"), limited("mail")),
        (([], [Meta("mark", "1")]), ([], [Meta("mark", "2")])),
        (made("agt_3", credential=SUBJECT), made("agt_4", credential=SUBJECT)),
        (named("agt_3", "payer"), named("agt_4", "PAYER")),
        (([], [agent()]), made("agt_5", from_template=AGENT)),
        (([note(EventType.SERVICE_CHANGED)], []), CALLED),
        (ENDED, ENDED),
        (REMOVED, ([], [replace(stepup(CLOCK), decided_by=AL)])),
        (REMOVED, ([], [replace(stepup(CLOCK), confirmed=(AL,))])),
    ],
)
def test_a_commit_is_overtaken_by_what_changes_its_ground(
    first: Commit, second: Commit
) -> None:
    """Whatever the decision was made from must still be so when it is placed."""
    assert overtakes(first, second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (granted("tok_1"), granted("tok_2")),
        (granted("tok_1", "agt_2"), REVOKED),
        (REVOKED, granted("tok_1", "agt_2")),
        (REVOKED, ([decision(outcome=Outcome.DENIED)], [])),
        (REVOKED, ([note(EventType.GATEWAY_RESULT)], [])),
        (redeemed("tok_1"), redeemed("tok_2")),
        (delegated("tok_1", "tok_2"), delegated("tok_3", "tok_4")),
        (limited("mail"), limited("money")),
        (made("agt_3", credential=SUBJECT), made("agt_4")),
        (ENDED_SUBJECT, made("agt_4", credential=SUBJECT)),
        (named("agt_3", "payer"), named("agt_4", "reader")),
        (made("agt_3", from_template=AGENT), made("agt_4", from_template=AGENT)),
        (([], [KeptText("permit")]), ([], [KeptText("permit")])),
    ],
)
def test_commits_about_different_things_do_not_meet(
    first: Commit, second: Commit
) -> None:
    """Two brokers issue to one agent at once unless a limit counts both."""
    assert not overtakes(first, second)


@pytest.mark.parametrize(
    "change",
    [
        *REVOKED[1],
        *USED[1],
        *ASKED[1],
        token(CLOCK),
        agent(),
        DropToken(TokenId("tok_1")),
        DropScopeTokens(AGENT, "read:mail"),
        DropAllTokens(),
        Panic(True, CLOCK.now(), "olga", "why"),
        Cooldown(AGENT),
        Meta("mark", "1 2"),
        Meta("mark", None),
        KeptText("permit"),
    ],
    ids=lambda change: type(change).__name__,
)
def test_a_row_reads_back_as_the_change_it_was_written_for(change: Any) -> None:
    """What another broker wrote is handed on as the same change."""
    assert repr(change_of(*row_of(change, 7))) == repr(change)
