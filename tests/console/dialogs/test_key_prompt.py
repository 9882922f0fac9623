"""Approving by a security key at this machine: where it is offered; what it sends."""

from __future__ import annotations

import asyncio
import json
import time
from threading import Event
from typing import Any

import pytest
from support.authenticator import Authenticator
from support.dialog_stand import text_of
from support.patience import PATIENT
from support.security_key import PIN, SoftKey
from textual.pilot import Pilot

from agentvault_tui.errors import FactorRefusedError
from agentvault_tui.operator_api.security_key import SecurityKeys

from .test_prompt import at_desk, sent
from .test_stepup import ID, decide, opened, scene


def with_key(stand: Any, *keys: SoftKey) -> Any:
    """Attach keys to the machine of the console."""
    stand.desk.keys = SecurityKeys(lambda: [lambda one=one: one for one in keys])
    return at_desk(stand)


def new_key() -> SoftKey:
    return SoftKey(Authenticator("http://localhost:8750/"))


async def settled(app: Any, pilot: Pilot[Any], words: str) -> None:
    """Wait until those words are drawn: a key answers from its own thread."""
    until = time.monotonic() + PATIENT
    while words not in text_of(app):
        assert time.monotonic() < until, text_of(app)
        await pilot.pause(0.02)


async def begun(app: Any, pilot: Pilot[Any]) -> None:
    """Press the key of the dialog, and wait until the PIN is asked for."""
    await settled(app, pilot, "touch a security key")
    app.settle()
    await pilot.press("t")
    await settled(app, pilot, "PIN of your security key")


async def test_the_key_signs_the_challenge_and_that_approves() -> None:
    """The PIN goes to the key alone; the assertion goes to the broker, once."""
    key = new_key()
    stand = with_key(scene(), key)
    stand.actions.passkey = key.passkey
    digest = stand.mirror.stepups[ID].digest
    async with opened(stand) as (app, pilot):
        await begun(app, pilot)
        await pilot.press(*PIN, "enter")
        await app.workers.wait_for_complete()
        await pilot.pause()
        (asked, *_) = sent(stand)
        assert asked[:3] == ("approve", ID, digest)
        told = json.loads(asked[3])
        assert told["type"] == "public-key"
        assert PIN not in text_of(app)
        assert stand.actions.asked[0] == ("key", ID, digest)
        assert key.passkey.counter == 1


@pytest.mark.parametrize("where", ["ssh", "nobody", "none"])
async def test_it_is_offered_only_where_it_can_work(where: str) -> None:
    """Not over SSH, not where nobody signed in, not without a key."""
    stand = with_key(scene(), *([] if where == "none" else [new_key()]))
    if where == "ssh":
        stand.desk.ssh = "192.0.2.1 5 192.0.2.2 22"
    if where == "nobody":
        stand.actions.signed_in = None
    async with opened(stand) as (app, pilot):
        await app.workers.wait_for_complete()
        await pilot.pause()
        assert "security key" not in text_of(app)
        await decide(app, pilot, "t")
        assert stand.actions.asked == []


async def test_a_key_that_goes_midway_leaves_the_dialog_usable() -> None:
    """It says so, and a one-time code approves after that."""
    key = new_key()
    key.gone_at = "sign"
    stand = with_key(scene(), key)
    stand.actions.passkey = key.passkey
    async with opened(stand) as (app, pilot):
        await begun(app, pilot)
        await pilot.press(*PIN, "enter")
        await settled(app, pilot, "the key was removed")
        assert sent(stand) == []
        await decide(app, pilot, "a")
        assert "Code from your authenticator" in text_of(app)


async def test_esc_gives_the_key_up() -> None:
    """While it waits for a touch, Esc goes back to the request, which stays open."""
    key, gave_up = new_key(), Event()

    def untouched(stop: Event) -> bool:
        stop.wait()
        gave_up.set()
        return False

    key.touched = untouched
    stand = with_key(scene(), key)
    stand.actions.passkey = key.passkey
    async with opened(stand) as (app, pilot):
        await begun(app, pilot)
        await pilot.press(*PIN, "enter")
        await settled(app, pilot, "Touch the security key")
        await pilot.press("escape")
        await pilot.pause()
        assert await asyncio.to_thread(gave_up.wait, 10)
        assert sent(stand) == []
        assert app.dialog.is_attached
        assert "Touch the security key:" not in text_of(app)


async def test_a_request_that_changed_meanwhile_is_not_approved() -> None:
    """What was signed was signed for what was shown."""
    key = new_key()
    stand = with_key(scene(), key)
    stand.actions.passkey = key.passkey

    def changed(_: Event) -> bool:
        stand.change(ID, digest="sha256:" + "0" * 64)
        return True

    key.touched = changed
    async with opened(stand) as (app, pilot):
        await begun(app, pilot)
        await pilot.press(*PIN, "enter")
        await settled(app, pilot, "is not the one this was opened for")
        assert sent(stand) == []


async def test_a_person_without_a_passkey_is_told_that() -> None:
    """The tenant has none of theirs: the key is not asked to sign."""
    key = new_key()
    stand = with_key(scene(), key)
    stand.actions.error = FactorRefusedError("no_passkey", "You have no passkey here.")
    async with opened(stand) as (app, pilot):
        await begun(app, pilot)
        await pilot.press(*PIN, "enter")
        await settled(app, pilot, "You have no passkey here.")
        assert "sign" not in key.seen
