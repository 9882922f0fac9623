"""What the dialogs say of agents that end by themselves or with a template."""

from __future__ import annotations

from datetime import timedelta

from support.dialog_stand import Stand, StandApp, said, scene

from agentvault_tui.clock import iso
from agentvault_tui.console.dialogs.revoke import RestoreDialog, RevokeDialog
from agentvault_tui.console.draw.agent import context, details
from agentvault_tui.console.plain import sentences
from agentvault_tui.console.state.agents import AgentView, Attention
from agentvault_tui.console.widgets.agents import Cards
from agentvault_tui.presenters.agent import facts
from agentvault_tui.presenters.filters import Filter
from agentvault_tui.presenters.lines import Pen, Row
from agentvault_tui.presenters.records import AgentRow
from agentvault_tui.presenters.theme import palette


def text(rows: list[Row]) -> str:
    return "\n".join("".join(piece for piece, _ in row) for row in rows)


def templates() -> tuple[Stand, str]:
    """Return a template with seven agents made from it, of which one is revoked."""
    stand = scene()
    more = {"status": "template", "template": True}
    template = stand.add_agent("deploy", "write:calendar", **more)
    for number in range(7):
        status = "revoked" if number == 0 else "active"
        more = {"from": template.id, "status": status}
        stand.add_agent(f"deploy-{number}", "write:calendar", **more)
    return stand, str(template.id)


async def test_the_dialog_shows_what_ends_with_a_template() -> None:
    """How many agents made from it, and who, before the key that revokes them all."""
    stand, template = templates()
    app = StandApp(stand, lambda desk: RevokeDialog(desk, desk.mirror.agents[template]))
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.pause()
        shown = " ".join(said(app).split())
        assert "6 agents made from it (deploy-1, deploy-2, deploy-3, deploy-4," in shown
        assert "deploy-5 and 1 more)" in shown
    told = sentences.cuts(stand.mirror, stand.mirror.agents[template])
    assert "6 agents made from it (deploy-1," in told
    other = next(a for a in stand.mirror.agents.values() if a.name == "deploy-2")
    assert "made from it" not in sentences.cuts(stand.mirror, other)


async def test_the_dialog_says_what_restoring_takes() -> None:
    """An agent whose time is over needs a new one, which the command line gives; one
    made from a template needs that first."""
    stand, template = templates()
    over = iso(stand.clock.now() - timedelta(seconds=1))
    ended = stand.add_agent("brief", "read:email", status="revoked", until=over)
    app = StandApp(stand, lambda desk: RestoreDialog(desk, ended))
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.pause()
        shown = " ".join(said(app).split())
        assert f"agentvault agents restore {ended.id} --until TIME" in shown
        await pilot.press("y")
        assert stand.actions.asked == []
    stand.agent(template, status="revoked")
    one = next(a for a in stand.mirror.agents.values() if a.name == "deploy-0")
    app = StandApp(stand, lambda desk: RestoreDialog(desk, one))
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.pause()
        assert "Its template deploy is revoked: restore that first." in said(app)


def test_card_and_screen_count_down() -> None:
    """When it ends and in how long, its template, and what was made from one."""
    stand, template = templates()
    until = stand.clock.now() + timedelta(seconds=90)
    pen, mirror = Pen(palette("agentvault"), stand.desk.glyphs), stand.mirror
    brief = stand.add_agent("brief", "read:email", until=iso(until))
    for rows in (
        details(pen, mirror, brief, (80, 40), ""),
        facts(pen, context(mirror, brief), 80),
    ):
        assert f"in 1:30, at {until:%Y-%m-%d %H:%M:%S}Z" in text(rows)
        assert "Made from" not in text(rows)
    known = stand.add_agent("ci", "read:email", subject="ci:repo:acme/app:x")
    rows = details(pen, mirror, known, (80, 40), "")
    assert "Known by" in text(rows)
    assert "ci:repo:acme/app:x" in text(rows)
    stand.clock.advance(91)
    assert "its time is over" in text(details(pen, mirror, brief, (80, 40), ""))
    long = iso(stand.clock.now() + timedelta(days=30, hours=4, seconds=1))
    month = stand.add_agent("month", "read:email", until=long)
    assert "in 30 d 4 h" in text(details(pen, mirror, month, (80, 40), ""))
    shown = text(details(pen, mirror, mirror.agents[template], (80, 40), ""))
    assert "never served itself; made from it: deploy-1, deploy-2" in shown
    one = next(a for a in mirror.agents.values() if a.name == "deploy-1")
    shown = text(details(pen, mirror, one, (80, 40), ""))
    assert "the template deploy, and ends with it" in shown


def test_the_list_counts_down() -> None:
    """Each second, also where nothing else about the agent changes."""
    stand, template = templates()
    pen, mirror = Pen(palette("agentvault"), stand.desk.glyphs), stand.mirror
    until = iso(stand.clock.now() + timedelta(seconds=90))
    brief = stand.add_agent("brief", "read:email", until=until)
    cards = Cards(mirror)

    def card(agent: AgentRow) -> str:
        drawn = text(cards.draw(pen, "agentvault", agent, Attention(), (80, 3)))
        return " ".join(drawn.split())

    assert "brief ACTIVE ends in 1:30" in card(brief)
    stand.clock.advance(1)
    assert "brief ACTIVE ends in 1:29" in card(brief)
    assert "deploy TEMPLATE" in card(mirror.agents[template])


def test_templates_are_found_by_their_status() -> None:
    """The filter knows the word, and does not count them among the active."""
    stand, template = templates()
    view = AgentView(stand.mirror)
    view.update()
    view.put(0)
    for words, found in (("status:template", True), ("status:active", False)):
        view.narrow(Filter.parse(words))
        assert (template in view.order) is found
