"""An approval of the next ones like it stands in for a person, and for no more."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from support.bench import OPERATOR, PAYMENT, Bench
from support.scripted_tenant import ALICE
from support.stepups import ask, details_of, hold

from agentvault_tui.broker.answers import Denied, Escalated, Granted, Permitted
from agentvault_tui.broker.serve import _record_start_or_stop
from agentvault_tui.broker.stepups import digest_of
from agentvault_tui.broker.usecases.approvals import end_gathered, end_gathered_before
from agentvault_tui.broker.usecases.decide import Request
from agentvault_tui.broker.usecases.evaluate import evaluate
from agentvault_tui.broker.usecases.policy_change import reload_policy
from agentvault_tui.broker.usecases.redeem import deliver, introspect, poll
from agentvault_tui.broker.usecases.repeat import approval_for, is_same
from agentvault_tui.broker.usecases.request import request_token
from agentvault_tui.broker.usecases.revoke import (
    lift_panic,
    panic,
    restore_agent,
    revoke_agent,
)
from agentvault_tui.broker.usecases.scopes import change_scopes
from agentvault_tui.broker.usecases.stepup import begin_approval, offer
from agentvault_tui.broker.usecases.stepup_end import deny
from agentvault_tui.errors import ConflictError, UsageError
from agentvault_tui.ledger.schema import read_home
from agentvault_tui.model import (
    Action,
    Agent,
    AgentId,
    Draft,
    EventType,
    Outcome,
    ParameterBound,
    Repeat,
    StepUp,
    StepUpStatus,
    TokenKind,
)
from agentvault_tui.model.event import user_changed
from agentvault_tui.policy.texts import shipped_policy
from agentvault_tui.settings import Settings, StepUpSettings
from agentvault_tui.vault import FlowExpired
from agentvault_tui.vault.identity import PageAnswer
from agentvault_tui.watch.plan import replay

UP_TO_5000 = Repeat(3, 600, (ParameterBound("amount", 5000),))


def paying(amount: float, **more: Any) -> Action:
    parameters = {**PAYMENT.parameters, "amount": amount, **more}
    return replace(PAYMENT, parameters=parameters, reason="Invoice 1882")


async def begun(bench: Bench, stepup: StepUp, repeat: Repeat) -> StepUp:
    return await begin_approval(
        bench.broker, stepup.id, stepup.digest, OPERATOR, repeat
    )


async def proved(bench: Bench, stepup: StepUp) -> None:
    bench.tenant.approve()
    known = bench.broker.stepups
    await bench.until(lambda: known.get(stepup.id).status is StepUpStatus.APPROVED)


async def approved(bench: Bench, repeat: Repeat = UP_TO_5000) -> tuple[Agent, StepUp]:
    agent, stepup = await hold(bench)
    await begun(bench, stepup, repeat)
    await proved(bench, stepup)
    return agent, bench.broker.stepups.get(stepup.id)


async def again(bench: Bench, agent: Agent, action: Action) -> Any:
    """Ask, and have the token where an approval stands in for a person."""
    answer = await ask(bench, agent, action)
    if isinstance(answer, Escalated) and not answer.stepup.status.open:
        return await deliver(bench.broker, agent, answer.stepup)
    return answer


def left(bench: Bench, stepup: StepUp) -> int:
    repeat = bench.broker.stepups.get(stepup.id).repeat
    return repeat.left if repeat else 0


async def test_the_next_ones_like_it_need_no_person(bench: Bench) -> None:
    """Three more within the bound are allowed, each for one token; a fourth waits."""
    agent, stepup = await approved(bench)
    server = await bench.agent("api", resource_server=True)
    for amount in (1, 5000, 4200):
        granted = await again(bench, agent, paying(amount))
        assert isinstance(granted, Granted)
        assert granted.token.kind is TokenKind.ELEVATED
        seen = await introspect(bench.broker, server, granted.access_token)
        assert seen.token is not None
        assert f'"amount":{amount}' in (seen.token.authorization_details or "")
        used = await introspect(bench.broker, server, granted.access_token)
        assert used.token is None
    assert isinstance(await again(bench, agent, paying(4200)), Escalated)
    events = await bench.events("token.decision")
    outcomes = [event.outcome for event in events]
    assert outcomes == [Outcome.ESCALATED, *[Outcome.ALLOWED] * 3, Outcome.ESCALATED]
    assert events[1].reason == "stepup_repeated"
    assert events[1].detail["repeat_of"] == stepup.id
    said = (await bench.events("stepup.approved"))[1:]
    assert [event.detail["repeat_left"] for event in said] == [2, 1, 0]
    assert {event.actor.id for event in said} == {"agentvault|alice"}


async def test_the_digest_is_over_action_and_repeat(bench: Bench) -> None:
    """The tenant shows it, and asked again with another repeat there is a new code."""
    _, stepup = await hold(bench)
    shown = stepup.digest
    begin = begin_approval
    first = await begin(bench.broker, stepup.id, shown, OPERATOR, UP_TO_5000)
    assert first.digest != shown
    assert digest_of(first) == first.digest
    assert bench.tenant.shown[-1][0]["repeat"] == {
        "count": 3,
        "within": 600,
        "bounds": {"amount": {"max": 5000}},
    }
    assert first.digest[7:11].upper() == bench.tenant.shown[-1][0]["fingerprint"]
    same = await begin(bench.broker, stepup.id, first.digest, OPERATOR, UP_TO_5000)
    assert (same.device, same.digest) == (first.device, first.digest)
    other = replace(UP_TO_5000, count=4)
    anew = await begin(bench.broker, stepup.id, first.digest, OPERATOR, other)
    assert anew.device != first.device
    assert anew.digest not in {first.digest, shown}
    plain = await begin(bench.broker, stepup.id, shown, OPERATOR)
    assert (plain.digest, plain.repeat) == (shown, None)
    with pytest.raises(ConflictError):
        await begin(bench.broker, stepup.id, other_digest(shown), OPERATOR)


def other_digest(digest: str) -> str:
    return digest[:-1] + ("0" if digest[-1] != "0" else "1")


@pytest.mark.parametrize(
    "action",
    [
        paying(5001),
        paying(4200.0),
        paying(-1),
        paying(4200, Amount=1),
        paying(4200, note="x"),
        paying(4200, currency="EUR"),
        replace(paying(4200), resource="stripe:acct_43"),
        replace(paying(4200), resource="stripe:Acct_42"),
        replace(paying(4200), resource=None),
        replace(paying(4200), parameters={"amount": 4200}),
    ],
)
async def test_the_first_that_deviates_ends_the_rest(
    bench: Bench, action: Action
) -> None:
    """It waits for a person itself, and so does all that comes after it."""
    agent, stepup = await approved(bench)
    assert isinstance(await again(bench, agent, paying(10)), Granted)
    assert isinstance(await again(bench, agent, action), Escalated)
    assert left(bench, stepup) == 0
    assert isinstance(await again(bench, agent, paying(10)), Escalated)
    (event,) = await bench.events("stepup.repeat_ended")
    assert (event.reason, event.detail["stepup_id"]) == ("deviated", stepup.id)


async def test_another_agent_and_another_action_are_none_of_it(bench: Bench) -> None:
    """They neither use it nor end it."""
    _, stepup = await approved(bench)
    other = await bench.agent("other")
    assert isinstance(await again(bench, other, paying(10)), Escalated)
    calendar = Action(("write:calendar",), "write:calendar")
    assert isinstance(await ask(bench, other, calendar), Granted)
    assert left(bench, stepup) == 3


@pytest.mark.parametrize(
    "other",
    [
        {"action": replace(PAYMENT, scopes=("send:email",))},
        {"action": replace(PAYMENT, action="send:email")},
        {"action": replace(PAYMENT, resource="stripe:acct_43")},
        {"action": paying(4201)},
        {"action": paying(4200, more=None)},
        {"resource": "https://api.test/"},
        {"details": None},
        {"details": (*details_of(PAYMENT), {"type": "x"})},
        {"connection": "google-oauth2"},
        {"call": "{}"},
        {"evaluation": True},
    ],
)
async def test_a_request_is_the_same_in_everything_that_a_person_decides_about(
    bench: Bench, other: dict[str, Any]
) -> None:
    """Its agent's reason may differ, and nothing else."""
    agent, stepup = await hold(bench)
    same = Request.approved(agent, stepup)
    reason = replace(stepup.requested, reason="Invoice 1882")
    assert is_same(stepup, same)
    assert is_same(stepup, same._replace(action=reason))
    assert not is_same(stepup, same._replace(**other))


async def test_a_token_that_was_passed_on_has_no_part_in_it(bench: Bench) -> None:
    """The person said yes to the agent itself."""
    agent, stepup = await approved(bench)
    same = Request.approved(agent, stepup)
    verdict = same.foresee(bench.broker)
    assert await approval_for(bench.broker, same, verdict) is not None
    passed = same._replace(chain=(AgentId("agt_first"),))
    assert await approval_for(bench.broker, passed, verdict) is None


@pytest.mark.parametrize("change", ["the policy", "no details"])
async def test_another_policy_or_no_details_is_a_deviation(
    bench: Bench, change: str
) -> None:
    """What a resource server would be told, or what asked for a person, is another."""
    agent, stepup = await approved(bench)
    details: tuple[dict[str, Any], ...] | None = details_of(paying(10))
    if change == "the policy":
        bench.home.policy_file.write_text(f"{shipped_policy()}// another\n")
        await reload_policy(bench.broker)
    else:
        details = None
    answer = await request_token(
        bench.broker, agent, paying(10), resource=None, details=details
    )
    assert isinstance(answer, Escalated)
    assert answer.stepup.status is StepUpStatus.PENDING
    assert left(bench, stepup) == 0


async def test_a_revocation_overtakes_an_approval_that_stands_in(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was recorded as approved, and is void: no token is left of it."""
    agent, _ = await approved(bench)
    record = bench.broker.record

    async def during(*drafts: Draft, **more: Any) -> Any:
        written = await record(*drafts, **more)
        monkeypatch.setattr(bench.broker, "record", record)
        await revoke_agent(bench.broker, agent.id, "", OPERATOR)
        return written

    monkeypatch.setattr(bench.broker, "record", during)
    answer = await ask(bench, agent, paying(10))
    assert isinstance(answer, Denied)
    assert answer.reason == "agent_revoked"
    assert bench.broker.registry.tokens_of(agent.id) == []


async def test_it_ends_in_time_counted_from_the_proof(bench: Bench) -> None:
    """After the seconds that were approved a person is asked again."""
    agent, stepup = await approved(bench)
    bench.clock.advance(599)
    assert isinstance(await again(bench, agent, paying(10)), Granted)
    bench.clock.advance(2)
    assert isinstance(await again(bench, agent, paying(10)), Escalated)
    assert not bench.broker.stepups.get(stepup.id).repeats(bench.clock)


async def test_sixty_four_at_once_use_no_more_than_was_approved(bench: Bench) -> None:
    """Each counts before its record is written."""
    agent, _ = await approved(bench)
    asked = [again(bench, agent, paying(n)) for n in range(1, 65)]
    answers = await asyncio.gather(*asked)
    assert sum(isinstance(answer, Granted) for answer in answers) == 3


@pytest.mark.parametrize("how", ["agent", "panic", "scope", "operator"])
async def test_revoking_ends_it_for_good(bench: Bench, how: str) -> None:
    """Also once what was cut is given back, and after the first was redeemed."""
    agent, stepup = await approved(bench)
    granted = await poll(bench.broker, agent, stepup.id)
    assert isinstance(granted, Granted)
    server = await bench.agent("api", resource_server=True)
    await introspect(bench.broker, server, granted.access_token)
    broker, scope = bench.broker, frozenset({"send:payment"})
    match how:
        case "agent":
            await revoke_agent(broker, agent.id, "", OPERATOR)
            agent = await restore_agent(broker, agent.id, OPERATOR)
        case "panic":
            await panic(broker, "drill", OPERATOR)
            await lift_panic(broker, OPERATOR)
        case "scope":
            await change_scopes(broker, agent.id, frozenset(), scope, OPERATOR)
            await change_scopes(broker, agent.id, scope, frozenset(), OPERATOR)
        case _:
            ended, _ = await deny(broker, stepup.id, "enough", OPERATOR)
            assert ended.status is StepUpStatus.REDEEMED
    agent = broker.registry.agent(agent.id)
    assert isinstance(await again(bench, agent, paying(10)), Escalated)
    async with bench.restarted() as later:
        assert later.broker.stepups.repeating(None) == []


async def test_it_outlives_a_restart_with_what_is_left(bench: Bench) -> None:
    """Also once the approval's own token was used up, and others were since."""
    agent, stepup = await approved(bench)
    server = await bench.agent("api", resource_server=True)
    first = await deliver(bench.broker, agent, bench.broker.stepups.get(stepup.id))
    assert isinstance(first, Granted)
    await introspect(bench.broker, server, first.access_token)
    await again(bench, agent, paying(10))
    async with bench.restarted() as later:
        assert left(later, stepup) == 2
        assert isinstance(await again(later, agent, paying(10)), Granted)
        assert left(later, stepup) == 1


async def test_a_row_that_was_given_repeats_is_not_believed(bench: Bench) -> None:
    """An approval whose row was changed while the broker was down repeats nothing."""
    agent, stepup = await approved(bench)
    await deny(bench.broker, stepup.id, "", OPERATOR)
    await bench.close()
    with closing(sqlite3.connect(bench.home.database)) as db, db:
        db.execute("UPDATE stepups SET doc = json_set(doc, '$.repeat.left', 20)")
    later = await Bench.open(bench.home, bench.clock)
    try:
        assert isinstance(await again(later, agent, paying(10)), Escalated)
    finally:
        await later.close()


@pytest.mark.parametrize(
    ("bounds", "told"),
    [
        ((ParameterBound("amount", 4199),), "4200"),
        ((ParameterBound("count", 3),), "count"),
        ((ParameterBound("currency", 3),), "currency"),
    ],
)
async def test_the_request_itself_is_within_its_bounds(
    bench: Bench, bounds: tuple[ParameterBound, ...], told: str
) -> None:
    """A bound that it passes, or does not state, or that is none, is refused."""
    _, stepup = await hold(bench)
    repeat = Repeat(1, 60, bounds)
    with pytest.raises(UsageError, match=told):
        await begin_approval(bench.broker, stepup.id, stepup.digest, OPERATOR, repeat)
    assert bench.broker.stepups.get(stepup.id).status is StepUpStatus.PENDING


@pytest.mark.parametrize("begun_first", [None, UP_TO_5000, Repeat(1, 60)])
async def test_a_series_chosen_at_the_page_begins_anew_under_its_own_digest(
    bench: Bench, begun_first: Repeat | None
) -> None:
    """Whoever chose is the actor; chosen again as it is, it gets a code that works."""
    _, stepup = await hold(bench)
    if begun_first is None:
        await offer(bench.broker, stepup)
    else:
        await begun(bench, stepup, begun_first)
    shown = len(bench.tenant.flows)
    asked = {"count": 3, "within": 600, "bounds": {"amount": {"max": 5000}}}
    bench.tenant.answer(PageAnswer("sub|bob", "bob", ("approver",), False, asked))
    await bench.until(lambda: len(bench.tenant.flows) > shown)
    known = bench.broker.stepups
    await bench.until(lambda: known.codes[stepup.id] is bench.tenant.flows[-1])
    now = known.get(stepup.id)
    assert now.status is StepUpStatus.AUTHORIZING
    assert (now.repeat, now.digest == stepup.digest) == (UP_TO_5000, False)
    started = (await bench.events("stepup.authorizing"))[-1]
    assert (started.actor.id, started.detail["digest"]) == ("sub|bob", now.digest)
    await proved(bench, stepup)
    assert left(bench, stepup) == 3


@pytest.mark.parametrize(
    ("roles", "asked", "why"),
    [
        (("operator",), {"count": 1, "within": 60}, "bob may not do that"),
        ((), None, "bob may not do that"),
        (("approver",), {"count": 21, "within": 60}, "Expected `int` <= 20"),
        (("approver",), {"count": 1, "within": 60, "more": 1}, "unknown field"),
        (("approver",), "all", "Expected `object | null`"),
        (
            ("approver",),
            {"count": 1, "within": 60, "bounds": {"count": {"max": 1}}},
            "does not state count clearly",
        ),
    ],
)
async def test_a_series_that_may_not_be_is_not_begun(
    bench: Bench, roles: tuple[str, ...], asked: object, why: str
) -> None:
    """The request waits on, alone, and its page says why."""
    _, stepup = await hold(bench)
    await offer(bench.broker, stepup)
    bench.tenant.answer(PageAnswer("sub|bob", "bob", roles, False, asked))
    known = bench.broker.stepups
    await bench.until(lambda: known.get(stepup.id).problem is not None)
    now = known.get(stepup.id)
    assert why in (now.problem or "")
    assert (now.status, now.digest) == (StepUpStatus.PENDING, stepup.digest)
    assert len(bench.tenant.flows) == 1


async def test_a_denied_factor_leaves_nothing_to_repeat(bench: Bench) -> None:
    """Back to waiting, the step-up has its first digest, and stands for itself."""
    _, stepup = await hold(bench)
    await begun(bench, stepup, UP_TO_5000)
    bench.tenant.end(FlowExpired())
    known = bench.broker.stepups
    await bench.until(lambda: known.get(stepup.id).status is StepUpStatus.PENDING)
    now = known.get(stepup.id)
    assert (now.status, now.digest, now.repeat) == (
        StepUpStatus.PENDING,
        stepup.digest,
        None,
    )


async def test_an_evaluation_is_repeated_as_one(bench: Bench) -> None:
    """It is permitted each time; a token request is another thing."""
    agent = await bench.agent("payer")
    held = await evaluate(bench.broker, agent, PAYMENT)
    assert isinstance(held, Escalated)
    stepup = held.stepup
    await begun(bench, stepup, Repeat(2, 60))
    await proved(bench, stepup)
    for _ in range(3):
        assert isinstance(await evaluate(bench.broker, agent, PAYMENT), Permitted)
    assert isinstance(await evaluate(bench.broker, agent, PAYMENT), Escalated)


async def test_a_request_with_details_of_another_type_is_another_one(
    bench: Bench,
) -> None:
    """What policy does not read has to be the same."""
    agent, stepup = await approved(bench)
    more = (*details_of(paying(10)), {"type": "x", "to": "mallory"})
    answer = await request_token(
        bench.broker, agent, paying(10), resource=None, details=more
    )
    assert isinstance(answer, Escalated)
    assert answer.stepup.status is StepUpStatus.PENDING
    assert left(bench, stepup) == 0


LIMITS = """
[[limits]]
id = "payments-a-day"
scopes = ["send:payment"]
per = "agent"
within = "24h"
count = 3
over = "deny"
"""


async def test_each_repeat_counts_once_and_a_limit_is_asked_first(bench: Bench) -> None:
    """Of three a day the approved one and two repeats go out; the next is denied."""
    (bench.home.config / "limits.toml").write_text(LIMITS)
    await reload_policy(bench.broker)
    agent, stepup = await approved(bench)
    first = await deliver(bench.broker, agent, bench.broker.stepups.get(stepup.id))
    assert isinstance(first, Granted)
    for _ in range(2):
        assert isinstance(await again(bench, agent, paying(10)), Granted)
    over = await again(bench, agent, paying(10))
    assert isinstance(over, Denied)
    assert over.reason == "limit_reached"
    assert left(bench, stepup) == 1


async def test_the_history_with_repeats_decides_itself_again(bench: Bench) -> None:
    """What policy said of each is in its record, beside what stood in for a person."""
    await _record_start_or_stop(bench.broker, EventType.BROKER_STARTED)
    agent, _ = await approved(bench)
    for amount in (1, 5000, 5001):
        await again(bench, agent, paying(amount))
    with read_home(bench.home) as db:
        told = replay(db)
    assert (told.decisions, told.mismatches, told.first) == (4, 0, None)


@pytest.mark.parametrize("running", [True, False])
async def test_a_removed_approver_ends_the_repeats_that_they_approved(
    bench: Bench, running: bool
) -> None:
    """At once, or at the next start; those of another person go on."""
    agent, stepup = await approved(bench)
    removed = user_changed(OPERATOR, "removed", "alice", "agentvault|alice", [])

    async def left_after(one: Bench, sub: str) -> int:
        await one.broker.record(replace(removed, detail={**removed.detail, "sub": sub}))
        if running:
            await end_gathered(one.broker, sub)
        else:
            await end_gathered_before(one.broker)
        return left(one, stepup)

    async with bench.restarted() as again:
        assert await left_after(again, "agentvault|bob") == 3
        assert await left_after(again, "agentvault|alice") == 0
        (event,) = await again.events("stepup.repeat_ended")
        assert event.reason == "approver_changed"
        asked = await ask(again, again.broker.registry.agent(agent.id), paying(1))
        assert isinstance(asked, Escalated)
        assert asked.stepup.status is StepUpStatus.PENDING


@pytest.mark.parametrize(
    ("before", "after", "still"),
    [
        ([], [], True),
        ([], ["agentvault|alice"], True),
        ([], ["Alice@acme.test"], True),
        ([], ["bob@acme.test"], False),
        (["alice@acme.test"], [], True),
        (["alice@acme.test"], ["agentvault|bob", "alice@acme.test"], True),
        (["alice@acme.test"], ["agentvault|bob"], False),
    ],
)
async def test_repeats_end_where_the_list_of_approvers_names_nobody_who_approved(
    bench: Bench, before: list[str], after: list[str], still: bool
) -> None:
    """The settings are read at a start; with no list the role counts that they had."""
    async with bench.restarted(listing(before)) as first:
        stepup = await approved_by(first, roles=("approver",))
        async with first.restarted(listing(after)) as again:
            await end_gathered_before(again.broker)
            assert left(again, stepup) == (3 if still else 0)
            ended = [one.reason for one in await again.events("stepup.repeat_ended")]
            assert ended == ([] if still else ["approver_changed"])


async def test_a_listed_approver_without_the_role_needs_the_list(bench: Bench) -> None:
    """Where the list was emptied nothing says that they are an approver."""
    async with bench.restarted(listing(["agentvault|alice"])) as first:
        stepup = await approved_by(first, roles=())
        async with first.restarted() as again:
            await end_gathered_before(again.broker)
            assert left(again, stepup) == 0


def listing(approvers: list[str]) -> Settings:
    return Settings(stepup=StepUpSettings(approvers=tuple(approvers)))


async def approved_by(bench: Bench, roles: tuple[str, ...]) -> StepUp:
    _, stepup = await hold(bench)
    await begun(bench, stepup, UP_TO_5000)
    alice = {**ALICE, "email": "alice@acme.test", "email_verified": True}
    bench.tenant.approve(who={**alice, "roles": roles})
    known = bench.broker.stepups
    await bench.until(lambda: known.get(stepup.id).status is StepUpStatus.APPROVED)
    return stepup
