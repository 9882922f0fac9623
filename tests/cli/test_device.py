"""What a person at a terminal is told while a device code waits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from agentvault_tui.cli import device
from agentvault_tui.cli.session import CliSession
from agentvault_tui.operator_api.shapes import AgentRef


def test_a_tenant_that_goes_away_while_a_code_waits_is_told_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a person types a code into a page that nobody answers, and reads nothing."""
    monkeypatch.setattr(device, "POLL", 0)
    told: list[str] = []
    reachable = iter([True, False, False, True])
    client = SimpleNamespace(
        call=lambda _: SimpleNamespace(
            tenant=SimpleNamespace(reachable=next(reachable))
        )
    )
    session = cast(
        CliSession,
        SimpleNamespace(client=client, out=SimpleNamespace(note=told.append)),
    )
    answers: Any = iter(
        [AgentRef(id="waits", name="")] * 4 + [AgentRef(id="", name="")]
    )
    ended = device.followed(session, lambda: next(answers), lambda one: bool(one.id))
    assert ended.id == ""
    assert told == [
        "the tenant does not answer: waiting while the code lives",
        "the tenant answers again",
    ]
