"""The command palette: everything by name, and every agent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from textual.app import SystemCommand
from textual.command import Hit, Hits, Provider
from textual.content import Content

from agentvault_tui.console import theme
from agentvault_tui.console.screens.watch import Watch

if TYPE_CHECKING:
    from agentvault_tui.console.app import ConsoleApp


def commands(app: ConsoleApp, watch: Watch) -> Iterator[SystemCommand]:
    """Yield the commands that make sense now; their texts are our own."""
    desk = app.desk
    yield SystemCommand("Step-ups", "what waits for a person (s)", watch.action_stepups)
    yield SystemCommand("Filter", "agents and audit (/)", watch.action_filter)
    yield SystemCommand("Follow or hold", "the audit (f)", watch.action_follow)
    yield SystemCommand("Keys", "that work here (?)", watch.action_help)
    if not desk.read_only:
        agent = watch.agents.agent
        if agent is not None and not agent.revoked:
            yield SystemCommand(
                "Revoke", "the agent under the cursor (r)", watch.action_revoke
            )
        if agent is not None and agent.revoked:
            yield SystemCommand(
                "Restore", "the agent under the cursor (u)", watch.action_restore
            )
        panic = desk.mirror.status.panic.on
        yield SystemCommand(
            "Lift the panic" if panic else "Panic",
            "serve again (!)" if panic else "stop everything (!)",
            watch.action_panic,
        )
    if "ledger" in desk.mirror.warnings:
        yield SystemCommand(
            "Accept this ledger",
            "take it for the true one from now on",
            app.link.accept_ledger,
        )
    for name in theme.NAMES:
        yield SystemCommand(
            f"Theme {name}", "change colours", lambda name=name: _wear(app, name)
        )
    yield SystemCommand("Quit", "leave; the broker goes on (ctrl+q)", app.exit)


def _wear(app: ConsoleApp, name: str) -> None:
    app.theme = name
    app.watch_screen.paint_all()


class AgentCommands(Provider):
    """Puts the cursor on an agent, by name."""

    async def search(self, query: str) -> Hits:
        """Find agents by name."""
        matcher, watch = self.matcher(query), self._watch
        for agent in watch.desk.mirror.agents.values():
            text = f"Go to {agent.name}"
            if (score := matcher.match(text)) > 0:
                yield Hit(
                    score,
                    Content(text),
                    lambda agent_id=agent.id: watch.visit(agent_id),
                    help="agent",
                )

    @property
    def _watch(self) -> Watch:
        app: ConsoleApp = self.app  # type: ignore[assignment]
        return app.watch_screen
