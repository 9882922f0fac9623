"""How the audit screen looks: list, event, story, faults, at every size and look.

After a wanted change look at the pictures in the report first, then renew them with
`pytest tests/snapshots/test_audit.py --snapshot-update`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.console_scenes import busy, console, hostile, live, settle
from support.fake_operator import FakeOperator, short_socket
from textual.pilot import Pilot

SIZES = {"80x24": (80, 24), "120x40": (120, 40), "200x60": (200, 60)}
KEYS: dict[str, list[str]] = {
    "list": [],
    "held": ["k", "k", "k"],
    "event": ["k", "k", "enter"],
    "raw": ["k", "k", "enter", "v"],
    "go": ["g", *"25:99", "enter"],
    "filter": ["slash", *"outcome:den"],
    "nothing": ["slash", *"outcome:den zeppelin", "enter"],
}


@pytest.fixture
def fake() -> Iterator[FakeOperator]:
    with short_socket() as path, FakeOperator(path) as operator:
        yield operator


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


def pressing(*keys: str) -> Callable[[Pilot[Any]], Any]:
    """Open the audit screen, press keys, and wait until all is read."""

    async def before(pilot: Pilot[Any]) -> None:
        app: Any = pilot.app
        await live(pilot)
        await pilot.press("L")
        await pilot.pause()
        if keys:
            await pilot.press(*keys)
        screen = app.screen

        def read() -> bool:
            screen.pulse()
            screen.pulse()
            row = screen.feed.under_cursor
            known = not screen.open or (row and row.seq in screen.evidence.known)
            return bool(known and screen.reading.idle and screen.list.idle)

        await settle(pilot, read)
        screen.paint_all()
        await pilot.pause()

    return before


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("keys", KEYS)
def test_screen(
    snap_compare: Any, fake: FakeOperator, tmp_path: Path, keys: str, size: str
) -> None:
    """After keys, at each size."""
    story(fake)
    app = console(fake.socket, tmp_path)
    before = pressing(*KEYS[keys])
    assert snap_compare(app, terminal_size=SIZES[size], run_before=before)


@pytest.mark.parametrize("size", ["80x24", "120x40"])
@pytest.mark.parametrize("theme", ["mono", "agentvault-light"])
def test_look(
    snap_compare: Any, fake: FakeOperator, tmp_path: Path, theme: str, size: str
) -> None:
    """Without colour and in ASCII everything can still be told; and on light."""
    story(fake)
    ascii_only = "yes" if theme == "mono" else "no"
    app = console(fake.socket, tmp_path, theme=theme, alphabet=ascii_only)
    before = pressing(*KEYS["event"])
    assert snap_compare(app, terminal_size=SIZES[size], run_before=before)


@pytest.mark.parametrize("size", ["80x24", "120x40"])
def test_mismatch(
    snap_compare: Any, fake: FakeOperator, tmp_path: Path, size: str
) -> None:
    """A link that does not hold is seen in the list, in the title and in the event."""
    story(fake)
    seq = fake.head - 1
    fake.bodies[seq] = fake.bodies[seq].replace("otp", "pwd")
    app = console(fake.socket, tmp_path)
    before = pressing("k", "enter")
    assert snap_compare(app, terminal_size=SIZES[size], run_before=before)


@pytest.mark.parametrize("size", ["80x24", "120x40"])
def test_hostile(
    snap_compare: Any, fake: FakeOperator, tmp_path: Path, size: str
) -> None:
    """Every text an agent can choose is an attack, the raw body too."""
    hostile(fake)
    app = console(fake.socket, tmp_path)
    before = pressing("k", "enter", "v")
    assert snap_compare(app, terminal_size=SIZES[size], run_before=before)


@pytest.mark.parametrize("size", ["80x24", "120x40"])
def test_export(
    snap_compare: Any, fake: FakeOperator, tmp_path: Path, size: str
) -> None:
    """Where to, what of it, and how it can be left."""
    story(fake)
    app = console(fake.socket, tmp_path)

    async def before(pilot: Pilot[Any]) -> None:
        await pressing("slash", *"outcome:denied", "enter")(pilot)
        await pilot.press("e")
        await pilot.pause()
        await pilot.press("ctrl+u", *"~/october.txt", "enter")
        await pilot.pause()

    assert snap_compare(app, terminal_size=SIZES[size], run_before=before)


def test_smallest(snap_compare: Any, fake: FakeOperator, tmp_path: Path) -> None:
    """At 40x10 it is still of use."""
    story(fake)
    app = console(fake.socket, tmp_path)
    before = pressing("k", "enter")
    assert snap_compare(app, terminal_size=(40, 10), run_before=before)
