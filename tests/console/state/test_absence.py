"""The feed's first line: what has happened since the operator's last key."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from support.fake_state import START, FakeState
from support.manual_clock import ManualClock
from support.wire_shapes import tell

from agentvault_tui.console.state.absence import IDLE_S, Absence
from agentvault_tui.console.state.mirror import Mirror


class Away(FakeState):
    """A scripted broker, and an operator who presses keys or does not."""

    def __init__(self) -> None:
        super().__init__(START)
        self.time = ManualClock(START)
        self.mirror = Mirror(self.time)
        self.absence = Absence(self.time)
        self.agent = self.add_agent("mailer", "read:email")
        self.decide(self.agent, "read:email", "denied")
        self.mirror.loaded = True
        self.absence.take(self.mirror)

    def send(self, kind: str, data: dict[str, Any]) -> None:
        tell(self.mirror, kind, data)

    def said(self) -> list[str] | None:
        self.absence.take(self.mirror)
        found = self.absence.parts()
        return found[1] if found else None

    def wait(self, seconds: float = IDLE_S) -> None:
        self.time.advance(seconds)


@pytest.fixture
def away() -> Away:
    return Away()


def test_an_operator_who_is_there_is_told_nothing(away: Away) -> None:
    """Only after a minute without a key there is something to sum up."""
    away.decide(away.agent, "read:email", "denied")
    assert away.said() is None
    away.wait()
    assert away.said() == ["1 denied"]


def test_the_gravest_comes_first_and_routine_is_left_out(away: Away) -> None:
    """Counts of what ended badly, then each change with who made it."""
    for _ in range(3):
        away.decide(away.agent, "read:email", "allowed")
        away.decide(away.agent, "read:email", "denied")
    away.add_event("stepup.expired", away.agent)
    away.add_event("stepup.expired", away.agent)
    away.add_event("operator.login", None, actor={"kind": "operator", "name": "bob"})
    away.add_event("policy.changed", None, actor={"kind": "system", "name": "file"})
    away.wait()
    assert away.said() == [
        "policy changed by file",
        "2 expired unanswered",
        "3 denied",
        "signed in by bob",
    ]


def test_the_key_that_ends_an_absence_leaves_the_sum_to_be_read(away: Away) -> None:
    """It stays for two minutes, whatever is pressed, and the next sum begins anew."""
    away.decide(away.agent, "read:email", "denied")
    away.wait()
    assert away.absence.away
    away.absence.press()
    assert not away.absence.away
    away.absence.press()
    assert away.said() == ["1 denied"]
    for _ in range(2):
        away.wait(50)
        away.absence.press()
        assert away.said() == ["1 denied"]
    away.wait(30)
    away.absence.press()
    assert away.said() is None
    away.wait()
    assert away.said() == []
    assert away.absence.parts() == (START + timedelta(seconds=IDLE_S + 130), [])
