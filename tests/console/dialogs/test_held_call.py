"""The dialog of a held call: its request and its body, and nothing approved unseen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from hashlib import sha256

import pytest
from support.dialog_stand import Stand, StandApp, said, scene, text_of
from textual.pilot import Pilot

from agentvault_tui.console.dialogs.stepup import StepUpDialog
from agentvault_tui.console.draw.stepup import PastDecisions, StepUpFacts
from agentvault_tui.console.plain import sentences
from agentvault_tui.console.state.records import StepUpRow
from agentvault_tui.console.state.stepups import changes
from agentvault_tui.errors import UnreachableError
from agentvault_tui.text import Shown

PAY = "agt_0000000000000001"
BODY = b'{"invoice":1881,"currency":"USD","payee":"Northwind GmbH","amount":4200}'
READ = {"amount": 4200, "currency": "USD"}


def held(stand: Stand, body: bytes | None = BODY, **more: object) -> StepUpRow:
    return stand.hold(PAY, body, **{"parameters": READ, **more})


@asynccontextmanager
async def opened(
    stand: Stand, row: StepUpRow, size: tuple[int, int] = (80, 24)
) -> AsyncIterator[tuple[StandApp, Pilot[None]]]:
    app = StandApp(stand, lambda desk: StepUpDialog(desk, row))
    async with app.run_test(size=size) as pilot:
        await shown(app, pilot)
        yield app, pilot


async def shown(app: StandApp, pilot: Pilot[None]) -> None:
    """Let the body and the past be read, and the arm delay pass."""
    await pilot.pause()
    await app.workers.wait_for_complete()
    await pilot.pause()
    app.settle()
    await pilot.pause()


async def press(app: StandApp, pilot: Pilot[None], *keys: str) -> None:
    app.settle()
    await pilot.press(*keys)
    await shown(app, pilot)


async def test_a_held_call_shows_request_parameters_and_body_on_a_small_screen() -> (
    None
):
    """Method, host, path, what policy read and the whole body fit 80x24."""
    stand = scene()
    async with opened(stand, held(stand)) as (app, pilot):
        rows = [row.strip(" │") for row in text_of(app).splitlines()]
        assert "Wants to    POST https://api.stripe.com/v1/transfers/acct_42" in rows
        assert any(
            row.startswith("Is          send:payment on stripe:acct_42") for row in rows
        )
        assert "Policy read amount    4200" in rows
        start = rows.index("Body        JSON, 72 bytes, 4 members")
        assert rows[start + 1 : start + 5] == [
            "/amount = 4200",
            '/currency = "USD"',
            '/payee = "Northwind GmbH"',
            "/invoice = 1881",
        ]
        assert "these bytes, once, within 5:00; one changed byte asks again" in said(
            app
        )
        assert "the agent says" not in said(app)
        await press(app, pilot, "a")
        assert stand.actions.asked[0][0] == "approve"


async def test_v_shows_headers_each_member_the_digest_and_the_raw_body() -> None:
    """`v` has all that is under the digest, readable and then to the letter."""
    stand = scene()
    async with opened(stand, held(stand), (120, 60)) as (app, pilot):
        await press(app, pilot, "v")
        text = said(app)
        for words in (
            ["Header", "content-type: application/json"],
            ["Header", "idempotency-key: inv-1881"],
            ["/payee = ", "Northwind GmbH"],
            ["SHA-256", sha256(BODY).hexdigest()],
        ):
            assert all(word in text for word in words), words
        assert BODY.decode() in text.partition("The body, raw")[2]


async def test_a_body_that_is_cut_waits_for_v_to_its_end() -> None:
    """Nothing is approved while a member of the body has not been on the screen."""
    stand = scene()
    body = b'{"amount":4200,"memo":[%s]}' % b",".join(b"%d" % n for n in range(60))
    async with opened(stand, held(stand, body)) as (app, pilot):
        assert "more" in said(app)
        await press(app, pilot, "a")
        assert stand.actions.asked == []
        assert "A value is cut here" in said(app)
        await press(app, pilot, "v", "G")
        await press(app, pilot, "a")
        assert stand.actions.asked[0][0] == "approve"


async def test_a_body_that_is_gone_says_so_and_is_approved_only_after_v() -> None:
    """After a restart the body is not in memory: the dialog says what that means."""
    stand = scene()
    async with opened(stand, held(stand, None), (80, 40)) as (app, pilot):
        assert "not in memory any more" in said(app)
        await press(app, pilot, "a")
        assert stand.actions.asked == []
        await press(app, pilot, "v")
        assert "the broker restarted" in said(app)


async def test_another_body_than_the_digest_covers_is_never_approved() -> None:
    """A broker that hands out other bytes cannot have them approved."""
    stand = scene()
    row = held(stand)
    stand.bodies[row.id] = BODY.replace(b"4200", b"9200")
    async with opened(stand, row) as (app, pilot):
        assert "9200" not in said(app)
        await press(app, pilot, "v", "G")
        await press(app, pilot, "a")
        assert stand.actions.asked == []
        assert "not the one this was opened for" in said(app)


async def test_a_body_that_could_not_be_read_is_asked_for_again() -> None:
    """A broker that does not answer leaves the body unread, until it does."""
    stand = scene()
    stand.actions.error = UnreachableError("no broker answers")
    row = held(stand)
    async with opened(stand, row) as (app, pilot):
        assert "The body is not read: no broker answers" in said(app)
        stand.actions.error = None
        stand.clock.advance(2)
        app.dialog.update_page()
        await shown(app, pilot)
        assert "/amount = 4200" in said(app)


@pytest.mark.parametrize("ascii_only", [False, True])
async def test_a_hostile_body_is_inert(ascii_only: bool) -> None:
    """Escape sequences, markup and hidden characters of a body are spelled out."""
    stand = scene(ascii_only=ascii_only)
    body = '{"amount":"\\u001b]52;c;ZXZpbA==\\u0007","to":"[bold]\u202egnp\u200b"}'
    async with opened(stand, held(stand, body.encode()), (120, 60)) as (app, pilot):
        for _ in range(2):
            text = text_of(app)
            assert not {"\x1b", "\u202e", "\u200b"} & {*text}
            assert "[bold]" in text
            assert ("\\u202e" if ascii_only else "⟦U+202E⟧") in text
            await press(app, pilot, "v")


@pytest.mark.parametrize(
    ("kind", "ready", "unused", "used"),
    [
        ("request", "call released", "not sent yet", "sent"),
        ("evaluation", "allowed once", "not done yet", "done"),
        ("token", "token minted", "not redeemed yet", "redeemed"),
    ],
)
async def test_each_stage_says_what_happens_there(
    kind: str, ready: str, unused: str, used: str
) -> None:
    """A call is sent and an evaluation allowed; only a token request mints a token."""
    stand = scene()
    if kind == "request":
        row = held(stand)
    else:
        row = stand.ask(PAY, "send:payment", evaluation=kind == "evaluation")
    async with opened(stand, row, (120, 40)) as (app, pilot):
        stand.authorize(row.id)
        await shown(app, pilot)
        assert ready in said(app)
        stand.approve(row.id, "alice")
        await shown(app, pilot)
        assert f"✓ {ready}" in said(app)
        assert unused in said(app)
        assert kind == "token" or "token" not in said(app)
        stand.redeem(row.id)
        await shown(app, pilot)
        assert f"✓ {used}" in said(app)
        assert f"─ {used} ─┐" in text_of(app)
        assert kind == "token" or "token" not in said(app)


def test_a_changed_request_is_a_change() -> None:
    """A dialog whose request is another one says so."""
    stand = scene()
    row = held(stand)
    assert row.request is not None
    other = replace(row, request=row.request._replace(url=row.request.method))
    assert changes(row, other) == ("the request",)


async def test_plain_mode_tells_request_and_body() -> None:
    """`show` of plain mode has the same facts as the dialog."""
    stand = scene()
    row = held(stand)
    assert row.request is not None
    body = await stand.actions.body(row.id, row.request)
    past, now = PastDecisions(()), stand.clock.now()
    asked = StepUpFacts(row, Shown("bob"), past, now, body)
    text = "\n".join(sentences.facts(asked))
    assert "POST https://api.stripe.com/v1/transfers/acct_42" in text
    assert '/payee = "Northwind GmbH"' in text


async def test_a_tool_call_shows_its_arguments_and_the_agents_own_words() -> None:
    """The words stand apart from the body, and say that nobody verified them."""
    stand = scene()
    row = held(stand, b'{"command":"ls -l"}', reason="List files", evaluation=True)
    async with opened(stand, row, (100, 40)) as (app, _):
        text = text_of(app)
    assert '/command = "ls -l"' in text
    assert text.index("/command") < text.index("the agent says (unverified)")
    assert text.index("(unverified)") < text.index("List files")
