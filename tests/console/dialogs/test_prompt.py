"""The prompt for a one-time code: what it sends, and what it keeps to itself."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from support.dialog_stand import StandApp, text_of
from textual.pilot import Pilot

from agentvault_tui.clock import iso
from agentvault_tui.console.dialogs.lists import StepUpsDialog
from agentvault_tui.console.dialogs.stepup import StepUpDialog
from agentvault_tui.errors import FactorRefusedError
from agentvault_tui.operator_api.sessions import DeskInfo

from .test_stepup import ID, decide, opened, scene
from .test_stepups import crowded

CODE = "481516"


def at_desk(stand: Any, *, hours: float = 1, passkey_only: bool = False) -> Any:
    """Have alice signed in at this console for so many hours."""
    now = stand.mirror.clock.now()
    since = now - timedelta(hours=hours)
    stand.actions.signed_in = DeskInfo(
        name="alice",
        since=iso(since),
        fresh_until=iso(since + timedelta(hours=8)),
        passkey_only=passkey_only,
    )
    return stand


async def typed(app: StandApp, pilot: Pilot[Any], *keys: str) -> None:
    """Open the prompt, type, wait as long as a person does, and press Enter."""
    await pilot.pause()
    await decide(app, pilot, "a")
    await pilot.press(*keys)
    await decide(app, pilot, "enter")


def sent(stand: Any) -> list[tuple[str, ...]]:
    return [one for one in stand.actions.asked if one[0] == "approve"]


async def test_six_digits_and_enter_approve_what_is_shown() -> None:
    """The captured id and digest go with the code; no code for another device."""
    stand = at_desk(scene())
    digest = stand.mirror.stepups[ID].digest
    async with opened(stand) as (app, pilot):
        await typed(app, pilot, *CODE)
        assert sent(stand) == [("approve", ID, digest, CODE, "")]
        assert CODE not in text_of(app)
        assert "K D R T" not in text_of(app)


@pytest.mark.parametrize("signed_in", [True, False])
async def test_a_pressed_before_it_is_known_who_is_signed_in_waits_for_that(
    signed_in: bool,
) -> None:
    """Then the prompt opens, or the flow for another device begins."""
    stand = at_desk(scene()) if signed_in else scene()
    stand.actions.hold_identity = asyncio.Event()
    async with opened(stand) as (app, pilot):
        app.settle()
        await pilot.press("a")
        assert "who is signed in" in text_of(app)
        assert sent(stand) == []
        stand.actions.hold_identity.set()
        await app.workers.wait_for_complete()
        await pilot.pause()
        assert ("Code from your authenticator" in text_of(app)) is signed_in
        assert len(sent(stand)) == (0 if signed_in else 1)


async def test_the_facts_stay_on_the_screen_with_the_prompt() -> None:
    """And who signs, and the fingerprint to compare."""
    stand = at_desk(scene())
    async with opened(stand) as (app, pilot):
        await pilot.pause()
        await decide(app, pilot, "a")
        shown = text_of(app)
        row = stand.mirror.stepups[ID]
        for fact in (row.agent_name, row.action, row.resource, row.fingerprint):
            assert fact in shown
        assert "alice" in shown


async def test_after_eight_hours_the_password_is_asked_above_the_code() -> None:
    """It is never drawn."""
    stand = at_desk(scene(), hours=8.1)
    async with opened(stand) as (app, pilot):
        await pilot.pause()
        await decide(app, pilot, "a")
        await pilot.press(*"hunter2", "enter", *CODE)
        assert "hunter2" not in text_of(app)
        await decide(app, pilot, "enter")
        assert sent(stand)[0][3:] == (CODE, "hunter2")


@pytest.mark.parametrize("keys", ["", "48151", "48151x"])
async def test_fewer_than_six_digits_send_nothing(keys: str) -> None:
    """A letter is not taken into the code."""
    stand = at_desk(scene())
    async with opened(stand) as (app, pilot):
        await typed(app, pilot, *keys)
        assert sent(stand) == []
        assert "Six digits." in text_of(app)


async def test_a_used_code_says_when_the_next_one_comes() -> None:
    """The prompt stays, empty, and the seconds count down."""
    stand = at_desk(scene())
    stand.actions.error = FactorRefusedError("used_otp", "used already")
    async with opened(stand) as (app, pilot):
        await typed(app, pilot, *CODE)
        assert "wait for the next code (0:" in text_of(app)
        assert CODE not in text_of(app)
        stand.actions.error = None
        await pilot.press(*CODE)
        await decide(app, pilot, "enter")
        assert len(sent(stand)) == 2


async def test_where_no_code_can_approve_another_device_proves_it() -> None:
    """High risk with `passkey_only`, and a console at which nobody signed in."""
    for stand in (at_desk(scene(), passkey_only=True), scene()):
        async with opened(stand) as (app, pilot):
            await pilot.pause()
            await decide(app, pilot, "a")
            assert len(sent(stand)[0]) == 3
            assert "Code from your authenticator" not in text_of(app)


async def test_a_request_that_changed_under_the_prompt_is_not_approved() -> None:
    """What was typed was typed for what was shown."""
    stand = at_desk(scene())
    async with opened(stand) as (app, pilot):
        await pilot.pause()
        await decide(app, pilot, "a")
        await pilot.press(*CODE)
        stand.change(ID, digest="sha256:" + "0" * 64)
        app.settle()
        await decide(app, pilot, "enter")
        assert sent(stand) == []


async def test_p_goes_on_with_another_device() -> None:
    """The code and the link are shown as without a sign-in."""
    stand = at_desk(scene())
    async with opened(stand) as (app, pilot):
        await pilot.pause()
        await decide(app, pilot, "a")
        await decide(app, pilot, "p")
        assert len(sent(stand)[0]) == 3
        assert "K D R T" in text_of(app)


@pytest.mark.parametrize(
    ("key", "shows"), [("a", "Code from your"), ("n", "Reason:"), ("v", "in full")]
)
async def test_the_inbox_leads_straight_to_the_decision(key: str, shows: str) -> None:
    """On the request under the cursor, which is shown whole first."""
    stand = at_desk(crowded())
    app = StandApp(stand, StepUpsDialog)
    async with app.run_test(size=(120, 40)) as pilot:
        await decide(app, pilot, key)
        await pilot.pause()
        dialog = app.screen
        assert isinstance(dialog, StepUpDialog)
        app.settle()
        assert shows in text_of(app)
        assert dialog.stepup_id == stand.mirror.open_stepups()[0].id
        assert sent(stand) == []


async def test_d_in_the_inbox_denies_one_and_moves_to_the_next() -> None:
    """A second press at once denies nothing: another request is under the cursor."""
    stand = crowded()
    app = StandApp(stand, StepUpsDialog)
    async with app.run_test(size=(120, 40)) as pilot:
        first, second = (one.id for one in stand.mirror.open_stepups()[:2])
        await decide(app, pilot, "d")
        await pilot.press("d", "d")
        await pilot.pause()
        assert [one[1] for one in stand.actions.asked if one[0] == "deny"] == [first]
        dialog = app.screen
        assert isinstance(dialog, StepUpsDialog)
        assert dialog.cursor == second


@pytest.mark.parametrize(
    ("ssh", "pages", "first"),
    [
        ("192.0.2.1 5 192.0.2.2 22", "https://ops.example/", "p on another device"),
        ("192.0.2.1 5 192.0.2.2 22", "http://localhost:8750/", "o open in the"),
        ("", "https://ops.example/", "o open in the"),
    ],
)
async def test_over_ssh_the_phone_comes_first_if_it_reaches_the_tenant(
    ssh: str, pages: str, first: str
) -> None:
    """Else the browser does: a code of a link that opens nowhere is of no use."""
    stand = at_desk(scene())
    stand.desk.ssh = ssh
    async with opened(stand) as (app, pilot):
        await pilot.pause()
        app.dialog.pages = pages
        await decide(app, pilot, "a")
        shown = text_of(app)
        ways = ["p on another device", "o open in the"]
        assert min(ways, key=shown.index) == first


@pytest.mark.parametrize(
    ("ssh", "base", "copied"),
    [
        ("192.0.2.1 5 192.0.2.2 22", "https://ops.example", True),
        ("192.0.2.1 5 192.0.2.2 22", "http://127.0.0.1:49152", False),
        ("", "https://ops.example", False),
    ],
)
async def test_over_ssh_the_link_is_copied_by_osc_52(
    monkeypatch: pytest.MonkeyPatch, ssh: str, base: str, copied: bool
) -> None:
    """With the QR code on the screen; the user code is not in what is copied."""
    stand = at_desk(scene(), passkey_only=True)
    stand.desk.ssh = ssh
    monkeypatch.setattr(stand, "authorize", partial(stand.authorize, base=base))
    async with opened(stand, size=(120, 40)) as (app, pilot):
        await pilot.pause()
        await decide(app, pilot, "a")
        assert app.clipboard == (f"{base}/activate" if copied else "")
        assert ("▀" in text_of(app)) is base.startswith("https")
