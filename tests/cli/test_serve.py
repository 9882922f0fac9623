"""`agentvault serve` as the system sees it."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from support.command_line import Broker
from support.ports import bind_error


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_the_broker_leaves_no_core_and_no_open_file(broker: Broker) -> None:
    """It is hardened before it opens anything: core dumps off, umask 077."""
    proc = Path(f"/proc/{broker.pid}")
    limits = proc.joinpath("limits").read_text().splitlines()
    (core,) = (line.split()[4:6] for line in limits if "core file" in line)
    assert core == ["0", "0"]
    assert "Umask:\t0077" in proc.joinpath("status").read_text()


def test_agents_have_their_port_on_both_loopbacks(broker: Broker) -> None:
    """Whatever `localhost` is to a client, no other user's program can be there."""
    port = urlsplit(broker.url).port or 0
    assert bind_error("127.0.0.1", port) == errno.EADDRINUSE
    assert bind_error("::1", port) == errno.EADDRINUSE
