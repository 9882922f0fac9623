"""Hostile text in every field an agent, the tenant or a person elsewhere can set."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
from support.dialog_stand import Stand, StandApp, scene, text_of

from agentvault_tui.console.desk import Desk
from agentvault_tui.console.dialogs.base import Dialog
from agentvault_tui.console.dialogs.lists import StepUpsDialog
from agentvault_tui.console.dialogs.panic import LiftDialog, PanicDialog
from agentvault_tui.console.dialogs.revoke import RestoreDialog, RevokeDialog
from agentvault_tui.console.dialogs.stepup import StepUpDialog
from agentvault_tui.errors import RefusedError

HOSTILE = {
    "markup": "[bold red]x[/] [/foo] [@click=app.quit]y[/] [",
    "ansi": "\x1b[2J\x1b]52;c;ZXZpbA==\x07\x1b]8;;http://e\x1b\\x\x1bc",
    "c1": "\x9b2J\x9d0;t\x9c\x90q\x9c",
    "bidi": "pay\u202eUSD\u2066x\u2069\u200f",
    "hidden": "a\u200bb\u2060c\ufeffd\u00ade\u3164f",
    "lines": "one\r\ntwo\n\n\tthree\u2028four",
    "long": "w" * 4000,
    "wide": "漢" * 1000,
    "marks": "e" + "\u0301" * 1000,
}


def hostile_scene(text: str) -> Stand:
    """The usual scene with *text* in every field there is."""
    stand = scene()
    for agent_id in list(stand.state.agents):
        stand.agent(agent_id, name=text, owner=text, purpose=text)
    fields = dict.fromkeys(
        ("agent_name", "action", "scope", "resource", "reason", "rule", "why"), text
    )
    stand.change(
        "sup_7f3a", **fields, problem=text, parameters={text: text, "n": [text]}
    )
    for stepup_id in list(stand.state.stepups):
        stepup = stand.state.stepups[stepup_id]
        if stepup["decided_by"]:
            by = {"sub": text, "name": text, "amr": [text]}
            stand.change(stepup_id, decided_by=by, denial=text)
    stand.panic(text, by=text)
    stand.actions.error = RefusedError(text, text)
    return stand


def agent_of(desk: Desk) -> Any:
    return next(iter(desk.mirror.agents.values()))


DIALOGS: dict[str, Callable[[Desk], Dialog[Any]]] = {
    "stepup": lambda d: StepUpDialog(d, d.mirror.stepups["sup_7f3a"]),
    "queue": StepUpsDialog,
    "revoke": lambda d: RevokeDialog(d, agent_of(d)),
    "restore": lambda d: RestoreDialog(d, agent_of(d)),
    "panic": PanicDialog,
    "lift": LiftDialog,
}


def assert_inert(app: StandApp, width: int) -> None:
    """Nothing drawn can move the cursor, hide or turn text, or leave its row."""
    for strip in app.screen._compositor.render_strips():
        assert strip.cell_length == width
        for character in strip.text:
            kind = unicodedata.category(character)
            assert kind[0] in "LMNPS" or character == " ", hex(ord(character))


@pytest.mark.slow
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
async def test_every_dialog_shows_it_inert_and_bounded(text: str) -> None:
    """In each dialog, each stage and each error, hostile text stays text."""
    stand = hostile_scene(text)
    for make in DIALOGS.values():
        app = StandApp(stand, make)
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            app.settle()
            assert_inert(app, 80)
            await pilot.press("d" if isinstance(app.screen, StepUpDialog) else "y")
            await app.workers.wait_for_complete()
            app.settle()
            assert_inert(app, 80)


@pytest.mark.slow
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
async def test_the_other_stages_show_it_inert_and_bounded(text: str) -> None:
    """Full view, second factor and ending, with a tenant that is hostile too."""
    stand = hostile_scene(text)
    app = StandApp(stand, DIALOGS["stepup"])
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        await pilot.press("v")
        app.settle()
        assert_inert(app, 80)
        await pilot.press("v")
        stand.authorize("sup_7f3a")
        device = {**stand.state.stepups["sup_7f3a"]["device"], "user_code": text}
        device["verification_uri"] = device["verification_uri_complete"] = text
        stand.change("sup_7f3a", device=device)
        app.settle()
        assert_inert(app, 80)
        stand.deny("sup_7f3a", text, text)
        app.settle()
        assert_inert(app, 80)


async def test_markup_is_shown_as_it_is() -> None:
    """Brackets are brackets: nothing parses them."""
    stand = hostile_scene(HOSTILE["markup"])
    app = StandApp(stand, DIALOGS["revoke"])
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        assert "[bold red]x[/] [/foo]" in text_of(app)
