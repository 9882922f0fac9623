"""The screen of delegation trees, and the tree in the revoke dialog."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace
from support import console_scenes as scenes
from support.console_scenes import Board, console, flying, running, settle
from support.dialog_stand import Stand, StandApp, scene, text_of
from support.fake_operator import FakeOperator

from agentvault_tui.console.dialogs.revoke import RevokeDialog
from agentvault_tui.console.draw.delegation import tree_rows
from agentvault_tui.console.screens.delegations import DelegationsScreen
from agentvault_tui.operator_api.shapes import AgentRef
from agentvault_tui.presenters.glyphs import UNICODE
from agentvault_tui.presenters.lines import Pen, cells
from agentvault_tui.presenters.records import TreeRow
from agentvault_tui.presenters.theme import palette
from agentvault_tui.text import visible


def token(
    stand: Stand, name: str, depth: int, below: int, agent_id: str = ""
) -> TreeRow:
    return TreeRow(
        id=visible(f"tok_{name}"),
        parent_id=visible(""),
        agent=AgentRef(id=visible(agent_id or f"agt_{name}"), name=visible(name)),
        depth=depth,
        scope=visible("read:web"),
        resource=visible("web:acme.test"),
        below=below,
        expires_at=stand.mirror.clock.now() + timedelta(minutes=5),
    )


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_tree_keeps_its_counts_at_every_width(width: int) -> None:
    """Names and scopes are cut; who holds it, and what ends with it, are not."""
    stand = scene()
    pen = Pen(palette("agentvault"), UNICODE)
    rows = [token(stand, "planner", 0, 2), token(stand, "search" * 9, 1, 1)]
    written = tree_rows(pen, rows, stand.mirror.clock.now(), width, 5)
    texts = ["".join(text for text, _ in row) for row in written]
    assert all(cells(row) <= width for row in written)
    assert "planner" in texts[0]
    assert "2 tokens below" in texts[0]
    assert texts[1].startswith("  search")
    assert "1 token below" in texts[1]


def test_what_has_no_room_is_counted() -> None:
    """A tree of more tokens than rows says how many are left out."""
    stand = scene()
    pen = Pen(palette("agentvault"), UNICODE)
    rows = [token(stand, f"a{n}", 0, 0) for n in range(9)]
    written = tree_rows(pen, rows, stand.mirror.clock.now(), 80, 4)
    assert len(written) == 4
    assert "and 6 more" in "".join(text for text, _ in written[-1])


@pytest.fixture
async def board(short: Path) -> AsyncIterator[Board]:
    async with scenes.board(short, flying) as (pilot, fake):
        await pilot.press("T")
        await settle(pilot, lambda: isinstance(pilot.app.screen, DelegationsScreen))
        yield pilot, fake


async def test_t_opens_the_trees_and_esc_goes_back(board: Board) -> None:
    """Where nothing was delegated, or it cannot be read, that is said."""
    pilot, _ = board
    assert "Delegations" in text_of(pilot.app)
    await pilot.press("escape")
    await settle(pilot, lambda: not isinstance(pilot.app.screen, DelegationsScreen))


async def test_the_revoke_dialog_shows_the_tree_before_y() -> None:
    """Who else loses tokens, and how many, stands there before anything is cut."""
    stand = scene()
    agent = next(iter(stand.mirror.agents.values()))
    tree = (token(stand, "planner", 0, 2), token(stand, "search", 1, 1))
    stand.actions.trees[agent.id] = tree
    holder = replace(agent, delegated_below=2)
    stand.mirror.agents[agent.id] = holder
    app = StandApp(stand, lambda desk: RevokeDialog(desk, holder))
    async with app.run_test(size=(80, 24)) as pilot:
        await app.workers.wait_for_complete()
        await pilot.pause()
        app.dialog.update_page()
        text = text_of(app)
        assert "2 tokens of other agents" in text
        assert "planner" in text
        assert "1 token below" in text
        assert stand.actions.asked == []


async def test_the_revoke_dialog_counts_what_was_passed_on_since() -> None:
    """The tree is read when it opens: the agent's row may be older."""
    stand = scene()
    agent = next(iter(stand.mirror.agents.values()))
    root = token(stand, "planner", 0, 3, agent.id)
    stand.actions.trees[agent.id] = (root, token(stand, "search", 1, 0))
    assert agent.delegated_below == 0
    app = StandApp(stand, lambda desk: RevokeDialog(desk, agent))
    async with app.run_test(size=(80, 24)) as pilot:
        await app.workers.wait_for_complete()
        await pilot.pause()
        assert "3 tokens of other agents" in text_of(app)


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (120, 40)])
async def test_the_screen_lists_each_tree_and_acts_on_its_holder(
    short: Path, size: tuple[int, int]
) -> None:
    """Each token below its parent, with what ends with it; r is about its holder."""
    with FakeOperator(short / "s.sock") as fake:
        flying(fake)
        names = list(fake.agents.values())[:2]
        ends = "2099-01-01T00:00:00.000000Z"
        fake.delegated = [
            {
                "id": f"tok_{depth}",
                "parent_id": f"tok_{depth - 1}" if depth else None,
                "depth": depth,
                "agent": {"id": agent["id"], "name": agent["name"]},
                "scope": "read:calendar",
                "resource": None,
                "expires_at": ends,
                "below": 1 - depth,
            }
            for depth, agent in enumerate(names)
        ]
        async with running(console(fake.socket, short), size=size) as pilot:
            await pilot.press("T")
            screen = pilot.app
            await settle(pilot, lambda: "1 delegated" in text_of(screen))
            text = text_of(screen)
            assert "1 token below" in text
            assert "none below" in text
            assert text.index(names[0]["name"]) < text.index("none below")
            await pilot.press("j", "r")
            await settle(pilot, lambda: isinstance(screen.screen, RevokeDialog))
            assert names[1]["name"] in text_of(screen)


async def test_tokens_that_are_alike_are_one_row_with_a_count(short: Path) -> None:
    """Of many trees of the same shape one is shown, with all that ends with them."""
    with FakeOperator(short / "s.sock") as fake:
        flying(fake)
        first, second = list(fake.agents.values())[:2]
        known = {"resource": None, "expires_at": "2099-01-01T00:00:00.000000Z"}
        for number in range(30):
            scope = "read:web" if number == 7 else "read:calendar"
            for depth, agent in enumerate((first, second)):
                about = {"id": agent["id"], "name": agent["name"]}
                up = {"id": f"tok_{depth}_{number}", "parent_id": None, "agent": about}
                more = {"depth": depth, "scope": scope, "below": 1 - depth}
                fake.delegated.append({**up, **more, **known})
        async with running(console(fake.socket, short), size=(80, 24)) as pilot:
            await pilot.press("T")
            await settle(pilot, lambda: "30 delegated" in text_of(pilot.app))
            rows = [r for r in text_of(pilot.app).splitlines() if "read:" in r]
            assert len(rows) == 4
            assert f"{first['name']} ×29" in rows[0]
            assert "29 tokens below" in rows[0]
            assert f"{second['name']} ×29" in rows[1]
            assert "read:web" in rows[2]
            assert "1 token below" in rows[2]
            assert " x" not in rows[3]
