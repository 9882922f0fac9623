"""The agent a person means by an id or a name, and all of them by pages."""

from __future__ import annotations

from typing import Any

import pytest
from support.wire_shapes import agent_info

from agentvault_tui.cli.lookup import agent_pages, find_agent
from agentvault_tui.errors import NotFoundError
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.client import OperatorClient
from agentvault_tui.operator_api.requests import AgentQuery
from agentvault_tui.operator_api.shapes import AgentPage

NAMES = {"agt_1": "payer", "agt_2": "agt_1", "agt_3": "twin", "agt_4": "twin"}
COMPANY = {
    f"agt_{name[:4]}8b5q": f"{name}-agent"
    for name in ("calendar", "payments", "email", "records")
}


class Listing(OperatorClient):
    """Knows four agents: one is called as another is identified by, two are alike."""

    def __init__(self, names: dict[str, str] = NAMES) -> None:
        """Connect to nothing."""
        self.asked: list[AgentQuery] = []
        self.names = names

    def call(self, call: Any, given: Any = None, **_: object) -> Any:
        assert call is calls.AGENTS
        self.asked.append(given)
        rows = [agent_info(one, name) for one, name in self.names.items()]
        if given.ids or given.name:
            found = [r for r in rows if given.ids == r.id or given.name == r.name]
            return AgentPage(agents=tuple(found))
        start = [None, *self.names].index(given.after)
        page = rows[start : start + 3]
        return AgentPage(agents=tuple(page), next=page[-1].id if start == 0 else None)


def test_an_id_wins_over_a_name() -> None:
    """An agent may call itself what another is identified by."""
    assert find_agent(Listing(), "agt_1").name == "payer"
    assert find_agent(Listing(), "payer").id == "agt_1"


def test_one_agent_is_found_without_reading_all() -> None:
    """Among ten thousand, too, it takes at most two small answers."""
    listing = Listing()
    find_agent(listing, "payer")
    assert [(query.ids, query.name) for query in listing.asked] == [
        ("payer", None),
        (None, "payer"),
    ]


def test_all_agents_are_read_page_by_page() -> None:
    """Each page goes on where the one before it ended."""
    pages = list(agent_pages(Listing()))
    assert [[row.id for row in page.agents] for page in pages] == [
        ["agt_1", "agt_2", "agt_3"],
        ["agt_4"],
    ]


def test_an_ambiguous_agent_name_is_refused_with_the_ids() -> None:
    """What is cut off must be what was meant: their ids are named instead."""
    with pytest.raises(NotFoundError) as caught:
        find_agent(Listing(), "twin")
    assert "agt_3, agt_4" in caught.value.diagnosis()


def test_a_misspelt_name_is_answered_with_the_nearest() -> None:
    """The agent stays as it is. A beginning or another case suggests it too."""
    for word, near in (
        *(("calender-agent", "calendar-agent"), ("rec", "records-agent")),
        *(("RECORDS-AGENT", "records-agent"), ("agt_rec", "agt_reco8b5q")),
        ("agt_reco8b5x", "agt_reco8b5q"),
    ):
        with pytest.raises(NotFoundError, match=f"no agent '{word}'") as caught:
            find_agent(Listing(COMPANY), word)
        assert caught.value.remedy == f"did you mean {near}"
    for word in ("agent", "agt_", "zebra"):
        with pytest.raises(NotFoundError) as caught:
            find_agent(Listing(COMPANY), word)
        assert "did you mean" not in caught.value.remedy
