"""How every dialog looks, at each stage, at both sizes, and without colour or glyphs.

After a wanted change look at the diff (and the report for SVGs) first, then renew with
`pytest tests/snapshots --snapshot-update`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from support.cut_off import half_done, uncredited
from support.dialog_stand import Stand, StandApp, scene
from support.pictures import SMALL, Gallery
from support.wire_shapes import tell
from textual.pilot import Pilot

from agentvault_tui.clock import iso
from agentvault_tui.console.desk import Desk
from agentvault_tui.console.dialogs.base import Dialog
from agentvault_tui.console.dialogs.info import OperatorsDialog
from agentvault_tui.console.dialogs.lists import StepUpsDialog
from agentvault_tui.console.dialogs.panic import LiftDialog, PanicDialog
from agentvault_tui.console.dialogs.revoke import RestoreDialog, RevokeDialog
from agentvault_tui.console.dialogs.stepup import StepUpDialog
from agentvault_tui.console.state.link_state import LinkState

ID = "sup_7f3a"
CALENDAR = "agt_0000000000000002"

Change = Callable[[Stand], object]


def nothing(_: Stand) -> None:
    """Change nothing."""


def stepup(desk: Desk) -> Dialog[Any]:
    return StepUpDialog(desk, desk.mirror.stepups[ID])


def waiting(desk: Desk) -> Dialog[Any]:
    return StepUpDialog(desk, desk.mirror.open_stepups()[-1])


def revoke(desk: Desk) -> Dialog[Any]:
    return RevokeDialog(desk, desk.mirror.agents[CALENDAR])


def restore(desk: Desk) -> Dialog[Any]:
    return RestoreDialog(desk, desk.mirror.agents[CALENDAR])


def lost(stand: Stand) -> None:
    stand.mirror.set_link(LinkState.LOST, "the broker does not answer")


def used(stand: Stand) -> None:
    stand.approve(ID, "alice")
    stand.redeem(ID)


def problem(stand: Stand) -> None:
    stand.change(ID, problem="the code ran out before it was used", count=3)


PAYMENT = (
    b'{"invoice":1881,"memo":"consulting in November","currency":"USD",'
    b'"payee":{"name":"Northwind GmbH","iban":"DE02120300000000202051"},"amount":4200}'
)


def held(stand: Stand) -> None:
    """A call of the payments agent waits, with a body."""
    stand.hold(
        "agt_0000000000000001", PAYMENT, parameters={"amount": 4200, "currency": "USD"}
    )


FORM = (
    b"amount=4200&currency=usd&destination=acct_42&description=Invoice+1881"
    b"&to=finance%40acme.test&to=ap%40acme.test"
)
BOUNDARY = "agentvault-0123456789abcdef"
FILES = (
    b'--%(b)s\r\nContent-Disposition: form-data; name="to"\r\n\r\n'
    b"finance@acme.test\r\n--%(b)s\r\n"
    b'Content-Disposition: form-data; name="scan"; filename="invoice.pdf"\r\n'
    b"Content-Type: application/pdf\r\n\r\n%%PDF\r\n--%(b)s--\r\n"
) % {b"b": BOUNDARY.encode()}


def holds(body: bytes, kind: str, media_type: str) -> Change:
    """Have a call wait whose body is of that kind."""
    return lambda stand: stand.hold(
        *("agt_0000000000000001", body),
        kind=(kind, media_type),
        parameters={"amount": 4200},
    )


def lost_body(stand: Stand) -> None:
    stand.hold("agt_0000000000000001", None, parameters={"amount": 4200})


def long_value(stand: Stand) -> None:
    stand.change(ID, parameters={"amount": 420000, "to": "Northwind " * 20})


def changed(stand: Stand) -> None:
    stand.change(ID, digest="sha256:91cc", fingerprint="91CC", rule="new-rule")


def people(stand: Stand) -> None:
    """Bob has the same request open, Carol listens, and you are here."""
    since = iso(stand.clock.now())
    rows = [
        {"id": "con_1", "name": "alice", "face": "console"},
        {"id": "con_2", "name": "bob", "face": "console", "terminal": "pts/4"},
        {"id": "con_3", "name": "Carol Jones", "face": "plain"},
        {"id": "con_4", "name": "carol", "face": "stream", "terminal": "tty2"},
    ]
    rows[1]["looking_at"] = ID
    told = [{**row, "since": since} for row in rows]
    tell(stand.mirror, "presence", {"you": "con_1", "operators": told, "unlisted": 2})


def tells(how: Callable[[datetime], dict[str, Any]]) -> Change:
    """Let the broker tell how far tenant and providers are with what was cut."""
    return lambda stand: stand.agent(CALENDAR, **how(stand.clock.now()))


def crowd(stand: Stand) -> None:
    for number in range(3):
        stand.clock.advance(20)
        stand.ask("agt_0000000000000001", "send:payment", resource=f"acct_{number}")


SCENES: dict[str, tuple[Callable[[Desk], Dialog[Any]], Change, list[str], Change]] = {
    # name: the dialog, what was so before, the keys pressed, what happens after them
    "asked": (stepup, nothing, [], nothing),
    "asked_again": (stepup, nothing, [], problem),
    "asked_lost": (stepup, lost, [], nothing),
    "asked_cut": (stepup, long_value, [], nothing),
    "asked_changed": (stepup, nothing, [], changed),
    "asked_together": (stepup, people, [], nothing),
    "operators": (OperatorsDialog, people, [], nothing),
    "asked_in_full": (stepup, nothing, ["v"], nothing),
    "held_call": (waiting, held, [], nothing),
    "held_in_full": (waiting, held, ["v"], nothing),
    "held_lost": (waiting, lost_body, [], nothing),
    "held_form": (
        waiting,
        holds(FORM, "form", "application/x-www-form-urlencoded"),
        [],
        nothing,
    ),
    "held_files": (
        waiting,
        holds(FILES, "multipart", f"multipart/form-data; boundary={BOUNDARY}"),
        [],
        nothing,
    ),
    "held_opaque": (
        waiting,
        holds(b"\x89PNG\r\n\x1a\n" + bytes(40), "opaque", "image/png"),
        [],
        nothing,
    ),
    "deny_why": (stepup, nothing, ["n", *"which"], nothing),
    "factor": (stepup, nothing, ["a"], nothing),
    "approved": (stepup, nothing, ["a"], lambda stand: stand.approve(ID, "alice")),
    "used": (stepup, nothing, ["a"], used),
    "denied": (stepup, nothing, [], lambda stand: stand.deny(ID, "carol", "not ours")),
    "expired": (stepup, nothing, [], lambda stand: stand.change(ID, status="expired")),
    "queue": (StepUpsDialog, crowd, ["j"], nothing),
    "help": (stepup, nothing, ["question_mark"], nothing),
    "revoke": (revoke, nothing, [], nothing),
    "revoke_reason": (revoke, nothing, ["e", *"runs"], nothing),
    "revoked": (revoke, nothing, ["y"], nothing),
    "revoked_half_done": (revoke, nothing, ["y"], tells(half_done)),
    "revoked_uncredited": (revoke, nothing, ["y"], tells(uncredited)),
    "restore": (
        restore,
        lambda stand: stand.agent(CALENDAR, status="revoked"),
        [],
        nothing,
    ),
    "restored": (
        restore,
        lambda stand: stand.agent(CALENDAR, status="revoked"),
        ["y"],
        nothing,
    ),
    "undone": (
        restore,
        lambda stand: stand.agent(CALENDAR, status="revoked"),
        ["y", "z"],
        nothing,
    ),
    "revoke_waiting": (
        lambda desk: RevokeDialog(desk, desk.mirror.agents["agt_0000000000000001"]),
        nothing,
        [],
        lost,
    ),
    "panic": (PanicDialog, nothing, [*"pan"], nothing),
    "stopped": (PanicDialog, nothing, [*"panic", "enter"], nothing),
    "lift": (LiftDialog, lambda stand: stand.panic("runaway bookings"), [], nothing),
}
MONO = [
    *("asked", "asked_together", "asked_cut", "asked_in_full", "deny_why", "factor"),
    "held_call",
    *("approved", "denied", "queue", "help", "operators", "revoke", "revoked"),
    "revoked_half_done",
    *("restore", "restored", "panic", "stopped", "lift"),
]
"""Each kind of dialog and stage: also without colour, in ASCII."""
PAINTED = ["asked", "factor", "revoke"]
"""Also in the other painted themes."""


async def differs(gallery: Gallery, name: str, looks: str, **more: Any) -> list[str]:
    """Return the sizes at which the dialog of that scene looks otherwise."""
    make, before, keys, after = SCENES[name]
    stand = scene(ascii_only=looks == "mono")
    before(stand)
    app = StandApp(stand, make, looks)

    async def play(pilot: Pilot[None]) -> None:
        await pilot.pause()
        app.settle()
        for key in keys:
            stand.clock.advance(0.6)
            await pilot.press(key)
        await app.workers.wait_for_complete()
        app.settle()
        after(stand)
        app.settle()
        app.settle()

    return await gallery.differs(app, play, **more)


@pytest.mark.parametrize("name", SCENES)
async def test_dialog(gallery: Gallery, name: str) -> None:
    """Each dialog and stage looks as it was last looked at, at each size."""
    svg = SMALL if name in MONO else None
    assert await differs(gallery, name, "agentvault", svg=svg) == []


@pytest.mark.parametrize("name", MONO)
async def test_mono_ascii(gallery: Gallery, name: str) -> None:
    """Without colour and drawn glyphs everything still says what it is."""
    assert await differs(gallery, name, "mono") == []


@pytest.mark.parametrize("looks", ["agentvault-light", "high-contrast", "ansi-dark"])
@pytest.mark.parametrize("name", PAINTED)
async def test_other_themes(gallery: Gallery, name: str, looks: str) -> None:
    """The other themes hold the same dialogs; the QR code stays dark on light."""
    assert await differs(gallery, name, looks, sizes=(SMALL,), svg=SMALL) == []
