"""Every binding of every screen, pane and dialog answers its key, in one pilot.

What an action does has its tests elsewhere; here each key is pressed where it works,
and must reach the action it is bound to: no other binding may stand before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from support.console_scenes import busy, console, running, settle
from support.fake_operator import FakeOperator
from support.fake_past import remember
from textual import events
from textual.app import App
from textual.binding import BindingsMap
from textual.keys import key_to_character
from textual.pilot import Pilot
from textual.widgets import Input

from agentvault_tui.console.app import ConsoleApp
from agentvault_tui.console.dialogs.info import OperatorsDialog
from agentvault_tui.console.dialogs.panic import LiftDialog
from agentvault_tui.console.dialogs.revoke import RestoreDialog
from agentvault_tui.console.screens.past import PastScreen
from agentvault_tui.console.term.keyed import KEYED
from agentvault_tui.console.term.keymap import load_all

Lead = list[str] | Callable[[ConsoleApp], object]
PLACES: dict[str, Lead] = {
    "agents": [],
    "details": ["tab"],
    "audit of the home screen": ["shift+tab"],
    "filter": ["slash", "o"],
    "name of a filter": ["slash", "o", "ctrl+s"],
    "saved filters": ["slash", "ctrl+o"],
    "queue": ["s"],
    "calls": ["c"],
    "advice": ["A"],
    "policy": ["P"],
    "candidate": ["P", "n"],
    "cut": ["c", "x"],
    "alerts": ["N"],
    "limits": ["Q"],
    "delegations": ["T"],
    "step-up": ["s", "enter"],
    "step-up in full": ["s", "enter", "v"],
    "reason of a denial": ["s", "enter", "n"],
    "revoke": ["r"],
    "reason of a revocation": ["r", "e"],
    "panic": ["exclamation_mark"],
    "lift": lambda app: app.push_screen(LiftDialog(app.desk)),
    "restore": lambda app: app.push_screen(
        RestoreDialog(app.desk, next(a for a in app.desk.mirror.agents.values()))
    ),
    "operators": lambda app: app.push_screen(OperatorsDialog(app.desk)),
    "help": ["question_mark"],
    "agent": ["enter"],
    "agent's events": ["enter", "tab"],
    "agent's day": ["enter", "shift+tab"],
    "audit": ["L"],
    "event": ["L", "k", "enter", "tab"],
    "where to go": ["L", "at"],
    "export": ["L", "e"],
    "past": ["t"],
    "audit of the past": ["t", "shift+tab"],
    "moment": ["t", "at"],
    "agent in the past": ["t", "enter"],
    "audit in the past": ["t", "L"],
}
_TURNS = 500
"""Turns of the loop in which a key arrives; it takes a few."""
_ELSEWHERE = {
    # A key that only counts once something has happened; see the dialog's own tests.
    ("RestoreDialog", "z"),
    ("Dialog", "z"),
    # Only while there is something to end: here no agent is revoked and no panic on.
    ("RestoreDialog", "y"),
    ("LiftDialog", "y"),
    ("ExportDialog", "enter"),
    ("Confirm", "enter"),
    ("PanicDialog", "r"),
    # Only where somebody signed in, or the tenant has pages for browsers here.
    ("StepUpDialog", "p"),
    ("StepUpDialog", "t"),
    ("StepUpDialog", "o"),
    # Each confirmation has its own word for it, and the panic none.
    ("Confirm", "y"),
    ("AdviceDialog", "y"),
    ("SavedDialog", "u"),
}


class Board:
    """A console whose actions are noted instead of done."""

    def __init__(self, app: ConsoleApp, pilot: Pilot[Any]) -> None:
        self.app, self.pilot = app, pilot
        self.noting = False
        self.noted: list[tuple[object, str]] = []
        self._run: Callable[..., Awaitable[bool]] = app.run_action
        app.run_action = self.run_action  # type: ignore[method-assign]

    async def run_action(
        self, action: Any, default_namespace: Any = None, *rest: Any, **more: Any
    ) -> bool:
        if not self.noting:
            return await self._run(action, default_namespace, *rest, **more)
        self.noted.append((default_namespace, action))
        return True

    async def go(self, lead: Lead) -> None:
        """Go home, then to a place."""
        while len(self.app.screen_stack) > 1:
            await self.app.pop_screen()
        self.app.watch_screen.leave_filter()
        self.app.watch_screen.focus_on(self.app.watch_screen.agents)
        await self.pilot.pause()
        if callable(lead):
            lead(self.app)
        for key in lead if isinstance(lead, list) else ():
            await self.pilot.press(key)
            if key == "t":
                await settle(
                    self.pilot, lambda: isinstance(self.app.screen, PastScreen)
                )
        await self.pilot.pause()

    async def pressed(self, key: str) -> tuple[object, str] | None:
        """Press a key, and return which action of whom it led to."""
        self.noting, self.noted = True, []
        self.app.post_message(events.Key(key, key_to_character(key)))
        for _ in range(_TURNS):
            if self.noted:
                break
            await asyncio.sleep(0)
        self.noting = False
        return self.noted[0] if self.noted else None


def owner(node: object, key: str, action: str) -> str:
    """Name the class that gives *node* a key."""
    for kind in type(node).__mro__:
        own = BindingsMap(kind.__dict__.get("BINDINGS", ()))
        for bound, binding in own:
            if bound == key and binding.action == action:
                return kind.__name__
    return ""


@pytest.mark.slow
async def test_every_key_leads_to_its_action(
    fake: FakeOperator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each place the keys it is said to have do what they are bound to."""
    monkeypatch.setattr(App, "copy_to_clipboard", lambda *_: None)
    load_all()
    busy(fake)
    remember(fake)
    fake.add_call(next(iter(fake.agents.values())))
    app = console(fake.socket, tmp_path)
    reached: set[tuple[str, str]] = set()
    async with running(app) as pilot:
        board = Board(app, pilot)
        for place, lead in PLACES.items():
            await board.go(lead)
            typing = isinstance(app.focused, Input)
            active = {
                key: bound
                for key, bound in app.screen.active_bindings.items()
                if bound.enabled
                and type(bound.node).__module__.startswith("agentvault_tui.")
                # Letters are text where text is typed, unless they come first.
                and (not typing or bound.node is app.focused)
            }
            for key, bound in active.items():
                wanted = (bound.node, bound.binding.action)
                assert await board.pressed(key) == wanted, f"{key} in {place}"
                reached.add((owner(bound.node, key, bound.binding.action), key))
    every = {
        (kind.__name__, key)
        for kind in KEYED
        for key, binding in BindingsMap(kind.__dict__.get("BINDINGS", ()))
        if "tests" not in kind.__module__ and binding.action
    }
    assert every - reached == _ELSEWHERE
