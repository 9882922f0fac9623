"""What the step-up dialog shows of a request, and of its past, before it is decided."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace
from support.dialog_stand import (
    CODE,
    DIGEST,
    ID,
    StandApp,
    decide,
    opened,
    said,
    scene,
    text_of,
)

from agentvault_tui.console.desk import name_ways
from agentvault_tui.console.dialogs.lists import StepUpsDialog
from agentvault_tui.console.plain import sentences
from agentvault_tui.errors import TenantUnreachableError
from agentvault_tui.home import Home
from agentvault_tui.operator_api.stepups import ApprovalsInfo, DeciderInfo, RepeatInfo
from agentvault_tui.presenters.lines import Pen
from agentvault_tui.presenters.records import BodyView
from agentvault_tui.presenters.stepup_rows import (
    PastDecisions,
    StepUpFacts,
    brief,
    whole,
)
from agentvault_tui.presenters.stepups import (
    changes,
    differs,
    no_limits,
    read_repeat,
)
from agentvault_tui.presenters.theme import palette
from agentvault_tui.text import Shown

LONG = {"to": "N" * 400, "amount": 5}


@pytest.mark.parametrize(
    "change",
    [
        {"parameters": LONG},
        {"parameters": {f"p{n}": n for n in range(40)}},
        {"resource": "r" * 300},
        {"agent_name": "n" * 120},
        {"action": "send:" + "x" * 120, "scope": "send:" + "x" * 120},
        {"why": "because " * 40},
    ],
    ids=["value", "many", "resource", "name", "action", "why"],
)
async def test_a_cut_trusted_value_must_be_read_to_its_end_first(
    change: dict[str, object],
) -> None:
    """`a` refuses until `v` has shown the last trusted row; `d` is never held up."""
    stand = scene()
    stand.change(ID, **change)
    async with opened(stand) as (app, pilot):
        app.settle()
        assert "v shows it whole, a waits for it" in said(app)
        await decide(app, pilot, "a")
        assert stand.actions.asked == []
        assert "press v" in text_of(app)
        await decide(app, pilot, "v")
        await decide(app, pilot, "end")
        await decide(app, pilot, "v")
        await decide(app, pilot, "a")
        assert stand.actions.asked == [("approve", ID, DIGEST)]


@pytest.mark.parametrize("held", [False, True], ids=["asked", "held"])
@pytest.mark.parametrize("reason", [None, "Invoice 1881 is due today."])
def test_why_is_not_cut_beside_blank_rows(reason: str | None, held: bool) -> None:
    """What policy says of it is cut only where every row has something."""
    stand, why = scene(), "money leaves the company " * 5
    row = stand.change(ID, why=why, reason=reason)
    body = BodyView("JSON, 15 bytes", (("/amount", "4200"),)) if held else None
    if held:
        row = stand.hold(row.agent_id, b'{"amount":4200}', why=why, reason=reason)
    pen = Pen(palette("agentvault"), stand.desk.glyphs)
    asked = StepUpFacts(row, Shown("bob"), PastDecisions(), stand.clock.now(), body)
    cut_at = []
    for height in range(10, 30):
        rows, cut = brief(asked, pen, 72, height)
        text = " ".join("".join(piece for piece, _ in row) for row in rows)
        whole_why = text.count("company") == 5
        assert whole_why or () not in rows, height
        cut_at += [cut] * (not whole_why)
    assert cut_at
    assert all(cut_at)


async def test_opening_the_full_view_is_not_reading_it() -> None:
    """While trusted rows are still below the edge, `a` keeps refusing."""
    stand = scene()
    stand.change(ID, parameters={"to": "N" * 4000})
    async with opened(stand) as (app, pilot):
        await decide(app, pilot, "v")
        await decide(app, pilot, "v")
        await decide(app, pilot, "a")
        assert stand.actions.asked == []


async def test_the_full_view_scrolls_by_every_key() -> None:
    """j k, arrows, pages, Home and End move through it."""
    stand = scene()
    stand.change(ID, parameters={"to": "N" * 4000})
    async with opened(stand) as (app, pilot):
        await decide(app, pilot, "v")
        tops = []
        for key in ("j", "down", "pagedown", "k", "up", "pageup", "end", "home"):
            await pilot.press(key)
            tops.append(app.dialog.sheet.top)
        assert tops[:6] == [1, 2, 12, 11, 10, 0]
        assert tops[6] > 40
        assert tops[7] == 0


async def test_a_long_agent_name_leaves_its_id_whole() -> None:
    """However long a name is, the id stands beside it (T-03)."""
    stand = scene()
    stand.change(ID, agent_name="n" * 500)
    async with opened(stand, size=(60, 20)) as (app, _):
        assert stand.mirror.stepups[ID].agent_id in text_of(app)


@pytest.mark.parametrize("size", [(80, 24), (60, 20), (120, 40)])
async def test_the_trusted_facts_stand_whatever_the_reason_is(
    size: tuple[int, int],
) -> None:
    """Neither 10 kB nor 500 newlines, marks or wide letters push a fact away (C15)."""
    hostile = "x" * 10_000 + "\n" * 500 + "e" + "\u0301" * 4000 + "漢" * 2000
    stand = scene()
    stand.change(ID, reason=hostile, resource="stripe:acct_42\n" + "z" * 90)
    async with opened(stand, size=size) as (app, _):
        shown = text_of(app)
        for fact in (
            "7F3A",
            "request ends",
            "send:payment",
            "stripe:acct_42",
            stand.mirror.stepups[ID].agent_id,
            "risk HIGH",
            "payments-need-step-up",
            "unverified",
            "a approve",
        ):
            assert fact in shown


async def test_lures_in_the_agents_words_are_masked_and_counted() -> None:
    """A code or a link in the reason cannot be read, in brief or in full (C27)."""
    stand = scene()
    async with opened(stand) as (app, pilot):
        for _ in range(2):
            shown = text_of(app)
            assert "ABCD" not in shown
            assert "evil" not in shown
            assert "1 code and 1 link masked" in shown
            await decide(app, pilot, "v")
            await decide(app, pilot, "end")


async def test_history_tells_what_was_decided_before() -> None:
    """The last ones like it: how many ended how; with room, each with what differs."""
    stand = scene()
    async with opened(stand) as (app, pilot):
        assert stand.actions.read == [ID]
        assert "last 3 like it: 2 approved, 1 denied" in text_of(app)
        await decide(app, pilot, "v")
        await decide(app, pilot, "end")
        assert "denied by bob amount 3900.00 USD (390000 mi" in said(app)
    stand = scene()
    async with opened(stand, size=(120, 40)) as (app, _):
        for row in (
            "denied by bob amount 3900.00 USD (390000 minor units)",
            "approved by carol amount 39",
        ):
            assert row in said(app)


async def test_history_is_read_again_when_one_like_it_is_decided() -> None:
    """A decision that falls meanwhile is in it at once, and keys wait anew."""
    stand = scene()
    pay = stand.mirror.stepups[ID].agent_id
    other = stand.ask(pay, "send:payment", parameters={"amount": 7})
    async with opened(stand) as (app, pilot):
        app.settle()
        stand.deny(other.id, "dave")
        app.dialog.update_page()
        await app.workers.wait_for_complete()
        await pilot.pause()
        assert stand.actions.read == [ID, ID]
        assert "last 4 like it: 2 approved, 2 denied" in text_of(app)
        assert not app.dialog.armed


async def test_a_history_that_cannot_be_read_is_not_made_up() -> None:
    """The dialog says that it is not known, and why; deciding goes on."""
    stand = scene()
    stand.actions.error = TenantUnreachableError("the disk is slow", "try later")
    async with opened(stand) as (app, _):
        assert "Before      not known: the disk is slow" in text_of(app)


async def test_the_first_of_its_kind_says_so() -> None:
    """No history is a fact too."""
    stand = scene()
    calendar = list(stand.mirror.agents)[1]
    first = stand.ask(calendar, "write:calendar")
    async with opened(stand, first.id) as (app, _):
        assert "the first of its kind" in text_of(app)


async def test_repeats_are_told() -> None:
    """A request asked again and again says how often."""
    stand = scene()
    stand.change(ID, count=12)
    async with opened(stand) as (app, _):
        assert "asked 12 times" in text_of(app)


async def test_the_link_is_never_cut() -> None:
    """A long address is broken over rows, whole (half a link leads elsewhere)."""
    stand = scene()
    base = "https://" + "a" * 150 + ".example"
    stand.authorize(ID, base)
    async with opened(stand) as (app, _):
        assert f"{base}/activate" in "".join(
            row.strip("│ \n") for row in text_of(app).splitlines()
        )


@pytest.mark.slow
async def test_the_qr_code_stands_whole_beside_code_and_link() -> None:
    """At 80x24 all 17 rows of it are there; without colour there is none."""
    for no_color in (False, True):
        stand = scene()
        stand.authorize(ID, "https://t.example")
        async with opened(stand) as (app, pilot):
            app.no_color = no_color
            app.dialog.update_page()
            await pilot.pause()
            rows = [
                row for row in text_of(app).splitlines() if "▀" in row or "█" in row
            ]
            assert len(rows) == (0 if no_color else 15)
            assert "K D R T - W Z N B" in text_of(app)
            assert "token minted" in text_of(app)
            # The code of a QR opens the request's page, which asks for no code.
            assert ("Scan the QR code, or open" in text_of(app)) is not no_color
            assert ("On another device open" in text_of(app)) is no_color


@pytest.mark.parametrize(
    ("ssh", "line"),
    [
        ("", ""),
        ("10.0.0.9 50222 10.0.0.2 22", "ssh -L 49152:127.0.0.1:49152 10.0.0.2"),
        ("fe80::1 1 ::2 2222", "ssh -p 2222 -L 49152:127.0.0.1:49152 ::2"),
        ("nonsense", ""),
        ("a b $(reboot) 22", ""),
    ],
)
async def test_a_link_of_this_machine_is_no_qr(ssh: str, line: str) -> None:
    """No phone opens 127.0.0.1: the tunnel of this session and the command are told."""
    stand = scene()
    stand.desk.ssh = ssh
    stand.authorize(ID)
    async with opened(stand) as (app, _):
        shown = said(app)
        assert "▀" not in shown
        assert "another device" not in shown
        assert f"agentvault tenant activate {CODE} --user NAME" in shown
        assert (line in shown) if line else ("ssh" not in shown)
        assert "token minted" in shown


async def test_the_command_to_copy_breaks_at_spaces() -> None:
    """No word of it goes over the edge of the dialog, whatever the home is called."""
    for cells in range(20, 34, 2):
        stand = scene()
        stand.desk.activate = f"agentvault --home /{'h' * cells} tenant activate"
        stand.authorize(ID)
        async with opened(stand) as (app, _):
            assert " --user" in text_of(app)
            assert f"/{'h' * cells} " in text_of(app)


def test_the_command_for_another_terminal_names_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where only this terminal's environment does, which that one may lack."""
    monkeypatch.setenv("AGENTVAULT_HOME", str(tmp_path))
    desk = scene().desk
    name_ways(desk, Home.locate().socket, {"AGENTVAULT_HOME": str(tmp_path)})
    assert desk.activate == f"agentvault --home {tmp_path} tenant activate"
    assert desk.ledger == str(tmp_path)
    assert desk.user == " --user NAME"


def test_in_a_demo_its_own_script_is_named(tmp_path: Path) -> None:
    """There ``agentvault`` need not be on the path, and nobody knows the password."""
    script = tmp_path / "demo" / "approve"
    script.parent.mkdir()
    script.touch(0o700)
    desk = scene().desk
    name_ways(desk, tmp_path / "run" / "agentvault.sock", {})
    assert f"{desk.activate} KDRT-WZNB{desk.user}" == f"{script} KDRT-WZNB"
    assert not desk.ledger_is_temporary
    state = {"XDG_STATE_HOME": str(tmp_path / "demo/state")}
    name_ways(desk, tmp_path / "run" / "agentvault.sock", state)
    assert desk.ledger_is_temporary


@pytest.mark.parametrize("size", [(80, 24), (60, 20)])
async def test_a_providers_token_is_told_for_what_it_is(size: tuple[int, int]) -> None:
    """More than this action, and not ours to end: before the yes and after it."""
    stand = scene()
    stand.change(ID, connection="google-oauth2")
    async with opened(stand, size=size) as (app, pilot):

        def told() -> str:
            app.dialog.update_page()
            return " ".join(text_of(app).replace("│", " ").split())

        assert "exactly this" not in told()
        assert "a token of the account at google-oauth2, once" in told()
        app.settle()
        await pilot.press("v")
        seen = ""
        for _ in range(30):
            seen += told().replace(" ", "")  # broken anywhere, even within a word
            await pilot.press("down")
        assert "itmaydoallitsownerallowed" in seen
        assert "worksthereuntiltheproviderendsit" in seen
        await pilot.press("escape")
        stand.approve(ID, "alice")
        assert "then only the provider can end that token" in told()
        assert "take it back." not in told()
        stand.redeem(ID)
        assert "works until the provider ends it" in told()
        assert "spent" not in told()


async def test_an_ordinary_request_cannot_pass_for_a_providers_token() -> None:
    """A resource that reads like a connection's changes nothing of what is told."""
    stand = scene()
    stand.change(ID, resource="connection:google-oauth2", parameters={"account": "c"})
    async with opened(stand) as (app, _):
        assert "exactly this, once" in text_of(app)
        assert "a token of the account" not in text_of(app)


async def test_what_nothing_limits_says_so_first_in_the_colour_of_danger() -> None:
    """Who, with which scope, for how long: in the dialog, in full, and in the list."""
    stand = scene()
    agent = next(iter(stand.mirror.agents))
    row = stand.ask(agent, "send:payment", resource=None)
    words = "NOTHING LIMITS THIS: payments-agent may use send:payment for anything"
    async with opened(stand, row.id) as (app, pilot):
        assert text_of(app).index(words) < text_of(app).index("Agent ")
        assert "once, within 5:00" in said(app)
        assert "exactly this" not in said(app)
        await pilot.press("v")
        assert text_of(app).index(words) < text_of(app).index("Agent ")
    pen = Pen(palette("agentvault"), stand.desk.glyphs)
    asked = StepUpFacts(row, Shown("bob"), PastDecisions(), stand.clock.now())
    for rows in (brief(asked, pen, 76, 20)[0], whole(asked, pen, 76)[0]):
        assert rows[0][0][1] == pen.palette.danger
    named = stand.change(row.id, resource="stripe:acct_42")
    assert not no_limits(named)
    row = stand.change(row.id, resource=None, authorization_details=[{"type": "x"}])
    assert no_limits(row)
    listed = StandApp(stand, StepUpsDialog)
    async with listed.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        assert text_of(listed).count("NO LIMITS") == 1


@pytest.mark.slow
async def test_every_member_a_resource_server_reads_is_shown() -> None:
    """Objects of other types stand under a label of their own, also in plain mode."""
    stand = scene()
    bank = {"type": "payment_initiation", "creditorAccount": {"iban": "DE02"}}
    row = stand.ask(
        next(iter(stand.mirror.agents)),
        "send:payment",
        parameters={"amount": 12},
        authorization_details=[
            bank,
            {"type": "x", "locations": ["https://bank.example"]},
        ],
        resource_indicator="https://api.example",
    )
    wanted = ["payment_initiation #1: creditorAccount", '{"iban": "DE02"}']
    wanted += ["x #2: locations", "https://bank.example", "resource indicator"]
    async with opened(stand, row.id, (110, 40)) as (app, pilot):
        brief_text = said(app)
        await pilot.press("v")
        rows = sentences.facts(
            StepUpFacts(row, Shown("bob"), PastDecisions(()), stand.clock.now())
        )
        plain = "\n".join(rows)
        for text in (said(app), plain):
            assert all(word in text for word in wanted), text
        assert "Also" in brief_text
        assert '{"iban": "DE02"}' in brief_text
    changed = replace(row, others=())
    assert changes(row, changed) == ("another detail",)
    assert "no x #2: locations" in differs(changed, row)


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (120, 40)])
async def test_who_has_approved_and_who_may_still_is_a_row(
    size: tuple[int, int],
) -> None:
    """Where several people have to, the dialog says so before anybody decides."""
    stand = scene()
    alice = DeciderInfo(sub=Shown("1"), name=Shown("alice"))
    may = Shown("any approver but alice")
    approvals = ApprovalsInfo(have=1, need=2, by=(alice,), may=may)
    row = replace(stand.mirror.stepups[ID], approvals=approvals)
    stand.mirror.stepups[ID] = row
    async with opened(stand, size=size) as (app, _):
        flat = " ".join(text_of(app).replace("│", " ").split())
        assert "Approvals 1 of 2 (alice); may still: any approver but alice" in flat


async def test_m_approves_more_like_it_within_what_is_typed() -> None:
    """How many, how long and the bounds go with the digest that was shown."""
    stand = scene()
    async with opened(stand) as (app, pilot):
        await decide(app, pilot, "m")
        assert "5 600 amount=5000" in text_of(app)
        await pilot.press(*"3 60 amount=9000")
        await decide(app, pilot, "enter")
        asked = '{"count":3,"within":60,"bounds":{"amount":{"max":9000}}}'
        assert stand.actions.asked == [("approve", ID, DIGEST, asked)]


async def test_a_held_call_is_not_said_to_repeat_within_bounds() -> None:
    """Its bytes are what is approved, and the broker refuses a bound beside them."""
    stand = scene()
    row = stand.hold(stand.mirror.stepups[ID].agent_id, b'{"amount":4200}')
    async with opened(stand, row.id) as (app, pilot):
        await decide(app, pilot, "m")
        assert "exactly these bytes, within SECONDS: 5 600" in text_of(app)
        assert "amount=5000" not in text_of(app)


async def test_what_is_no_repeat_is_not_sent() -> None:
    """It is said what was expected, and the text stays to be mended."""
    no_repeats = ("", "5", "0 60", "21 60", "5 3601", "5 60 price=1", "5 60 amount=x")
    for text in (*no_repeats, "5 6 7"):
        assert isinstance(read_repeat(text), str), text
    stand = scene()
    async with opened(stand) as (app, pilot):
        await decide(app, pilot, "m")
        await pilot.press(*"5 3601", "enter")
        await pilot.pause()
        assert stand.actions.asked == []
        problem = str(read_repeat("5 3601"))
        assert problem in said(app)
        assert "5 3601" in said(app).replace(problem, "")


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (120, 40)])
async def test_a_repeat_is_told_first_at_each_stage(size: tuple[int, int]) -> None:
    """Before the factor and beside the code, what is approved besides stands there."""
    stand = scene()
    words = "the next 3 like it within 60 s, amount up to 9,000"
    bounds = {"amount": {"max": 9_000}}
    repeat = RepeatInfo(count=3, within=60, bounds=bounds, left=0, expires_at=None)
    stand.mirror.stepups[ID] = replace(stand.mirror.stepups[ID], repeat=repeat)
    async with opened(stand, size=size) as (app, pilot):
        flat = " ".join(text_of(app).replace("│", " ").split())
        assert f"NOT ONCE: this also approves {words}." in flat
        await pilot.press("v")
        app.settle()
        assert "NOT ONCE" in text_of(app)
        await pilot.press("v")
        app.settle()
        stand.authorize(ID)
        stand.mirror.stepups[ID] = replace(stand.mirror.stepups[ID], repeat=repeat)
        app.dialog.update_page()
        await pilot.pause()
        flat = " ".join(text_of(app).replace("│", " ").split())
        assert f"With {words}." in flat or size == (60, 20)
