"""`doctor` says whether the broker's two ports are free, or which process has them."""

from __future__ import annotations

import os
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from agentvault_tui.cli.proxy_port import check_agents_port, check_proxy_port
from agentvault_tui.gateway import proxy_listener
from agentvault_tui.model.finding import Finding, Level
from agentvault_tui.settings import Settings
from agentvault_tui.web import loopback_pair


def findings(proxy: str) -> list[Finding]:
    settings = Settings()
    gateway = replace(settings.gateway, proxy=proxy)
    session: Any = SimpleNamespace(settings=replace(settings, gateway=gateway))
    return list(check_proxy_port(session))


def test_a_taken_port_is_named_with_its_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A fixed port that is taken is a fault, the usual one a warning."""
    bound, held = loopback_pair("127.0.0.1", 0)
    port = int(bound.getsockname()[1])
    monkeypatch.setattr(proxy_listener, "USUAL", ("127.0.0.1", port))
    for proxy, level in (("auto", Level.WARNING), (f"127.0.0.1:{port}", Level.FAULT)):
        (found,) = findings(proxy)
        assert found.level is level
        assert f"port {port} is taken by" in found.what
        assert found.what.endswith(f"(pid {os.getpid()})")
        assert "gateway.proxy" in found.remedy
    bound.close()
    if held is not None:
        held.close()
    (found,) = findings("auto")
    assert found.level is Level.OK


def test_a_taken_port_for_agents_is_named_with_a_remedy() -> None:
    """`serve` would not start on it; a free one, or any free one, is no finding."""
    bound, held = loopback_pair("127.0.0.1", 0)
    address = f"127.0.0.1:{bound.getsockname()[1]}"
    settings = Settings()

    def check(listen: str) -> list[Finding]:
        broker = replace(settings.broker, listen=listen)
        session: Any = SimpleNamespace(settings=replace(settings, broker=broker))
        return list(check_agents_port(session))

    (found,) = check(address)
    assert found.level is Level.WARNING
    assert f"(pid {os.getpid()})" in found.what
    assert "agentvault serve --listen 127.0.0.1:0" in found.remedy
    for one in (bound, held):
        if one is not None:
            one.close()
    assert check(address) == check("127.0.0.1:0") == []


def test_a_proxy_without_a_port_of_its_own_has_nothing_to_check() -> None:
    """Where it listens for runs alone, or at any free port, no port can be taken."""
    assert findings("") == findings("127.0.0.1:0") == []
