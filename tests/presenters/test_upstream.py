"""What an agent has at the tenant, and how far its end is there, as it is told."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from support.cut_off import half_done, uncredited
from support.fake_state import START, FakeState
from support.manual_clock import ManualClock
from support.wire_shapes import filled, tell

from agentvault_tui.clock import iso
from agentvault_tui.console.draw.agent import context, details
from agentvault_tui.console.plain import sentences
from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.operator_api.history import ActivityInfo
from agentvault_tui.presenters import event_words, glyphs, theme, upstream
from agentvault_tui.presenters.activity import ActivityRow, read_activity
from agentvault_tui.presenters.agent import facts
from agentvault_tui.presenters.lines import Pen, Row
from agentvault_tui.presenters.moments import clock_time
from agentvault_tui.presenters.records import AgentRow

GITHUB = {"connection": "github"}
SHARES = {
    "connections": [{"connection": "google-oauth2"}, GITHUB],
    "shared_with": [{"id": "agt_2", "name": "mail-agent"}],
}
STEPS = [
    {"step": "vault grant back", "status": "withdrawn", "ms": None},
    {"step": "vault grant", "status": "confirmed", "ms": 212.0},
    {
        "step": "client secret",
        "status": "pending",
        "ms": None,
        "attempts": 2,
        "problem": "the tenant does not answer",
    },
]
CUT = {"by": "carol", "reason": "runaway", "tokens": 3, "stepups": 1}


class Told(FakeState):
    """A scripted broker whose frames reach a mirror directly."""

    def __init__(self) -> None:
        super().__init__(START)
        self.mirror = Mirror(ManualClock(START))

    def send(self, kind: str, data: dict[str, Any]) -> None:
        tell(self.mirror, kind, data)

    def agent(self, **more: Any) -> AgentRow:
        told = self.add_agent("calendar-agent", "write:calendar", **more)
        return self.mirror.agents[told["id"]]

    def did(self, **more: Any) -> ActivityRow:
        return read_activity(self.mirror.intake, filled(ActivityInfo, more))


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def pen() -> Pen:
    return Pen(theme.palette("agentvault"), glyphs.UNICODE)


def text(rows: list[Row]) -> str:
    lines = ("".join(piece for piece, _ in row) for row in rows)
    return " ".join(" ".join(lines).split())


def screens(pen: Pen, told: Told, agent: AgentRow, did: ActivityRow) -> list[str]:
    """Return the agent as its screen, the watch screen and plain mode tell it."""
    seen = context(told.mirror, agent, did)
    return [
        text(facts(pen, seen, 100)),
        text(details(pen, told.mirror, agent, (100, 0), "")),
        " ".join(" ".join(sentences.agent_facts(told.mirror, agent, did)).split()),
    ]


def test_who_shares_an_account_is_told_before_a_revocation(
    pen: Pen, told: Told
) -> None:
    """On both screens, in plain mode, and in plain mode's question."""
    ahead = {"known": True, "kept_for": [{"name": "mail-agent"}], "may_cut": []}
    accounts = [{"connection": "google-oauth2", "at_provider": ahead}, GITHUB]
    shares = {**SHARES, "connections": accounts}
    agent = told.agent(**shares, at_tenant=["vault grant"])
    for said in screens(pen, told, agent, told.did()):
        assert "google-oauth2, github" in said
        assert "hared with" in said
        assert "mail-agent" in said
    asked = sentences.cuts(told.mirror, agent)
    assert "at the tenant: vault grant" in asked
    assert "github: its account" in asked
    assert "It leaves google-oauth2, which mail-agent uses too" in asked


def test_one_without_accounts_is_told_nothing_of_them(pen: Pen, told: Told) -> None:
    """Nothing is said of what is not there, but that a revocation ends nothing."""
    agent = told.agent()
    for said in screens(pen, told, agent, told.did()):
        assert "ccounts" not in said
    assert "nothing at the tenant" in sentences.cuts(told.mirror, agent)


def test_one_that_is_revoked_is_told_by_what_was_cut(pen: Pen, told: Told) -> None:
    """What that ended, by whom and why, how far the tenant is, and what is outside."""
    agent = told.agent(
        **SHARES,
        status="revoked",
        revoked_at=iso(START),
        upstream=STEPS,
        outside_until=iso(START + timedelta(seconds=90)),
    )
    screen, watch, plain = screens(pen, told, agent, told.did(revoked=CUT))
    assert "that cut 3 tokens, 1 step-up; by carol: runaway" in screen
    assert "that cut 3 tokens, 1 step-up; by carol: runaway" in plain
    for said in (screen, watch, plain):
        assert "vault grant" in said
        assert "confirmed 212 ms" in said
        assert "retry 2" in said
        assert "the tenant does not answer" in said
        assert "orks until" in said
        assert "grant back" not in said
        assert "Revoking" not in said


@pytest.mark.parametrize("how", [half_done, uncredited])
def test_each_step_has_its_time_and_each_reason_stands_once(
    pen: Pen, told: Told, how: Callable[[datetime], dict[str, Any]]
) -> None:
    """In the kill order, with when it is tried again, and until when tokens work."""
    agent = told.agent(**how(START), revoked_at=iso(START))
    for said in screens(pen, told, agent, told.did())[:2]:
        assert f"{clock_time(START + timedelta(seconds=2467))} in 41:07" in said
        if how is uncredited:
            assert said.count("no credential") == 3
            assert said.count("no Management API credential here") == 1
            assert "given up after 90 ms" in said
        else:
            assert "connected accounts left in place" in said
            assert "workspace stays: mail-agent uses it too" in said
            assert "retry 2 at" in said
    plain = " ".join(
        " ".join(sentences.agent_facts(told.mirror, agent, told.did())).split()
    )
    assert "in 41:07" in plain


def test_what_was_cut_is_left_out_while_it_is_not_known(pen: Pen, told: Told) -> None:
    """No number is made up while the record is on its way."""
    agent = told.agent(status="revoked", revoked_at=iso(START))
    screen, _, plain = screens(pen, told, agent, told.did(revoked=None))
    assert "that cut" not in screen + plain


def test_a_row_of_the_tenants_log_is_told_by_its_words(pen: Pen, told: Told) -> None:
    """What its code means stands for it; the code is in the event in full."""
    agent = told.agent()
    told.add_event(
        "tenant.log",
        {"id": agent.id, "name": agent.name},
        actor={"kind": "tenant", "id": "tenant", "name": "tenant"},
        action="seta",
        resource="workspace",
        reason="Token Vault gave a token",
    )
    event = told.mirror.events[-1]
    assert event.word == "changed"
    assert event_words.deed(event) == "Token Vault gave a token"
    assert (event_words.target(event), event_words.why(told.mirror, event)) == (
        "workspace",
        "",
    )
    said = sentences.of_event(told.mirror, event)
    assert said.endswith("changed Token Vault gave a token on workspace by tenant.")
    lately = text(details(pen, told.mirror, agent, (100, 0), ""))
    assert "changed Token Vault gave a token" in lately


def test_a_step_says_at_whose_place_it_is_done(told: Told) -> None:
    """A step at a provider is not the tenant's; of a connection its name is told."""
    agent = told.agent()
    said = {}
    for action, resource in (
        ("provider token", "connection:google-oauth2"),
        ("vault grant", None),
    ):
        told.add_event(
            "upstream.revocation",
            {"id": agent.id, "name": agent.name},
            action=action,
            resource=resource,
            reason="confirmed",
        )
        event = told.mirror.events[-1]
        why = event_words.why(told.mirror, event)
        said[event_words.deed(event)] = (event_words.target(event), why)
    assert said == {
        "revocation step: provider token": ("at google-oauth2", "confirmed"),
        "revocation step: vault grant": ("", "confirmed"),
    }


def test_a_resource_server_is_not_said_to_be_unseen(pen: Pen, told: Told) -> None:
    """It asks about tokens and for none, so when it asked last says nothing."""
    server = told.agent(resource_server=True)
    said = text(details(pen, told.mirror, server, (50, 0), ""))
    assert "resource server" in said
    assert "never seen" not in said


def test_a_used_or_ended_token_says_why_in_words(told: Told) -> None:
    """The ledger's codes are not shown; a person's reason stands as it is."""
    said = []
    for kind, reason in (
        ("token.redeemed", "allowed_by_policy"),
        ("token.revoked", "policy_changed"),
        ("agent.revoked", "panic"),
    ):
        told.add_event(kind, reason=reason)
        said.append(event_words.why(told.mirror, told.mirror.events[-1]))
    assert said == ["policy alone allowed it", "the policy changed", "panic"]


def test_a_gap_in_the_tenants_log_catches_the_eye(told: Told) -> None:
    """Rows that may be missing are as loud as a jump of the clock."""
    told.add_event("tenant.log_gap", reason="rows may be missing")
    event = told.mirror.events[-1]
    assert event_words.loud(event)
    assert event_words.why(told.mirror, event) == "rows may be missing"


@pytest.mark.parametrize("how", [half_done, uncredited])
@pytest.mark.parametrize("width", [49, 60, 100])
def test_no_time_of_a_step_is_cut_short(
    told: Told, pen: Pen, how: Callable[[datetime], dict[str, Any]], width: int
) -> None:
    """Where there is no room for the words, the mark and the time say it."""
    agent = told.agent(**how(START))
    rows = upstream.steps(pen, agent, START, width)
    lines = ["".join(piece for piece, _ in row) for row in rows]
    assert [line for line in lines if "\u2026" in line] == []
    ends = [step.ends for step in agent.upstream if step.status == "confirmed"]
    done = [line for line in lines if any(one in line for one in ends)]
    assert all(line.endswith("s") for line in done)
    assert any("confirmed" in line for line in done) is (width >= 60)
