"""The directory names agents, those made from a template, and how many there are."""

from __future__ import annotations

from support.fake_state import START
from support.manual_clock import ManualClock
from support.wire_shapes import agent_info

from agentvault_tui.presenters.directory import Directory


def test_an_agent_is_named_or_shown_by_its_id() -> None:
    """A name is displayable, and so is the id of an agent that is not known."""
    directory = Directory(ManualClock(START))
    directory.add(agent_info("agt_1", "pay\x1b[2Jer"))
    assert directory.agent_name("agt_1") == "pay⟦U+001B⟧[2Jer"
    assert directory.agent_name("agt_\x07") == "agt_⟦U+0007⟧"


def test_agents_of_a_template_are_those_that_are_served() -> None:
    """A revoked one no longer ends with it, and an agent that is none has none."""
    directory = Directory(ManualClock(START))
    directory.add(agent_info("agt_t", "review", template=True))
    directory.add(agent_info("agt_1", "one", **{"from": "agt_t"}))
    directory.add(agent_info("agt_2", "two", status="revoked", **{"from": "agt_t"}))
    assert [one.id for one in directory.derived("agt_t")] == ["agt_1"]
    assert directory.derived("agt_1") == []


def test_servers_are_counted_apart() -> None:
    """Resource servers are no agents that ask for anything."""
    directory = Directory(ManualClock(START))
    directory.add(agent_info("agt_1", "one"))
    assert directory.population() == "1 agent"
    directory.add(agent_info("agt_2", "api", resource_server=True))
    assert directory.population() == "1 agent and 1 resource server"
