"""Endpoints are read from URLs; the sockets themselves are seen by `test_command`."""

from __future__ import annotations

import os

import pytest
from support.needs import as_root

from agentvault_tui.confine.network import Endpoint, open_inside
from agentvault_tui.errors import NotConfinedError


@pytest.mark.parametrize(
    ("url", "host", "port", "name"),
    [
        ("http://127.0.0.1:7718", "127.0.0.1", 7718, ""),
        ("http://[::1]:7717", "::1", 7717, ""),
        ("https://vault.example:7717", "vault.example", 7717, "vault.example"),
    ],
)
def test_a_url_has_an_endpoint(url: str, host: str, port: int, name: str) -> None:
    """A name is one that the command's file of hosts has to know."""
    found = Endpoint.of(url)
    assert (found.host, found.port, found.name) == (host, port, name)


@pytest.mark.parametrize("url", ["http://127.0.0.1", "unix:/a", ""])
def test_a_url_without_a_port_is_refused(url: str) -> None:
    """There is nothing to listen at."""
    with pytest.raises(NotConfinedError):
        Endpoint.of(url)


def test_a_process_that_is_gone_is_named() -> None:
    """The command ended before its sockets were made."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    with pytest.raises(NotConfinedError, match="cannot be joined"):
        open_inside(child, [Endpoint("127.0.0.1", 1)])


@as_root
def test_this_machines_own_namespace_is_not_changed() -> None:
    """A process that is in no namespace of its own is refused: its user namespace is
    ours, which no process can join again (setns(2))."""
    with pytest.raises(NotConfinedError, match="Invalid argument"):
        open_inside(os.getpid(), [])
