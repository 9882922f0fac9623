"""What agents do not need is told from the history, by their own rhythm."""

from __future__ import annotations

from datetime import timedelta

import pytest
from support.bench import OPERATOR, PAYMENT, Bench
from support.manual_clock import ManualClock
from support.stepups import approve, ask

from agentvault_tui.amounts import render_spans
from agentvault_tui.broker.answers import Denied, Escalated
from agentvault_tui.broker.usecases.policy_change import reload_policy
from agentvault_tui.broker.usecases.request import request_token
from agentvault_tui.broker.usecases.stepup_end import deny
from agentvault_tui.model import Action, Agent, Money
from agentvault_tui.operator_api.advice import AdviceInfo
from agentvault_tui.policy import Policy, PolicyTexts, shipped_policy
from agentvault_tui.watch.advice import Window, advise, rhythm_of

DAY = 86_400.0
SOURCES = ("policy", "scopes", "limits")
READ, WRITE = "read:calendar", "write:calendar"
LIMITS = f"""
[[limits]]
id = "together"
scopes = ["{READ}", "{WRITE}"]
count = 1
within = "1h"
over = "deny"
"""


def advice(
    bench: Bench, clock: ManualClock, days: float = 30, policy: Policy | None = None
) -> list[AdviceInfo]:
    window = Window(clock.now() - timedelta(days=days), clock.now())
    with bench.reading() as db:
        return advise(db, policy or bench.broker.deciding.policy, window)


def kinds(found: list[AdviceInfo]) -> list[tuple[str, str]]:
    return sorted((one.kind, one.scope) for one in found)


async def use(bench: Bench, agent: Agent, scope: str, resource: str = "r") -> None:
    await ask(bench, agent, Action((scope,), scope, resource))


async def test_a_scope_that_was_never_used_is_advised_away(
    bench: Bench, clock: ManualClock
) -> None:
    """With the other one in use, and not before the grant is as old as the window."""
    agent = await bench.agent("a", READ, WRITE)
    clock.advance(29 * DAY)
    await use(bench, agent, READ)
    assert advice(bench, clock) == []
    clock.advance(2 * DAY)
    (found,) = advice(bench, clock)
    assert (found.kind, found.agent_id, found.scope) == (
        "unused_scope",
        agent.id,
        WRITE,
    )
    assert found.change.ungrant == [WRITE]
    evidence = found.evidence
    assert (evidence.count, evidence.last_used_at, evidence.rhythm) == (0, None, "none")
    assert evidence.would_have_refused == 0


async def test_a_scope_asked_for_among_others_is_unused_and_would_be_missed(
    bench: Bench, clock: ManualClock
) -> None:
    """A token for several scopes is no use of each, and its requests are named."""
    agent = await bench.agent("a", READ, WRITE)
    clock.advance(31 * DAY)
    await use(bench, agent, READ)
    both = Action((READ, WRITE), READ, named=False)
    await request_token(
        bench.broker, agent, both, resource=None, details=None, source=None
    )
    (found,) = [one for one in advice(bench, clock) if one.scope == WRITE]
    event = (await bench.events("token.decision"))[-1]
    assert found.evidence.would_have_refused == 1
    assert found.evidence.refused == [event.seq]


async def test_what_a_limit_stops_or_a_person_has_to_decide_is_not_unused(
    bench: Bench, clock: ManualClock
) -> None:
    """The agent needs it now; what was denied for good may be unused."""
    agent = await bench.agent("a", READ, WRITE, "send:payment")
    bench.home.limits_file.write_text(LIMITS)
    await reload_policy(bench.broker)
    clock.advance(31 * DAY)
    await use(bench, agent, READ)
    held = await ask(bench, agent, PAYMENT)
    assert isinstance(held, Escalated)
    assert kinds(advice(bench, clock)) == [("unused_scope", WRITE)]
    denied = await ask(bench, agent, Action((WRITE,), WRITE, "r"))
    assert isinstance(denied, Denied)
    assert advice(bench, clock) == []
    await deny(bench.broker, held.stepup.id, "no", OPERATOR)
    assert kinds(advice(bench, clock)) == [("unused_scope", "send:payment")]


@pytest.mark.parametrize(
    ("every", "rhythm", "quiet"),
    [(1, "daily", 30), (7, "weekly", 17.5), (31, "monthly", 77.5)],
)
async def test_regular_use_is_not_unused_before_two_and_a_half_periods(
    bench: Bench, clock: ManualClock, every: float, rhythm: str, quiet: float
) -> None:
    """Weekly and monthly jobs keep their scopes, whatever the window is."""
    agent = await bench.agent("a", READ, WRITE)
    for _ in range(4):
        clock.advance(every * DAY)
        await use(bench, agent, WRITE)
    window = min(quiet, 30)
    clock.advance((quiet - 0.5) * DAY)
    await use(bench, agent, READ)
    assert advice(bench, clock, window) == []
    clock.advance(1 * DAY)
    (found,) = advice(bench, clock, window)
    assert (found.kind, found.evidence.rhythm) == ("unused_scope", rhythm)


def test_the_rhythm_is_the_median_gap_between_days() -> None:
    """Three days are the fewest; one long pause does not make a daily job monthly."""
    assert rhythm_of({"2026-01-01", "2026-01-08"}) == ("none", 0.0)
    assert rhythm_of({"2026-01-01", "2026-01-02", "2026-01-03"}) == ("daily", 1.0)
    days = {"2026-01-01", "2026-01-02", "2026-01-03", "2026-04-03"}
    assert rhythm_of(days) == ("daily", 1.0)
    assert rhythm_of({"2026-01-01", "2026-01-15", "2026-01-29"}) == ("weekly", 14.0)
    assert rhythm_of({"2026-01-01", "2026-04-01", "2026-07-01"})[0] == "monthly"


async def test_an_agent_that_does_nothing_is_idle(
    bench: Bench, clock: ManualClock
) -> None:
    """Its scopes are not told one by one; a resource server is never idle."""
    agent = await bench.agent("a", READ, WRITE)
    await bench.agent("server", READ, resource_server=True)
    await use(bench, agent, READ)
    clock.advance(31 * DAY)
    (found,) = [one for one in advice(bench, clock) if one.agent_id]
    assert (found.kind, found.agent_id) == ("idle_agent", agent.id)
    assert found.change.revoke is True
    assert found.evidence.last_used_at is not None


async def test_few_resources_are_a_narrower_rule(
    bench: Bench, clock: ManualClock
) -> None:
    """The rule can be put in force, forbids others, and lets the used ones be."""
    agent = await bench.agent("a", WRITE)
    for number in range(30):
        await use(bench, agent, WRITE, f"calendar:{number % 2}")
    (found,) = advice(bench, clock)
    assert found.kind == "narrower_resource"
    text = f"{shipped_policy()}\n{found.change.rule}"
    policy = Policy.of(PolicyTexts(text), ("p", "s", "l"))
    bench.broker.deciding.policy = policy
    allowed = await ask(bench, agent, Action((WRITE,), WRITE, "calendar:1"))
    assert allowed.access_token
    refused = await ask(bench, agent, Action((WRITE,), WRITE, "calendar:2"))
    assert refused.reason == "policy_forbids"
    event = (await bench.events("token.decision"))[-1]
    assert event.rule == f"advice:{found.id}"


async def test_resources_that_are_many_or_hostile_are_not_narrowed(
    bench: Bench, clock: ManualClock
) -> None:
    """What would not be a plain string of Cedar never becomes one."""
    many, hostile = await bench.agent("m", WRITE), await bench.agent("h", WRITE)
    for number in range(30):
        await use(bench, many, WRITE, f"calendar:{number}")
        await use(bench, hostile, WRITE, 'x" || true //')
    assert advice(bench, clock) == []


async def test_slow_growth_is_told_as_growth(bench: Bench, clock: ManualClock) -> None:
    """An agent that asks a little more each week is told, with the limit it had."""
    agent = await bench.agent("a", WRITE)
    for week in range(4):
        for _ in range(5 + 2 * week):
            await use(bench, agent, WRITE, f"calendar:{week}")
        clock.advance(7.4 * DAY)
    (found,) = advice(bench, clock)
    assert (found.kind, found.scope) == ("growth", WRITE)
    limit = found.change.limit
    assert isinstance(limit, dict)
    assert limit["count"] == 5
    assert limit["over"] == "step_up"


async def test_a_limit_far_above_what_is_used_is_lowered(
    bench: Bench, clock: ManualClock
) -> None:
    """It is told at twice the most that a window held, from 20 decisions on."""
    text = (
        '[[limits]]\nid = "a-day"\nscopes = ["write:calendar"]\n'
        'within = "24h"\ncount = {}\nover = "deny"\n'
    )
    policy = Policy.of(PolicyTexts(limits=text.format(500)), SOURCES)
    bench.broker.deciding.policy = policy
    bench.broker.deciding.limits.define(policy.limits)
    agent = await bench.agent("a", WRITE)
    for number in range(30):
        if number == 25:
            clock.advance(2 * DAY)
        await use(bench, agent, WRITE, f"calendar:{number}")
    (found,) = advice(bench, clock, policy=policy)
    assert (found.kind, found.scope) == ("lower_limit", "a-day")
    assert found.change.limit == {"id": "a-day", "within": "24h", "count": 50}
    near = Policy.of(PolicyTexts(limits=text.format(60)), SOURCES)
    assert advice(bench, clock, policy=near) == []


async def test_a_rule_that_never_matched_is_told_with_its_contrary(
    bench: Bench, clock: ManualClock
) -> None:
    """Only rules that allow, in force since before the window; the advice parses.

    One that matches beside a stricter rule, which its records name, has matched.
    """
    rule = '@id("odd") @why("never permit this?") @obligation("allow")\npermit (\
principal, action == Action::"read:files", resource);\n@id("beside") @why("w")\
@obligation("allow") permit (principal, action == Action::"send:payment", resource);'
    policy = Policy.of(PolicyTexts(f"{shipped_policy()}\n{rule}"), ("p", "s", "l"))
    await bench.record_start()
    agent = await bench.agent("a", WRITE, "send:payment")
    await use(bench, agent, WRITE)
    clock.advance(31 * DAY)
    await ask(bench, agent)
    assert "rule_never_matched" not in dict(kinds(advice(bench, clock, 30, policy)))
    for number in range(20):
        await use(bench, agent, WRITE, f"calendar:{number}")
    found = advice(bench, clock, policy=policy)
    assert "beside" not in [one.scope for one in found]
    (odd,) = [one for one in found if one.scope == "odd"]
    assert odd.kind == "rule_never_matched"
    text = f"{policy.text}\n{odd.change.rule}"
    contrary = Policy.of(PolicyTexts(text), ("p", "s", "l")).rule(f"advice:{odd.id}")
    assert contrary is not None
    assert contrary.obligation.value == "deny"
    assert "rule_never_matched" not in dict(kinds(advice(bench, clock, 40, policy)))


async def test_no_rule_allows_more_than_was_approved(
    bench: Bench, clock: ManualClock
) -> None:
    """Thirty recipients that were always approved are no leave to write to all."""
    agent = await bench.agent("mailer", "send:email")
    for number in range(5):
        parameters = {"recipients": 30, "subject": f"report {number}"}
        mail = Action(("send:email",), "send:email", "mail:team", parameters)
        held = await ask(bench, agent, mail)
        await approve(bench, held.stepup)
    rules = [str(one.change.rule) for one in advice(bench, clock)]
    assert all("context.recipients <= 30" in rule for rule in rules)
    assert rules


async def test_prompts_that_were_always_approved_are_told_with_a_rule(
    bench: Bench, clock: ManualClock
) -> None:
    """The rule spares them and no other; one denial is enough to keep the prompt."""
    agent = await bench.agent("payer", "send:payment")
    for amount in range(1, 6):
        parameters = {"amount": amount * 100, "currency": "USD"}
        pay = Action(("send:payment",), "send:payment", "stripe:acct_42", parameters)
        held = await ask(bench, agent, pay)
        await approve(bench, held.stepup)
    (found,) = advice(bench, clock)
    assert found.kind == "always_approved"
    assert found.evidence.prompts_saved == 5
    text = shipped_policy()
    for name in ("payments-need-step-up", "high-risk-needs-step-up"):
        rule = bench.broker.deciding.policy.rule(name)
        assert rule is not None
        text = text.replace(rule.source, "")
    text += str(found.change.rule)
    bench.broker.deciding.policy = Policy.of(PolicyTexts(text), ("p", "s", "l"))

    async def outcome(amount: int, resource: str = "stripe:acct_42") -> str:
        parameters = {"amount": amount, "currency": "USD"}
        pay = Action(("send:payment",), "send:payment", resource, parameters)
        await ask(bench, agent, pay)
        return str((await bench.events("token.decision"))[-1].outcome)

    assert await outcome(500) == "allowed"
    assert await outcome(501) == "escalated"
    assert await outcome(500, "stripe:acct_43") == "escalated"


async def test_a_rule_for_amounts_in_major_units_bounds_them_exactly(
    bench: Bench, clock: ManualClock
) -> None:
    """An amount with a fraction is no whole number, and is bounded all the same."""
    agent = await bench.agent("payer", "send:payment")

    def pay(amount: str) -> Action:
        parameters = {"amount": amount, "currency": "USD"}
        scope = "send:payment"
        place = "stripe:acct_42"
        return Action((scope,), scope, place, parameters, money=Money("major", 2))

    for amount in ("12.00", "40.50", "9.99", "39.00", "20.00"):
        held = await ask(bench, agent, pay(amount))
        await approve(bench, held.stepup)
    (found,) = advice(bench, clock)
    rule = str(found.change.rule)
    assert 'context.amount_major.lessThanOrEqual(decimal("40.50"))' in rule
    assert render_spans(found.evidence.amounts) == "9.99 to 40.50 USD"
    text = shipped_policy()
    for name in ("payments-need-step-up", "high-risk-needs-step-up"):
        (source,) = [
            one.source for one in bench.broker.deciding.policy.rules if one.id == name
        ]
        text = text.replace(source, "")
    bench.broker.deciding.policy = Policy.of(PolicyTexts(text + rule), SOURCES)
    for amount, outcome in (("40.50", "allowed"), ("40.51", "escalated")):
        await ask(bench, agent, pay(amount))
        events = await bench.events("token.decision")
        assert events[-1].outcome == outcome
