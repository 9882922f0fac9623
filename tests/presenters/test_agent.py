"""The facts of an agent: its state, its end, and the effect of a revocation."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from support.fake_state import START
from support.manual_clock import ManualClock
from support.wire_shapes import agent_info

from agentvault_tui.presenters.agent import (
    AgentContext,
    ends,
    ends_in,
    facts,
    state_word,
)
from agentvault_tui.presenters.directory import Directory
from agentvault_tui.presenters.glyphs import UNICODE
from agentvault_tui.presenters.lines import Pen
from agentvault_tui.presenters.theme import palette


def context(**more: Any) -> AgentContext:
    directory = Directory(ManualClock(START))
    agent = directory.add(agent_info("agt_1", "payer", **more))
    return AgentContext(directory, agent, tokens=(), live=0, elevated=0, stepups=())


@pytest.mark.parametrize(
    ("agent", "waiting", "stopped", "word"),
    [
        ({}, False, False, "active"),
        ({}, True, False, "waiting"),
        ({}, True, True, "stopped"),
        ({"template": True}, True, True, "template"),
        ({"resource_server": True, "template": True}, False, True, "resource server"),
        ({"resource_server": True, "status": "revoked"}, False, True, "revoked"),
    ],
)
def test_an_agent_is_in_one_state(
    agent: dict[str, Any], waiting: bool, stopped: bool, word: str
) -> None:
    """A revocation comes first; a template or a server is never stopped itself."""
    row = context(**agent).agent
    assert state_word(row, waiting=waiting, stopped=stopped) == word


def test_a_revocation_counts_the_rights_that_it_ends() -> None:
    """Tokens, step-ups and calls in flight, by the context's numbers."""
    seen = context()
    assert ends(seen) == "0 tokens, 0 step-ups"
    seen = seen._replace(live=3, elevated=1, calls=2)
    assert ends(seen) == "3 tokens (1 elevated), 0 step-ups, 2 calls in flight"


def test_tokens_are_unconfirmed_only_where_the_broker_is_not_connected() -> None:
    """The command line has asked just now, and says nothing of the kind."""
    pen = Pen(palette("mono"), UNICODE)
    seen = context()._replace(live=1)
    for is_current in (True, False):
        rows = facts(pen, seen._replace(is_current=is_current), 80)
        text = "\n".join("".join(part for part, _ in row) for row in rows)
        assert ("unconfirmed" in text) is not is_current


def test_an_end_counts_down_and_is_over() -> None:
    """A time that has passed is over, and no negative one."""
    assert ends_in(START + timedelta(seconds=252), START) == "in 4:12"
    assert ends_in(START, START) == "its time is over"
