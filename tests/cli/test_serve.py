"""`agentvault serve` as the system sees it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.command_line import Broker


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_the_broker_leaves_no_core_and_no_open_file(broker: Broker) -> None:
    """It is hardened before it opens anything: core dumps off, umask 077."""
    proc = Path(f"/proc/{broker.pid}")
    limits = proc.joinpath("limits").read_text().splitlines()
    (core,) = (line.split()[4:6] for line in limits if "core file" in line)
    assert core == ["0", "0"]
    assert "Umask:\t0077" in proc.joinpath("status").read_text()
