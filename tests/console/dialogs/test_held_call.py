"""The dialog of a held call: its request and its body, and nothing approved unseen."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256

import pytest
from msgspec.structs import replace
from support.dialog_stand import Stand, StandApp, said, scene, text_of
from textual.pilot import Pilot

from agentvault_tui.console.dialogs.stepup import StepUpDialog
from agentvault_tui.console.plain import sentences
from agentvault_tui.errors import UnreachableError
from agentvault_tui.presenters.records import StepUpRow
from agentvault_tui.presenters.stepup_rows import PastDecisions, StepUpFacts
from agentvault_tui.presenters.stepups import changes
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


def colour_of(app: StandApp, words: str) -> object:
    """Return the colour in which *words* are drawn, wherever they are."""
    for row in app.dialog.sheet.page.body:
        for text, style in row:
            if words in text:
                return style.color
    raise AssertionError(words)


def danger(app: StandApp) -> object:
    return app.dialog.pen.palette.danger.color


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
        assert "Policy read amount    42.00 USD (4200 minor units)" in rows
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
            ["type", "application/json"],
            ["Header", "idempotency-key: inv-1881"],
            ["/payee = ", "Northwind GmbH"],
            ["SHA-256", sha256(BODY).hexdigest()],
        ):
            assert all(word in text for word in words), words
        assert BODY.decode() in text.partition("The bytes of the body")[2]


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


async def test_a_body_that_is_lost_says_so_and_can_only_be_denied() -> None:
    """After a restart no broker has it: no key approves, and `d` denies."""
    stand = scene()
    async with opened(stand, held(stand, None), (80, 24)) as (app, pilot):
        first = text_of(app).partition("Agent  ")[0]
        assert "Its body is lost" in first
        assert colour_of(app, "Its body is lost") == danger(app)
        for keys in (["a"], ["v", "G", "a"], ["escape", "m"]):
            await press(app, pilot, *keys)
            assert stand.actions.asked == []
            assert not app.dialog.repeating
        assert "approve, 2nd factor" not in said(app)
        await press(app, pilot, "d")
        assert stand.actions.asked[0][0] == "deny"


async def test_a_lost_body_that_is_sent_again_is_shown_and_may_be_approved() -> None:
    """The agent's retry brings the bytes back into memory."""
    stand = scene()
    row = held(stand)
    body = stand.bodies.pop(row.id)
    async with opened(stand, row) as (app, pilot):
        assert "Its body is lost" in said(app)
        stand.bodies[row.id] = body
        stand.clock.advance(2)
        app.dialog.update_page()
        await shown(app, pilot)
        assert "/amount = 4200" in said(app)
        await press(app, pilot, "a")
        assert stand.actions.asked[0][0] == "approve"


@pytest.mark.parametrize("view", [False, True])
async def test_opaque_content_is_said_first_and_in_the_colour_of_danger(
    view: bool,
) -> None:
    """Type, size and SHA-256 are above everything else, however much it looks plain."""
    stand = scene()
    body = b'{"amount":1}'
    row = held(stand, body, kind=("opaque", "application/json"))
    async with opened(stand, row) as (app, pilot):
        if view:
            await press(app, pilot, "v")
        rows = [line.strip(" │") for line in text_of(app).splitlines()]
        first = next(n for n, line in enumerate(rows) if line.startswith("Agent  "))
        warned = " ".join(rows[first - 3 : first])
        assert "AgentVault cannot read this content: 12 bytes, application/json" in (
            warned
        )
        assert sha256(body).hexdigest() in warned.replace(" ", "")
        assert colour_of(app, "AgentVault cannot read") == danger(app)
        assert "/amount = 1" not in said(app)
        await press(app, pilot, "a")
        assert stand.actions.asked[0][0] == "approve"


async def test_a_form_is_shown_as_a_form_whatever_it_looks_like() -> None:
    """Its fields are there, not the JSON that one of them could be read as."""
    stand = scene()
    form = ("form", "application/x-www-form-urlencoded")
    row = held(stand, b"%7B%22amount%22%3A1%7D=&to=acct_9&to=acct_1", kind=form)
    async with opened(stand, row, (100, 30)) as (app, _):
        text = said(app)
    assert "form, 43 bytes, 3 members" in text
    assert 'to = "acct_9"' in text
    assert 'to = "acct_1"' in text
    assert "/amount" not in text


async def test_numbers_keep_their_digits() -> None:
    """1.50 is not 1.5."""
    stand = scene()
    async with opened(stand, held(stand, b'{"amount":1.50}')) as (app, _):
        assert "/amount = 1.50" in said(app)


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
    other = replace(row, request=replace(row.request, url=row.request.method))
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


TRANSFER = (
    b'{"amount":4200,"currency":"usd","destination":"acct_42","description":'
    b'"Invoice 1881","transfer_group":"ORDER_1881","metadata":{"order":"1881",'
    b'"team":"finance"},"source_type":"card"}'
)


async def test_an_ordinary_payment_fits_whole_at_80x24() -> None:
    """Members share rows; `a` needs no look at the full view first."""
    stand = scene()
    row = held(stand, TRANSFER, reason="Invoice 1881 is due today. " * 3)
    async with opened(stand, row) as (app, _):
        app.dialog.pages = "http://localhost:8750/"
        app.dialog.refresh_bindings()
        app.dialog.update_page()
        drawn = text_of(app)
        for member in ("/amount = 4200 ·", '/source_type = "card"', '"finance"'):
            assert member in drawn
        assert "A value is cut" not in drawn
        assert "open in the browser" in drawn


async def test_a_value_with_the_separator_shares_its_row_with_none() -> None:
    """What an agent writes into one member cannot pass for another."""
    stand = scene()
    members = {f"m{number}": number for number in range(8)}
    forged = {**members, "note": 'x" · /amount = 1', "z": 1}
    row = held(stand, json.dumps(forged, ensure_ascii=False).encode())
    async with opened(stand, row) as (app, _):
        lines = [line for line in text_of(app).splitlines() if "/note" in line]
        (line,) = lines
        assert line.count(" = ") == 2  # its own, and the one that is written in it
        assert "/m7" not in line
        assert "/z" not in line
