"""The link: follows a real server over a real socket, and refuses on old news."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response
from support.fake_operator import FakeOperator, problem, short_socket
from support.fake_state import START
from support.manual_clock import ManualClock
from support.patience import until

from agentvault_tui.clock import SystemClock
from agentvault_tui.console.link.link import BrokerLink
from agentvault_tui.console.link.memory import HeadStore, SeenHead
from agentvault_tui.console.state.link_state import LinkState
from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.errors import (
    AgentVaultError,
    ConflictError,
    LedgerUnwritableError,
    NotFoundError,
    RefusedError,
)
from agentvault_tui.operator_api.shapes import CountsInfo


class Console:
    """A mirror with its link, running."""

    def __init__(self, fake: FakeOperator, folder: Path, clock: ManualClock) -> None:
        self.memory = HeadStore(fake.socket, folder)
        self.mirror = Mirror(clock)
        self.link = BrokerLink(self.mirror, fake.socket, self.memory)

    async def until(self, condition: Callable[[], bool], seconds: float = 10) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, (self.mirror.link, self.mirror.warnings)
            await asyncio.sleep(0.01)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.link.run())
        try:
            await self.until(lambda: self.mirror.link.live)
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.fixture
def console(fake: FakeOperator, tmp_path: Path, clock: ManualClock) -> Console:
    return Console(fake, tmp_path / "state", clock)


async def test_the_link_reads_a_snapshot_then_the_stream(
    fake: FakeOperator, console: Console
) -> None:
    """What was there is shown with its counts, what comes is added once."""
    agent = fake.add_agent("mailer", "read:email")
    fake.add_token(agent, "read:email", 600)
    for _ in range(5):
        fake.decide(agent, "read:email", "allowed")
    mirror = console.mirror
    async with console.running():
        assert mirror.counts(agent["id"]) == CountsInfo(allowed=5)
        assert mirror.live_tokens(agent["id"]) == 1
        grants = mirror.intake.grants(mirror.agents[agent["id"]])
        assert grants[0].description == "read mail"
        await asyncio.to_thread(fake.decide, agent, "read:email", "denied")
        await console.until(lambda: mirror.last_seq == 6)
        assert mirror.counts(agent["id"]) == CountsInfo(allowed=5, denied=1)
        assert [row.seq for row in mirror.events] == [1, 2, 3, 4, 5, 6]


async def test_all_pages_are_read_and_tokens_only_of_what_is_looked_at(
    fake: FakeOperator, console: Console
) -> None:
    """Numbers and the next end come with the pages, the rest when somebody looks."""
    fake.agents_a_page = 2
    agents = [fake.add_agent(f"a{number}", "read:email") for number in range(5)]
    for agent in agents:
        for left in (900, 600, 1200):
            fake.add_token(agent, "read:email", left)
        fake.add_token(agent, "send:payment", 300, "elevated")
    mirror = console.mirror
    async with console.running():
        assert set(mirror.agents) == {agent["id"] for agent in agents}
        assert fake.roster_reads == 1
        assert not fake.rereads
        for agent in agents:
            soonest = mirror.soonest(agent["id"])
            assert soonest is not None
            assert soonest.elevated
            assert mirror.live_tokens(agent["id"]) == 4
            assert mirror.elevated(agent["id"]) == 1
        assert not fake.rereads
        looked = agents[3]["id"]
        assert len(mirror.tokens(looked)) == 1  # and asks for those that lack
        await console.until(lambda: len(mirror.tokens(looked)) == 4)
        assert fake.rereads == [[looked]]
        assert mirror.elevated(looked) == 1


async def test_the_first_agents_are_shown_before_the_others_are_read(
    fake: FakeOperator, console: Console
) -> None:
    """With what waits for a person, and never taken for all there are."""
    fake.agents_a_page = 2
    agents = [fake.add_agent(f"a{number}", "read:email") for number in range(5)]
    fake.add_stepup(agents[4])
    fake.later_pages.clear()
    mirror, sizes = console.mirror, set[int]()
    following = asyncio.create_task(console.link.run())
    await console.until(lambda: bool(mirror.agents))
    assert (len(mirror.agents), mirror.partial, mirror.loaded) == (2, True, False)
    assert len(mirror.open_stepups()) == 1
    assert not mirror.link.live
    fake.later_pages.set()
    await console.until(lambda: mirror.link.live)
    assert (len(mirror.agents), mirror.partial, mirror.loaded) == (5, False, True)
    mirror.listeners.add(lambda: sizes.add(len(mirror.agents)))
    console.link.terminal_stalled(9)
    await console.until(lambda: fake.roster_reads == 2 and mirror.link.live)
    assert sizes == {5}
    following.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await following


@pytest.mark.slow
async def test_what_is_not_held_is_read_again_when_the_last_held_one_ends(
    fake: FakeOperator, console: Console, clock: ManualClock
) -> None:
    """An agent nobody looks at keeps a true count and a true next end."""
    agent = fake.add_agent("mailer", "read:email")
    for left in (60, 600):
        fake.add_token(agent, "read:email", left)
    mirror = console.mirror
    async with console.running():
        await asyncio.to_thread(fake.act, lambda: agent["tokens"].pop(0))
        mirror.tick(clock.now() + timedelta(seconds=61))
        await console.until(lambda: bool(fake.rereads))
        await console.until(lambda: mirror.soonest(agent["id"]) is not None)
        assert mirror.live_tokens(agent["id"]) == 1


@pytest.mark.slow
async def test_a_snapshot_that_takes_long_is_read_once(
    fake: FakeOperator, console: Console, clock: ManualClock
) -> None:
    """The time it takes to read very many agents is no stall to read them anew for."""
    agent, loads = fake.add_agent("mailer", "read:email"), []

    def loaded() -> None:
        clock.advance(9)
        loads.append(clock.now())

    console.link.loaded = loaded
    async with console.running():
        console.mirror.stale.add(agent["id"])  # read at the first beat
        await console.until(lambda: not console.mirror.stale)
        assert console.mirror.link.live
        assert len(loads) == 1


@pytest.mark.slow
async def test_a_broker_restart_is_survived_without_a_gap(
    fake: FakeOperator, console: Console
) -> None:
    """The link is lost, says so, comes back, and has every event once."""
    agent = fake.add_agent("mailer", "read:email")
    fake.decide(agent, "read:email", "allowed")
    mirror = console.mirror
    async with console.running():
        await asyncio.to_thread(fake.stop)
        await console.until(lambda: mirror.link.state is LinkState.LOST)
        assert "agentvault serve" in mirror.link.reason
        for _ in range(3):
            fake.decide(agent, "read:email", "allowed")
        fake.add_event("broker.started")
        await asyncio.to_thread(fake.start)
        await console.until(lambda: mirror.link.live and mirror.last_seq == 5)
        assert [row.seq for row in mirror.events] == [1, 2, 3, 4, 5]
        assert mirror.counts(agent["id"]) == CountsInfo(allowed=4)
        assert mirror.restarted_at == START


async def test_nothing_is_decided_while_the_link_is_lost(
    fake: FakeOperator, console: Console
) -> None:
    """A key that destroys is refused here, before anything is sent."""
    agent = fake.add_agent("mailer", "read:email")
    async with console.running():
        await asyncio.to_thread(fake.stop)
        await console.until(lambda: not console.mirror.link.live)
        with pytest.raises(RefusedError, match="lost"):
            await console.link.revoke(agent["id"], "x")
        await asyncio.to_thread(fake.start)
    assert fake.requests == []


@pytest.mark.slow
async def test_a_stalled_console_resyncs_before_it_decides(
    fake: FakeOperator, console: Console, clock: ManualClock
) -> None:
    """A key typed into a frozen terminal does not count; the screen is reread."""
    agent = fake.add_agent("mailer", "read:email")
    async with console.running():
        clock.advance(9)
        with pytest.raises(RefusedError, match="stale"):
            await console.link.revoke(agent["id"], "x")
        assert console.mirror.link.state is LinkState.STALE
        await console.until(lambda: console.mirror.link.live)
        await console.link.revoke(agent["id"], "x")
    assert [body["agent_id"] for _, _, body in fake.requests] == [agent["id"]]


async def test_a_read_only_console_decides_nothing(
    fake: FakeOperator, tmp_path: Path, clock: ManualClock
) -> None:
    """Not even by a fault of a screen: the link refuses."""
    link = BrokerLink(Mirror(clock), fake.socket, HeadStore(fake.socket, tmp_path))
    link.read_only = True
    with pytest.raises(RefusedError, match="read-only"):
        await link.panic("x")
    assert fake.requests == []


async def test_revoking_is_measured(fake: FakeOperator, console: Console) -> None:
    """The answer holds what was cut and how fast, and the card shows it at once."""
    agent = fake.add_agent("mailer", "read:email")
    fake.add_token(agent, "read:email", 600)
    async with console.running():
        cut = await console.link.revoke(agent["id"], "runaway")
        assert (cut.answer.tokens_revoked, cut.answer.effective_ms) == (1, 1.2)
        assert [step.status for step in cut.upstream] == ["pending"]
        assert console.mirror.agents[agent["id"]].revoked
        restored = await console.link.restore(agent["id"])
        assert restored >= 0
        await console.until(lambda: not console.mirror.agents[agent["id"]].revoked)
    reasons = [body.get("reason") for _, _, body in fake.requests]
    assert reasons == ["runaway", None]


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ({}, "ledger"),
        ({"recorded": False, "kept": "memory"}, "memory"),
        ({"recorded": False, "kept": "journal"}, "journal"),
    ],
)
async def test_whether_a_cut_was_recorded_is_kept(
    fake: FakeOperator, console: Console, told: dict[str, Any], kept: str
) -> None:
    """Of one agent and of all."""
    fake.answers["/api/agents/revoke"] = lambda: JSONResponse(told)
    async with console.running():
        one = await console.link.revoke("agt_1", "x")
        everyone = await console.link.panic("x")
    assert one.answer.kept == everyone.answer.kept == kept


async def test_panic_and_lift_reach_the_broker(
    fake: FakeOperator, console: Console
) -> None:
    """The banner's state arrives by the stream, for every console."""
    fake.add_agent("mailer", "read:email")
    async with console.running():
        await console.link.panic("fire")
        assert fake.requests[-1][2] == {"all": True, "reason": "fire"}
        await console.until(lambda: console.mirror.status.panic.on)
        assert console.mirror.status.panic.reason == "fire"
        await console.link.lift()
        await console.until(lambda: not console.mirror.status.panic.on)


async def test_approving_sends_the_digest_that_was_shown(
    fake: FakeOperator, console: Console
) -> None:
    """The broker gets exactly that; another digest is a conflict with its words."""
    stepup = fake.add_stepup(fake.add_agent("payer", "send:payment"))
    async with console.running():
        row = await console.link.approve(stepup["id"], stepup["digest"])
        assert row.status == "authorizing"
        assert row.device is not None
        assert row.device.user_code == "KDRT-WZNB"
        with pytest.raises(ConflictError) as caught:
            await console.link.approve(stepup["id"], "sha256:00")
    assert "look again" in caught.value.diagnosis()


async def test_denying_reaches_the_agent(fake: FakeOperator, console: Console) -> None:
    """The reason travels, and the mirror shows who denied."""
    stepup = fake.add_stepup(fake.add_agent("payer", "send:payment"))
    async with console.running():
        row, cautions = await console.link.deny(stepup["id"], "wrong invoice")
        assert cautions == ()
        assert (row.status, row.denial) == ("denied", "wrong invoice")
        assert console.mirror.open_stepups() == []


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, NotFoundError), (409, ConflictError), (503, LedgerUnwritableError)],
)
async def test_problem_documents_become_errors(
    fake: FakeOperator, console: Console, status: int, kind: type[Exception]
) -> None:
    """RFC 9457: title and detail are what the operator reads, made displayable."""
    fake.answers["/api/agents/revoke"] = lambda: problem(
        status, "No", "the disk\x1b[2J is full"
    )
    async with console.running():
        with pytest.raises(kind) as caught:
            await console.link.revoke("agt_1", "x")
    said = caught.value
    assert isinstance(said, AgentVaultError)
    assert said.diagnosis() == "No: the disk⟦U+001B⟧[2J is full"


@pytest.mark.parametrize(
    "answer", [Response("<html>"), JSONResponse([1]), Response(b"\xff\xfe")]
)
async def test_a_malformed_answer_is_an_error(
    fake: FakeOperator, console: Console, answer: Response
) -> None:
    """What is not a JSON object is said to be so, without a traceback."""
    fake.answers["/api/agents/revoke"] = lambda: answer
    async with console.running():
        with pytest.raises(AgentVaultError, match="broker's answer"):
            await console.link.revoke("agt_1", "x")


async def test_a_broker_without_a_gateway_is_no_lost_link(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no calls to read, and answers 404; all else is there."""

    async def absent(*_: object) -> object:
        return problem(404, "there is nothing at this path", "")

    monkeypatch.setattr(FakeOperator, "_in_flight", absent)
    with short_socket() as socket, FakeOperator(socket) as fake:
        fake.add_agent("reader", "read:email")
        console = Console(fake, tmp_path / "state", clock)
        async with console.running():
            await console.until(lambda: len(console.mirror.agents) == 1)
    assert console.mirror.calls == {}


async def test_no_broker_is_lost_with_the_remedy(
    tmp_path: Path, clock: ManualClock
) -> None:
    """A socket nobody listens on: the screen says which command helps."""
    with short_socket() as socket:
        mirror = Mirror(clock)
        link = BrokerLink(mirror, socket, HeadStore(socket, tmp_path))
        task = asyncio.create_task(link.run())
        await until(lambda: mirror.link.state is not LinkState.CONNECTING)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert mirror.link.state is LinkState.LOST
    assert "agentvault serve" in mirror.link.reason


async def test_a_shorter_ledger_is_told_loudly(
    fake: FakeOperator, console: Console
) -> None:
    """This console saw 40 events, the broker has 3: it warns, and keeps its memory."""
    console.memory.keep(SeenHead(40, "sha256:aa"))
    agent = fake.add_agent("mailer", "read:email")
    for _ in range(3):
        fake.decide(agent, "read:email", "allowed")
    async with console.running():
        assert "40 was seen here" in console.mirror.warnings["ledger"]
    assert console.memory.recall() == SeenHead(40, "sha256:aa")


async def test_another_ledger_of_the_same_length_is_told(
    fake: FakeOperator, console: Console
) -> None:
    """The event remembered is not the one that stands at its number."""
    agent = fake.add_agent("mailer", "read:email")
    for _ in range(3):
        fake.decide(agent, "read:email", "allowed")
    console.memory.keep(SeenHead(2, "sha256:of another ledger"))
    async with console.running():
        assert "event 2 is not the one" in console.mirror.warnings["ledger"]
        console.link.accept_ledger()
        assert console.mirror.warnings == {}
    kept = console.memory.recall()
    assert kept is not None
    assert kept.seq == 3


async def test_a_known_ledger_raises_no_warning(
    fake: FakeOperator, console: Console
) -> None:
    """The same chain, longer: no warning, and the new head is remembered."""
    agent = fake.add_agent("mailer", "read:email")
    event = fake.decide(agent, "read:email", "allowed")
    console.memory.keep(SeenHead(1, event["hash"]))
    fake.decide(agent, "read:email", "allowed")
    async with console.running():
        assert console.mirror.warnings == {}
    assert console.memory.recall() == SeenHead(2, fake.events[-1]["hash"])


@pytest.mark.slow
async def test_a_ledger_swapped_while_watching_is_told(
    fake: FakeOperator, console: Console
) -> None:
    """An older copy put in place during a restart: the console saw more."""
    agent = fake.add_agent("mailer", "read:email")
    for _ in range(5):
        fake.decide(agent, "read:email", "allowed")
    async with console.running():
        await asyncio.to_thread(fake.stop)
        await console.until(lambda: not console.mirror.link.live)
        del fake.events[2:]
        await asyncio.to_thread(fake.start)
        await console.until(lambda: console.mirror.link.live)
        assert "5 was seen here" in console.mirror.warnings["ledger"]
        assert [row.seq for row in console.mirror.events] == [1, 2]


async def test_a_reset_event_warns_of_another_ledger(
    fake: FakeOperator, console: Console
) -> None:
    """The broker itself says that it does not know the last event seen here."""
    agent = fake.add_agent("mailer", "read:email")
    fake.decide(agent, "read:email", "allowed")
    async with console.running():
        await asyncio.to_thread(fake.push, "reset", {"head": 0})
        await console.until(lambda: "ledger" in console.mirror.warnings)
        await console.until(lambda: console.mirror.link.live)
        assert "does not know the last event" in console.mirror.warnings["ledger"]


async def test_events_that_were_skipped_are_read(
    fake: FakeOperator, console: Console
) -> None:
    """A hole in the numbers is filled before anything else is believed."""
    agent = fake.add_agent("mailer", "read:email")
    fake.decide(agent, "read:email", "allowed")
    async with console.running():
        event = {**fake.events[0], "seq": 3}
        fake.act(lambda: fake.events.extend([{**event, "seq": 2}, event]))
        await asyncio.to_thread(fake.push, "audit", event)
        await console.until(lambda: console.mirror.last_seq == 3)
        assert [row.seq for row in console.mirror.events] == [1, 2, 3]


@pytest.mark.slow
async def test_the_heartbeat_runs_on_the_system_clock(
    fake: FakeOperator, tmp_path: Path
) -> None:
    """With time running the link stays live over several beats."""
    mirror = Mirror(SystemClock())
    link = BrokerLink(mirror, fake.socket, HeadStore(fake.socket, tmp_path))
    states: set[LinkState] = set()
    task = asyncio.create_task(link.run())
    deadline = time.monotonic() + 2.5
    while time.monotonic() < deadline:
        states.add(mirror.link.state)
        await asyncio.sleep(0.05)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert states == {LinkState.CONNECTING, LinkState.LIVE}


def test_the_fake_speaks_json() -> None:
    """The scripted broker's own state can be sent."""
    assert json.dumps(FakeOperator(Path("x")).status_shape())
