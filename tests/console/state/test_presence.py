"""Several operators on one real broker: who is here, what they look at and decide."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from support.console_scenes import console, drawn
from support.manual_clock import ManualClock
from support.patience import PATIENT
from support.vault import PAYMENT, Vault, serving
from support.wire_shapes import tell

from agentvault_tui.clock import SystemClock
from agentvault_tui.console.app import ConsoleApp
from agentvault_tui.console.dialogs.info import OperatorsDialog
from agentvault_tui.console.dialogs.stepup import StepUpDialog
from agentvault_tui.console.link.link import BrokerLink
from agentvault_tui.console.link.memory import HeadStore
from agentvault_tui.console.state.link_state import LinkState
from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.console.state.presence import listed
from agentvault_tui.operator_api.displayer import EPOCH

NAME = pwd.getpwuid(os.getuid()).pw_name


def socket_of(vault: Vault) -> Path:
    return Path(vault.ready["operator_socket"])


def ask(vault: Vault, name: str) -> str:
    agent = vault.register(name, "send:payment")
    return str(agent.token("send:payment", PAYMENT).json()["auth_req_id"])


async def until(done: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENT
    while not done():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def linked(
    vault: Vault, folder: Path, face: str = "console"
) -> AsyncIterator[BrokerLink]:
    """A console's link and mirror, without its screen."""
    socket = socket_of(vault)
    link = BrokerLink(Mirror(SystemClock()), socket, HeadStore(socket, folder))
    link.face = face
    task = asyncio.create_task(link.run())
    try:
        await until(lambda: link.mirror.link.live and link.mirror.presence.you)
        yield link
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def alone(link: BrokerLink) -> None:
    """Wait until the broker has noticed that the links of the test before are gone."""
    await until(lambda: not link.mirror.presence.others)


@pytest.mark.slow
async def test_two_links_see_each_other_come_look_and_go(
    vault: Vault, tmp_path: Path
) -> None:
    """Name, terminal if the kernel tells, what is open there; gone with the link."""
    asked = await asyncio.to_thread(ask, vault, "one")
    async with linked(vault, tmp_path) as here:
        presence = here.mirror.presence
        await alone(here)
        async with linked(vault, tmp_path, "plain") as there:
            await until(lambda: presence.others)
            (other,) = presence.colleagues
            assert other.id == there.mirror.presence.you
            assert (other.name, other.face) == (NAME, "plain")
            there.look(asked)
            await until(lambda: presence.looking(asked) == presence.others)
            assert there.mirror.presence.looking(asked) == ()
            there.look(None)
            await until(lambda: not presence.looking(asked))
            await there.deny(asked, "")
        await until(lambda: not presence.others)


@pytest.mark.slow
async def test_a_decision_is_news_to_the_other_only(
    vault: Vault, tmp_path: Path
) -> None:
    """Who denied and revoked what, at once, and nothing about one's own doing."""
    asked = await asyncio.to_thread(ask, vault, "two")
    async with linked(vault, tmp_path) as here:
        await alone(here)
        async with linked(vault, tmp_path) as there:
            await until(lambda: asked in here.mirror.stepups)
            row = here.mirror.stepups[asked]
            news = here.mirror.presence.news
            await there.deny(asked, "no")
            await until(lambda: news)
            text = f"{NAME} denied {row.fingerprint}, send:payment of two"
            assert list(news) == [text]
            await there.revoke(row.agent_id, "why not")
            await until(lambda: len(news) == 2)
            assert news[1] == f"{NAME} revoked two"
            await until(lambda: there.mirror.last_seq == here.mirror.last_seq)
            assert not there.mirror.presence.news


@pytest.mark.slow
async def test_a_restart_seats_anew_and_says_again_what_is_open(tmp_path: Path) -> None:
    """After the broker came back everyone is seen again, with what they look at."""
    with tempfile.TemporaryDirectory(prefix="h-") as folder:
        home = Path(folder)
        async with contextlib.AsyncExitStack() as stack:
            with serving(home) as vault:
                asked = await asyncio.to_thread(ask, vault, "three")
                here = await stack.enter_async_context(linked(vault, tmp_path))
                there = await stack.enter_async_context(linked(vault, tmp_path))
                there.look(asked)
                presence = here.mirror.presence
                await until(lambda: presence.looking(asked))
                seats = {presence.you, there.mirror.presence.you}
                await asyncio.to_thread(vault.kill)
            await until(lambda: here.mirror.link.state is LinkState.LOST)
            assert (presence.you, presence.others) == ("", ())
            with serving(home):
                await until(lambda: presence.looking(asked))
                assert not seats & {row.id for row in presence.rows}


async def shown(app: ConsoleApp, words: str) -> None:
    deadline = time.monotonic() + PATIENT
    while words not in drawn(app):
        assert time.monotonic() < deadline, drawn(app)
        await asyncio.sleep(0.05)


async def seated(app: ConsoleApp) -> None:
    presence = app.desk.mirror.presence
    await until(lambda: app.desk.mirror.link.live and presence.you)


@pytest.mark.slow
async def test_two_consoles_on_one_broker_see_each_other(
    vault: Vault, tmp_path: Path
) -> None:
    """One looks and denies: the other's bar, dialog and toast say so, keys stay."""
    asked = await asyncio.to_thread(ask, vault, "four")
    one, two = (
        console(socket_of(vault), tmp_path / name, clock=SystemClock()) for name in "12"
    )
    async with (
        one.run_test(size=(120, 40), notifications=True) as pilot,
        two.run_test(size=(120, 40)) as second,
    ):
        await asyncio.gather(seated(one), seated(two))
        await until(lambda: asked in one.desk.mirror.stepups)
        await until(lambda: asked in two.desk.mirror.stepups)
        await shown(one, f"with {NAME}")
        await second.press("s")
        await shown(one, f"{NAME} looks")
        await pilot.press("s")
        await shown(one, "has this open too")
        await shown(two, "has this open too")
        await pilot.press("escape")
        focused = one.focused
        await two.desk.link.deny(asked, "no")
        await shown(one, f"{NAME} denied")
        assert one.focused is focused
        await shown(two, f"denied by {NAME}")
        await pilot.press("colon")
        await pilot.press(*"operators")
        await shown(one, "who else is connected")
        await pilot.press("enter")
        await shown(one, "looks at step-up")
        assert isinstance(one.screen, OperatorsDialog)


@pytest.mark.slow
async def test_a_decision_elsewhere_stands_in_the_dialog_without_moving_it(
    vault: Vault, tmp_path: Path
) -> None:
    """While one request is read, another's end is told in the frame, not on top."""
    first = await asyncio.to_thread(ask, vault, "five")
    second = await asyncio.to_thread(ask, vault, "six")
    one = console(socket_of(vault), tmp_path / "1", clock=SystemClock())
    async with (
        one.run_test(size=(80, 24), notifications=True),
        linked(vault, tmp_path) as other,
    ):
        await seated(one)
        await until(lambda: {first, second} <= set(one.desk.mirror.stepups))
        dialog = StepUpDialog(one.desk, one.desk.mirror.stepups[first])
        one.push_screen(dialog)
        await shown(one, "the first of its kind")
        await until(lambda: dialog.armed)
        body = dialog.sheet.page.body
        await other.deny(second, "")
        await shown(one, "of six")
        assert "denied" in drawn(one)
        assert dialog.sheet.page.body == body
        assert dialog.armed
        assert not one._notifications
        await other.deny(first, "")
        await shown(one, f"denied by {NAME}")


HOSTILE = "\x1b[2J[bold]x[/]\u202e" + "w" * 500


@pytest.mark.slow
def test_whatever_a_broker_sends_is_bounded_and_inert() -> None:
    """Names are text, and lists have an end."""
    mirror = Mirror(ManualClock(SystemClock().now()))
    row = dict.fromkeys(("id", "name", "face", "since", "terminal"), HOSTILE)
    tell(mirror, "presence", {"operators": [row] * 3000, "you": "con_1"})
    presence = mirror.presence
    assert 0 < len(presence.rows) < 300
    for each in presence.rows:
        assert len(each.title) < 80
        assert "\x1b" not in each.title
        assert each.since == EPOCH
    assert listed(presence.rows).endswith("more")
    tell(mirror, "presence", {})
    assert (presence.rows, presence.unlisted, presence.you) == ((), 0, "con_1")


def test_presence_is_cleared_when_the_link_is_lost() -> None:
    """What was true of the others is not shown on without the broker's word."""
    mirror = Mirror(ManualClock(SystemClock().now()))
    tell(mirror, "presence", {"operators": [{"id": "con_2", "name": "bob"}]})
    assert [row.title for row in mirror.presence.others] == ["bob"]
    mirror.set_link(LinkState.LOST, "gone")
    assert mirror.presence.others == ()
