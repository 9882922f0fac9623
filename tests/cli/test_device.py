"""What a person at a terminal is told while a device code waits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from agentvault_tui.cli import device
from agentvault_tui.cli.session import Session


def test_a_tenant_that_goes_away_while_a_code_waits_is_told_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a person types a code into a page that nobody answers, and reads nothing."""
    monkeypatch.setattr(device, "_POLL", 0)
    told: list[str] = []
    reachable = iter([True, False, False, True])
    client = SimpleNamespace(
        get=lambda _: {"tenant": {"reachable": next(reachable)}},
    )
    session = cast(
        Session, SimpleNamespace(client=client, out=SimpleNamespace(note=told.append))
    )
    answers: Any = iter([{"waits": True}] * 4 + [{"waits": False}])
    ended = device.followed(session, lambda: next(answers), lambda one: one["waits"])
    assert ended == {"waits": False}
    assert told == [
        "the tenant does not answer: waiting while the code lives",
        "the tenant answers again",
    ]
