"""The way from a request to its agent, as it is or as it was."""

from __future__ import annotations

from typing import Any

from textual.app import App


def show_agent_of(app: App[Any], agent_id: str) -> None:
    """Close the dialogs, and show everything about an agent over what lies below."""
    from agentvault_tui.console.screens.watch import (  # noqa: PLC0415 - a cycle
        Watch,
    )

    below = [screen for screen in app.screen_stack if isinstance(screen, Watch)]
    if below:
        while app.screen.is_modal:
            app.pop_screen()
        below[-1].show_agent_of(agent_id)
