"""The read model: counts, tokens, step-ups and recent events as frames arrive."""

from __future__ import annotations

import tracemalloc
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fake_state import START, FakeState
from support.manual_clock import ManualClock
from support.wire_shapes import agents_of, filled, status_of, tell

from agentvault_tui.clock import iso
from agentvault_tui.console.state.agents import Attention
from agentvault_tui.console.state.link_state import LinkState
from agentvault_tui.console.state.mirror import RING, AgentRoster, Mirror
from agentvault_tui.console.state.tallies import MOST_TOKENS, RatesByName, TokenStore
from agentvault_tui.console.widgets.agents import Cards
from agentvault_tui.operator_api.shapes import CountsInfo, TokenInfo
from agentvault_tui.presenters import glyphs, revocations, theme, upstream
from agentvault_tui.presenters.intake import Intake, token_key
from agentvault_tui.presenters.lines import Pen
from agentvault_tui.presenters.records import LiveToken


class Told(FakeState):
    """A scripted broker whose frames reach a mirror directly."""

    def __init__(self, mirror: Mirror) -> None:
        super().__init__(START)
        self.mirror = mirror

    def send(self, kind: str, data: dict[str, Any]) -> None:
        tell(self.mirror, kind, data)


@pytest.fixture
def told(clock: ManualClock) -> Told:
    return Told(Mirror(clock))


def test_decisions_are_counted_from_their_events(told: Told) -> None:
    """Each decision adds one to its agent, under its outcome."""
    agent = told.add_agent("a", "read:email")
    for outcome in ("allowed", "allowed", "denied", "escalated"):
        told.decide(agent, "read:email", outcome)
    assert told.mirror.counts(agent["id"]) == CountsInfo(
        allowed=2, denied=1, escalated=1
    )


def test_an_agent_frame_does_not_count_twice(told: Told) -> None:
    """Counts inside a later agent frame hold decisions whose events were counted."""
    agent = told.add_agent("a", "read:email")
    told.decide(agent, "read:email", "allowed")
    told.send("agent", agent)
    told.decide(agent, "read:email", "allowed")
    assert told.mirror.counts(agent["id"]) == CountsInfo(allowed=2)


def test_a_removed_agent_leaves_the_lists(told: Told) -> None:
    """Its frame says since when; nothing of it is drawn from then on."""
    agent = told.add_agent("a", "read:email")
    told.send("agent", {**agent, "status": "revoked", "removed_at": iso(START)})
    assert agent["id"] not in told.mirror.agents
    assert not told.mirror.revoked


def test_events_of_a_snapshot_are_not_counted_again(told: Told) -> None:
    """What the snapshot's counts hold already is only remembered, not added."""
    agent = told.add_agent("a", "read:email")
    told.decide(agent, "read:email", "allowed")
    mirror = Mirror(told.mirror.clock)
    roster = AgentRoster(mirror.intake, agents_of([agent]), told.head)
    mirror.load(status_of(told.status_shape()), roster, [])
    tell(mirror, "audit", told.events[0])
    assert mirror.counts(agent["id"]) == CountsInfo(allowed=1)
    assert [row.seq for row in mirror.events] == [1]


def test_each_page_of_a_snapshot_has_its_own_head(told: Told) -> None:
    """An event between two pages is in the later one's counts, not in the earlier's."""
    first = dict(told.add_agent("a", "read:email"))
    second = told.add_agent("b", "read:email")
    events = [told.decide(each, "read:email", "allowed") for each in (first, second)]
    first["counts"] = {"allowed": 0, "denied": 0, "escalated": 0}
    mirror = Mirror(told.mirror.clock)
    roster = AgentRoster(mirror.intake, agents_of([first]), 0)
    roster.take(agents_of([second]), told.head)
    mirror.load(status_of(told.status_shape()), roster, [])
    for event in [*events, told.decide(second, "read:email", "denied")]:
        tell(mirror, "audit", event)
    assert mirror.counts(first["id"]) == CountsInfo(allowed=1)
    assert mirror.counts(second["id"]) == CountsInfo(allowed=1, denied=1)


def test_an_event_seen_twice_is_one_event(told: Told) -> None:
    """A stream that resumes a little early repeats nothing on the screen."""
    agent = told.add_agent("a", "read:email")
    event = told.decide(agent, "read:email", "allowed")
    told.send("audit", event)
    assert told.mirror.counts(agent["id"]).allowed == 1
    assert len(told.mirror.events) == 1


@pytest.mark.slow
def test_recent_events_are_bounded(told: Told) -> None:
    """However long it runs, it keeps a fixed number of events."""
    agent = told.add_agent("a", "read:email")
    for _ in range(RING + 10):
        told.decide(agent, "read:email", "allowed")
    assert len(told.mirror.events) == RING
    assert told.mirror.events[-1].seq == RING + 10


def test_tokens_end_when_used_revoked_or_expired(told: Told) -> None:
    """A token leaves the card with the event that ends it, or with its time."""
    agent = told.add_agent("a", "read:email")
    first, second, third = (
        told.add_token(agent, "read:email", left) for left in (30, 60, 90)
    )
    mirror, clock = told.mirror, told.mirror.clock
    assert isinstance(clock, ManualClock)
    told.add_event("token.revoked", agent, detail={"token_id": first["id"]})
    held = [token_key(token["id"]) for token in (second, third)]
    assert [row.key for row in mirror.tokens(agent["id"])] == held
    told.add_event("token.redeemed", agent, detail={"token_id": second["id"]})
    assert mirror.live_tokens(agent["id"]) == 1
    clock.advance(91)
    mirror.tick(clock.now())
    assert mirror.live_tokens(agent["id"]) == 0


def test_revoking_empties_the_card_at_once(told: Told) -> None:
    """The event alone is enough: nothing waits for the agent's next frame."""
    agent = told.add_agent("a", "read:email")
    told.add_token(agent, "read:email", 600)
    told.add_event("agent.revoked", agent)
    assert told.mirror.live_tokens(agent["id"]) == 0


def test_panic_empties_every_card(told: Told) -> None:
    """After the switch no agent shows a live token."""
    agents = [told.add_agent(name, "read:email") for name in "abc"]
    for agent in agents:
        told.add_token(agent, "read:email", 600)
    told.add_event("panic.on")
    assert [told.mirror.live_tokens(agent["id"]) for agent in agents] == [0, 0, 0]


def test_a_restore_is_shown_with_its_event(told: Told) -> None:
    """A frame that still says revoked does not outlast the event of the restore."""
    mirror, agent = told.mirror, told.add_agent("a", "read:email")
    told.add_event("agent.revoked", agent)
    row = mirror.agents[agent["id"]]
    assert (row.revoked, row.revoked_at) == (True, START)
    assert mirror.revoked == {agent["id"]}
    told.send("agent", {**agent, "status": "revoked", "revoked_at": iso(START)})
    told.add_event("agent.restored", agent)
    row = mirror.agents[agent["id"]]
    assert (row.revoked, row.revoked_at) == (False, None)
    assert mirror.revoked == set()


def test_an_agent_that_passed_on_a_token_is_asked_for_again(told: Told) -> None:
    """The broker counts what a revocation of it would end."""
    agent = told.add_agent("a", "read:email")
    told.mirror.stale.clear()
    told.add_event("token.delegated", agent)
    assert told.mirror.stale == {agent["id"]}


def test_panic_is_on_and_off_with_its_events(told: Told) -> None:
    """No frame of the status is waited for, and the tenant's does not undo it."""
    told.push_status()
    actor = {"kind": "operator", "id": "uid:1", "name": "olga"}
    told.add_event("panic.on", actor=actor, reason="drill")
    panic = told.mirror.status.panic
    assert (panic.on, panic.by, panic.reason) == (True, "olga", "drill")
    assert panic.since == START
    told.send("tenant", told.status_shape()["tenant"])
    assert told.mirror.status.panic.on
    told.add_event("panic.off", actor=actor)
    assert not told.mirror.status.panic.on


@pytest.mark.parametrize("ending", ["approved", "denied", "expired", "cancelled"])
def test_a_step_up_ends_with_its_event(told: Told, ending: str) -> None:
    """Its own frame may come later; what ended once is not opened again."""
    agent = told.add_agent("a", "send:payment")
    asked = told.add_stepup(agent)
    detail = {"stepup_id": asked["id"]}
    told.add_event(f"stepup.{ending}", agent, detail=detail)
    assert told.mirror.stepups[asked["id"]].status == ending
    assert told.mirror.open_stepups() == []
    told.push("stepup", {**asked, "status": "redeemed"})
    told.add_event("stepup.approved", agent, detail=detail)
    assert told.mirror.stepups[asked["id"]].status == "redeemed"


def test_what_waits_is_listed_oldest_first(told: Told) -> None:
    """The one that ends first is the one the bar shows."""
    agent = told.add_agent("a", "send:payment")
    late = told.add_stepup(agent, requested_at=iso(START))
    early = told.add_stepup(agent)
    told.add_stepup(agent, status="denied")
    rows = told.mirror.open_stepups()
    assert [row.id for row in rows] == [early["id"], late["id"]]


def test_steps_at_the_tenant_are_confirmed_as_they_come(told: Told) -> None:
    """A revocation from here says a step is confirmed only when its event says so."""
    agent = told.add_agent("a", "read:email")
    until = iso(START + timedelta(seconds=42))
    asked = {"step": "grant", "status": "pending", "attempts": 2, "problem": "no"}
    revoked = {**agent, "status": "revoked", "outside_until": until}
    tell(told.mirror, "agent", {**revoked, "upstream": [asked]})
    row = told.mirror.agents[agent["id"]]
    assert revocations.headline(row) == "tenant 0 of 1"
    assert revocations.state(row.upstream[0]) == "retry 2"
    assert revocations.outside(row, START) == 42
    done = {"step": "grant", "status": "confirmed", "ms": 212}
    gone = {"step": "vault grant back", "status": "withdrawn"}
    tell(told.mirror, "agent", {**revoked, "upstream": [done, gone]})
    row = told.mirror.agents[agent["id"]]
    assert revocations.headline(row) == "tenant confirmed 212 ms"
    failed = {"step": "client secret", "status": "failed", "ms": 9e7}
    tell(told.mirror, "agent", {**revoked, "upstream": [done, failed]})
    row = told.mirror.agents[agent["id"]]
    assert revocations.headline(row) == "tenant: client secret given up"
    assert revocations.state(row.upstream[1]) == "given up after 25:00:00"
    lacking = {**failed, "ms": 2, "reason": "no_credential"}
    tell(told.mirror, "agent", {**revoked, "upstream": [done, lacking]})
    row = told.mirror.agents[agent["id"]]
    assert revocations.headline(row) == "tenant 1 of 2, no credential"
    assert revocations.state(row.upstream[1]) == "no credential"


def test_a_token_at_its_provider_is_told_apart(told: Told) -> None:
    """Named by its connection; left on purpose is no failure, given up is one."""
    agent = told.add_agent("a", "read:email")
    done = {"step": "grant", "status": "confirmed", "ms": 212}

    def headline(status: str) -> str:
        step = {"step": "provider token", "connection": "google", "status": status}
        steps = [step, done]
        tell(told.mirror, "agent", {**agent, "status": "revoked", "upstream": steps})
        return revocations.headline(told.mirror.agents[agent["id"]])

    assert headline("pending") == "google token pending"
    assert headline("confirmed") == "tenant confirmed 212 ms"
    assert headline("left") == "tenant confirmed 212 ms"
    assert headline("failed") == "google token given up"
    pen = Pen(theme.palette("agentvault"), glyphs.UNICODE)
    rows = upstream.steps(pen, told.mirror.agents[agent["id"]], START, 76)
    shown = ["".join(text for text, _ in row).split() for row in rows]
    assert shown[0][:2] == ["At", "tenant"]
    assert shown[1][:2] == ["At", "provider"]
    assert shown[1][-4:] == ["google", "token", "given", "up"]


@pytest.mark.parametrize("size", [(78, 2), (54, 3)])
def test_a_card_says_what_is_open_elsewhere_before_what_was(
    told: Told, size: tuple[int, int]
) -> None:
    """Where not all fits, that it is revoked, what was given up, and the countdown."""
    agent = told.add_agent("calendar-agent", "read:email")
    agent["counts"] = {"allowed": 31_300, "denied": 4, "escalated": 2}
    failed = {"step": "provider token", "connection": "google-oauth2"}
    tell(
        told.mirror,
        "agent",
        {
            **agent,
            "status": "revoked",
            "revoked_at": iso(START),
            "outside_until": iso(START + timedelta(seconds=125)),
            "upstream": [{**failed, "status": "failed"}],
        },
    )
    row = told.mirror.agents[agent["id"]]
    pen = Pen(theme.palette("agentvault"), glyphs.UNICODE)
    look = Attention(revoked=True)
    drawn = Cards(told.mirror).draw(pen, "agentvault", row, look, size)
    shown = " ".join("".join(text for text, _ in line) for line in drawn)
    for words in ("REVOKED", "google-oauth2 token given up", "outside 2:05"):
        assert words in shown


def test_an_agent_is_seen_when_it_asks(told: Told) -> None:
    """The latest of its requests counts, not only what the broker said at the start."""
    agent = told.add_agent("a", "read:email")
    told.now += timedelta(seconds=7)
    told.decide(agent, "read:email", "denied")
    assert told.mirror.last_seen(agent["id"]) == START + timedelta(seconds=7)


def test_unknown_frames_mean_nothing(told: Told) -> None:
    """A newer broker may send what this console does not know."""
    told.send("weather", {"rain": True})
    assert told.mirror.versions.events == 0


def test_a_change_of_the_link_is_a_change_of_status(told: Told) -> None:
    """Widgets learn of it by the counter they compare."""
    before = told.mirror.versions.status
    told.mirror.set_link(LinkState.LIVE)
    told.mirror.set_link(LinkState.LIVE)
    assert told.mirror.versions.status == before + 1
    assert told.mirror.link.live


@settings(max_examples=50)
@given(st.lists(st.integers(1, 4000), max_size=400), st.integers(0, 4000))
def test_a_token_store_knows_the_next_to_expire_and_the_count(
    lefts: list[int], gone: int
) -> None:
    """Bounded or not, the count and the next to expire are the true ones."""
    intake, shelf = Intake(), TokenStore()
    for number, left in enumerate(lefts):
        expires = iso(START + timedelta(seconds=left))
        shelf.add(
            intake.token(
                filled(TokenInfo, {"id": f"tok_{number}", "expires_at": expires})
            )
        )
    assert shelf.live == len(lefts)
    assert len(shelf.rows) == min(len(lefts), MOST_TOKENS)
    if lefts:
        assert shelf.soonest is not None
        assert shelf.soonest.ends == START.timestamp() + min(lefts)
    shelf.expire(START.timestamp() + gone)
    kept = sorted(lefts)[:MOST_TOKENS]
    assert len(shelf.rows) == sum(left > gone for left in kept)


def test_a_partial_token_store_takes_no_token_that_may_expire_later() -> None:
    """A new token behind those held may end after one that is not held."""
    intake = Intake()

    def row(number: int, left: int, kind: str = "standard") -> LiveToken:
        ends = iso(START + timedelta(seconds=left))
        return intake.token(
            filled(TokenInfo, {"id": f"tok_{number}", "kind": kind, "expires_at": ends})
        )

    shelf = TokenStore([row(1, 60)], live=24, elevated=2)
    assert (shelf.live, shelf.elevated, shelf.short) == (24, 2, True)
    shelf.add(row(2, 3600))
    shelf.add(row(3, 3600, "elevated"))
    assert [each.key for each in shelf.rows] == [token_key("tok_1")]
    assert (shelf.live, shelf.elevated) == (26, 3)
    shelf.add(row(4, 30))
    assert shelf.soonest == row(4, 30)
    assert not shelf.drop(token_key("tok_2"))
    assert shelf.live == 26
    shelf.expire(START.timestamp() + 61)
    assert shelf.soonest is None
    assert shelf.live == 24


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=MOST_TOKENS))
def test_a_token_store_holds_each_token_once_until_it_expires(
    steps: list[tuple[int, bool]],
) -> None:
    """A token told twice is one, and the one that ends is the one that leaves."""
    intake, shelf = Intake(), TokenStore()
    held: dict[int, dict[str, str]] = {}
    for number, comes in steps:
        token = {
            "id": f"tok_{number}",
            "scope": f"read:{number % 3}",
            "kind": "elevated" if number % 5 == 0 else "standard",
            "expires_at": iso(START + timedelta(seconds=number // 4)),
        }
        if comes:
            shelf.add(intake.token(filled(TokenInfo, token)))
            held[token_key(token["id"])] = token
        else:
            shelf.drop(token_key(token["id"]))
            held.pop(token_key(token["id"]), None)
        assert {row.key: row.scope for row in shelf.rows} == {
            key: each["scope"] for key, each in held.items()
        }
        ends = [row.ends for row in shelf.rows]
        assert ends == sorted(ends)
        assert shelf.elevated == sum(t["kind"] == "elevated" for t in held.values())
    assert shelf.live == len(held)


def test_a_token_store_keeps_scope_and_kind_of_very_many_tokens() -> None:
    """Kinds that come and go by the hundred never change what a held one is for."""
    intake, shelf = Intake(), TokenStore()
    for number in range(1_000):
        at = START + timedelta(seconds=number)
        token = {"id": f"tok_{number}", "scope": f"s:{number}", "expires_at": iso(at)}
        shelf.expire(at.timestamp() - 70)
        shelf.add(intake.token(filled(TokenInfo, token)))
        assert shelf.soonest is not None
        first = max(number - 69, 0)
        assert shelf.soonest.scope == f"s:{first}"
    assert [row.scope for row in shelf.rows] == [f"s:{n}" for n in range(930, 1_000)]


@pytest.mark.slow
def test_a_live_token_takes_next_to_no_memory(told: Told) -> None:
    """Thousands of agents with many tokens each do not make the console grow."""
    agents = [told.add_agent(f"a{number}", "read:email") for number in range(50)]
    told.add_token(agents[0], "read:email", 600)
    tracemalloc.start()
    try:
        for number in range(50 * MOST_TOKENS):
            token = {"id": f"tok_{number}", "agent_id": agents[number % 50]["id"]}
            left = timedelta(seconds=60 + number)
            told.send("token", {**token, "expires_at": iso(START + left)})
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert told.mirror.live_tokens(agents[1]["id"]) == MOST_TOKENS
    assert grown < 50 * MOST_TOKENS * 50


@settings(max_examples=50)
@given(st.lists(st.integers(0, 300), max_size=100).map(sorted), st.integers(0, 120))
def test_a_rate_counts_the_last_minute(times: list[int], later: int) -> None:
    """It never counts less than 55 seconds back, nor more than a minute."""
    rate = RatesByName()
    for at in times:
        rate.add("one", 1_000_000 + at)
    now = (times[-1] if times else 0) + later
    least = sum(now - at < 55 for at in times)
    most = sum(now - at <= 60 for at in times)
    assert least <= rate.minute(1_000_000 + now).get("one", 0) <= most
