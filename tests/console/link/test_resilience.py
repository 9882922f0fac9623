"""The console in a real terminal while things go wrong around it."""

from __future__ import annotations

import re
import signal
import time
from datetime import timedelta
from typing import Any

import pytest
from support.console_scenes import busy
from support.console_terminal import CTRL_Q, Open, press
from support.fake_operator import FakeOperator
from support.patience import PATIENT
from support.person import Bare, Operator
from support.terminal import Terminal

from agentvault_tui.clock import SystemClock, iso

CTRL_L = "\x0c"


def _cursor(screen: Terminal) -> str:
    """The name on the card that is marked, as far as there is room for it."""
    marked = [row[1:].split()[0] for row in screen.display if re.match(r"▌\w", row)]
    return next((name for name in marked if name != "Agents"), "")


def _go(screen: Terminal, name: str) -> None:
    """Move the cursor down to an agent: how far hangs on what has expired by now."""
    while (here := _cursor(screen)) != name:
        screen.write("j")
        screen.read_until(lambda _, here=here: _cursor(screen) != here)


def _redrawn(screen: Terminal) -> list[str]:
    """What stands there after a fresh paint of the whole."""
    start = len(screen.painted)
    screen.write(CTRL_L)
    screen.read_until(lambda _: screen.painted_since(start) == screen.display)
    return screen.display


def _leave(screen: Terminal) -> None:
    screen.write(CTRL_Q)
    assert screen.finish() == 0
    assert "Traceback" not in screen.text


@pytest.mark.slow
def test_a_resize_and_back_keeps_the_cursor_and_the_paint(
    fake: FakeOperator, terminal: Open
) -> None:
    """To 40x10 and back: the same agent, each cell as a fresh paint has it."""
    busy(fake)
    with terminal("still") as screen:
        screen.see("● live")
        screen.see("Holds")
        _go(screen, "finance-agent")
        wide = _redrawn(screen)
        screen.resize(40, 10)
        screen.read_until(lambda _: _cursor(screen).startswith("fin"))
        narrow = screen.display
        assert _redrawn(screen) == narrow
        screen.resize(120, 40)
        screen.read_until(lambda _: screen.display == wide)
        assert _redrawn(screen) == wide
        _leave(screen)


@pytest.mark.slow
def test_a_stalled_terminal_resyncs_before_it_decides(
    fake: FakeOperator, terminal: Open
) -> None:
    """Keys typed into a terminal that stands decide nothing; what is shown then is new.

    The revocation is asked for before the stall and confirmed in it: refused. Once the
    terminal reads again everything is read anew, and only then the key counts.
    """
    agents = busy(fake)
    with terminal() as screen:
        screen.see("● live")
        press(screen, "r", "Revoke  payments-agent")
        reads = fake.roster_reads
        screen.hold()
        # Longer than the console believes what it shows; events keep frames coming.
        _events(fake, agents["email-agent"], 2.0)
        screen.write("y")
        _events(fake, agents["email-agent"], 1.3)
        fake.decide(agents["email-agent"], "read:email", "denied", resource="mailbox:x")
        assert fake.requests == []
        assert fake.roster_reads == reads
        screen.release()
        screen.see(f"{fake.head:,} events")
        screen.see("● live")
        assert fake.requests == []
        assert fake.roster_reads > reads
        operator = Operator(Bare(screen))
        operator.decide("y", "Revoked  payments-agent")
        assert [body["agent_id"] for _, _, body in fake.requests] == [
            agents["payments-agent"]["id"]
        ]
        operator.leave("Revoked  payments-agent")
        assert _redrawn(screen) == screen.display
        _leave(screen)


def _events(fake: FakeOperator, agent: dict[str, Any], seconds: float) -> int:
    """Let events arrive for so long; return how many."""
    begun, number = time.monotonic(), 0
    while time.monotonic() - begun < seconds:
        fake.decide(agent, "read:email", "denied", resource=f"mailbox:{number}")
        number += 1
        time.sleep(0.002)  # a rate, not a wait: faster only takes others' cores
    return number


@pytest.mark.slow
def test_a_terminal_that_reads_nothing_does_not_hold_sigterm_up(
    fake: FakeOperator, terminal: Open
) -> None:
    """While it stands and events arrive the console ends when told, cleanly."""
    agent = next(iter(busy(fake).values()))
    with terminal() as screen:
        screen.see("● live")
        screen.hold()
        assert _events(fake, agent, 1.0) > 100
        assert not screen.read(0), "the terminal took something"
        assert screen.process.poll() is None
        screen.signal(signal.SIGTERM)
        assert screen.process.wait(PATIENT) == 0


@pytest.mark.slow
def test_a_broker_that_comes_back_leaves_no_gap(
    fake: FakeOperator, terminal: Open
) -> None:
    """It says so, and afterwards shows what came meanwhile, the cursor where it was."""
    agents = busy(fake)
    email = agents["email-agent"]
    with terminal() as screen:
        screen.see("● live")
        _go(screen, "finance-agent")
        fake.stop()
        screen.see("LOST")
        for number in range(8):
            fake.decide(email, "read:email", "allowed", resource=f"mailbox:{number}")
        fake.add_stepup(agents["records-agent"])
        fake.start()
        screen.see("● live")
        screen.see("3 waiting")
        screen.see("mailbox:7")
        shown = re.findall(r"mailbox:(\d)", "\n".join(screen.display))
        assert "".join(shown) == "01234567"
        assert _cursor(screen) == "finance-agent"
        _leave(screen)


@pytest.mark.slow
def test_a_flood_of_step_ups_is_a_number_and_a_queue(
    fake: FakeOperator, terminal: Open
) -> None:
    """Three hundred wait: the bar counts them, and the oldest stands first."""
    now = SystemClock().now()
    agent = fake.add_agent("payments-agent", "send:payment")
    with terminal() as screen:
        screen.see("● live")
        for number in range(300):
            fake.add_stepup(
                agent,
                resource=f"stripe:acct_{number:03}",
                requested_at=iso(now - timedelta(seconds=number)),
                expires_at=iso(now + timedelta(seconds=600 - number)),
            )
        screen.see("300 waiting")
        press(screen, "s", "Step-ups  300 waiting")
        press(screen, "\r", "acct_299")
        assert fake.requests == []
        _leave(screen)


@pytest.mark.slow
def test_ten_thousand_agents_open_move_and_filter(
    fake: FakeOperator, terminal: Open
) -> None:
    """The list is there, goes to its end and back, and finds the one."""
    first = fake.add_agent("agent-00001", "read:email")
    for number in range(2, 10_001):
        name, id_ = f"agent-{number:05}", f"agt_{number:016d}"
        fake.agents[id_] = {**first, "id": id_, "client_id": id_, "name": name}
    with terminal() as screen:
        screen.see("10,000 agents")
        screen.read_until(lambda _: _cursor(screen) == "agent-00001")
        screen.write("G")
        screen.read_until(lambda _: _cursor(screen) == "agent-10000")
        screen.write("k")
        screen.read_until(lambda _: _cursor(screen) == "agent-09999")
        press(screen, "/agent:agent-07777", "9,999 hidden")
        screen.read_until(lambda _: _cursor(screen) == "agent-07777")
        assert not any("agent-07776" in row for row in screen.display)
        _leave(screen)
