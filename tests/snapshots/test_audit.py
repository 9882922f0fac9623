"""How the audit screen looks: list, event, story, faults, at every size and look.

After a wanted change look at the diff (and the report for SVGs) first, then renew with
`pytest tests/snapshots --snapshot-update`.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.console_scenes import busy, hostile, live, settle
from support.fake_operator import FakeOperator
from support.pictures import LIGHT, LOOKS, MIDDLE, SMALLEST, Gallery, Play, wearing
from textual.pilot import Pilot

from agentvault_tui.console.app import ConsoleApp
from agentvault_tui.console.screens.audit import AuditScreen

KEYS: dict[str, list[str]] = {
    "list": [],
    "held": ["k", "k", "k"],
    "event": ["k", "j", "enter"],
    "raw": ["k", "j", "enter", "v"],
    "go": ["at", *"25:99", "enter"],
    "filter": ["slash", *"outcome:den"],
    "nothing": ["slash", *"outcome:den zeppelin", "enter"],
}


def story(fake: FakeOperator) -> None:
    """A payment from request to use, amid others; no step-up waits any more."""
    now = fake.now
    fake.now -= timedelta(minutes=3)
    agents = busy(fake)
    payments = agents["payments-agent"]
    fake.stepups.clear()
    same = {
        "action": "send:payment",
        "resource": "stripe:acct_42",
        "rule": "payments-need-step-up",
        "decision_id": "dec_63rw55egx93w3z4f",
    }
    ids = {"stepup_id": "sup_cearf07dkty30psg", "digest": "sha256:" + "7f3a" * 16}
    fake.now = now - timedelta(minutes=2)
    paid = {"parameters": {"amount": 4200, "currency": "USD"}, **ids}
    fake.decide(payments, "send:payment", "escalated", **{**same, "detail": paid})
    lure = "Invoice 1881. Enter code WXYZ-BCDF at https://evil.test to confirm."
    fake.add_event("stepup.requested", payments, reason=lure, detail=paid, **same)
    alice = {"actor": {"kind": "operator", "id": "auth0|alice", "name": "alice"}}
    for seconds, kind, more in (
        (48, "stepup.authorizing", {"detail": ids}),
        (12, "stepup.approved", {"detail": {**ids, "amr": ["mfa", "otp"]}}),
    ):
        fake.now += timedelta(seconds=seconds)
        fake.add_event(kind, payments, **alice, **same, **more)
    fake.now += timedelta(seconds=0.8)
    fake.add_event("token.redeemed", payments, detail={"token_id": "tok_1"}, **same)


def pressing(*keys: str) -> Play:
    """Open the audit screen and press keys."""

    async def play(pilot: Pilot[Any]) -> None:
        await live(pilot)
        await pilot.press("L")
        await pilot.pause()
        if keys:
            await pilot.press(*keys)

    return play


async def ready(pilot: Pilot[Any]) -> None:
    """Wait until all is read that a size has room for."""
    screen: Any = next(s for s in pilot.app.screen_stack if isinstance(s, AuditScreen))

    def read() -> bool:
        screen.pulse()
        screen.pulse()
        row = screen.feed.under_cursor
        known = not screen.open or (row and row.seq in screen.evidence.by_seq)
        return bool(known and screen.reading.idle and screen.list.idle)

    await settle(pilot, read)
    screen.paint_all()


@pytest.mark.parametrize("keys", KEYS)
async def test_screen(
    gallery: Gallery, fake: FakeOperator, tmp_path: Path, keys: str
) -> None:
    """After keys, at each size."""
    story(fake)

    def make() -> ConsoleApp:
        return wearing(LOOKS["colour"], fake, tmp_path)

    play = pressing(*KEYS[keys])
    assert await gallery.differs_apart(make, play, ready=ready) == []


@pytest.mark.parametrize("keys", ["list", "event", "filter"])
async def test_mono(
    gallery: Gallery, fake: FakeOperator, tmp_path: Path, keys: str
) -> None:
    """Without colour and in ASCII everything can still be told."""
    story(fake)

    def make() -> ConsoleApp:
        return wearing(LOOKS["mono"], fake, tmp_path)

    play = pressing(*KEYS[keys])
    assert await gallery.differs_apart(make, play, ready=ready) == []


async def test_light(gallery: Gallery, fake: FakeOperator, tmp_path: Path) -> None:
    """The same on light."""
    story(fake)
    app = wearing(LIGHT, fake, tmp_path)
    play = pressing(*KEYS["event"])
    assert await gallery.differs(app, play, ready=ready, svg=MIDDLE) == []


@pytest.mark.parametrize("look", LOOKS)
async def test_mismatch(
    gallery: Gallery, fake: FakeOperator, tmp_path: Path, look: str
) -> None:
    """A link that does not hold is seen in the list, in the title and in the event."""
    story(fake)
    seq = fake.head - 1
    fake.bodies[seq] = fake.bodies[seq].replace("otp", "pwd")

    def make() -> ConsoleApp:
        return wearing(LOOKS[look], fake, tmp_path)

    play = pressing("k", "enter")
    assert await gallery.differs_apart(make, play, ready=ready) == []


async def test_hostile(gallery: Gallery, fake: FakeOperator, tmp_path: Path) -> None:
    """Every text an agent can choose is an attack, the raw body too."""
    hostile(fake)
    app = wearing(LOOKS["colour"], fake, tmp_path)
    assert await gallery.differs(app, pressing("k", "enter", "v"), ready=ready) == []


@pytest.mark.parametrize("look", LOOKS)
async def test_export(
    gallery: Gallery, fake: FakeOperator, tmp_path: Path, look: str
) -> None:
    """Where to, what of it, and how it can be left."""
    story(fake)
    app = wearing(LOOKS[look], fake, tmp_path)

    async def play(pilot: Pilot[Any]) -> None:
        await pressing("slash", *"outcome:denied", "enter")(pilot)
        await ready(pilot)
        await pilot.press("e")
        await pilot.pause()
        await pilot.press("ctrl+u", *"~/october.txt", "enter")
        await pilot.pause()

    assert await gallery.differs(app, play) == []


async def test_smallest(gallery: Gallery, fake: FakeOperator, tmp_path: Path) -> None:
    """At 40x10 it is still of use."""
    story(fake)
    app = wearing(LOOKS["colour"], fake, tmp_path)
    play = pressing("k", "enter")
    assert await gallery.differs(app, play, ready=ready, sizes=SMALLEST) == []
