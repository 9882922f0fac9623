"""A broker of the console's own that does not come up."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentvault_tui.cli import console as own_broker
from agentvault_tui.errors import UnreachableError
from agentvault_tui.home import Home


def test_one_that_neither_starts_nor_ends_is_ended_and_told(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alive, on a machine too busy for it, or hung: an error, and no process left."""
    program = short / "stuck"
    program.write_text(
        f"#!/bin/sh\necho $$ >{short}/pid\necho '{{}}'\nexec sleep 600\n"
    )
    program.chmod(0o700)
    monkeypatch.setattr(own_broker.sys, "executable", str(program))
    monkeypatch.setattr(own_broker, "_STOP_SECONDS", 0.1)
    home = Home.locate(short / "home")
    with (
        pytest.raises(UnreachableError, match="the broker did not start"),
        own_broker.own_broker(home),
    ):
        pytest.fail("it is not there")
    pid = int((short / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
