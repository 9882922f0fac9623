"""Copies of shipped service files are renewed at an upgrade, if nobody changed them."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.gateway_stand import standing

from agentvault_tui.gateway.shipped import earlier, shipped_file, shipped_names
from agentvault_tui.model import sha256_hex

OLD = 'origin = "https://old.test"\n'


@pytest.mark.parametrize("name", shipped_names())
def test_each_shipped_text_is_known(name: str) -> None:
    """A file that is changed adds its SHA-256, or its copies would never be renewed."""
    assert earlier.TEXTS[name][-1] == sha256_hex(shipped_file(name, None))
    assert earlier.successor(shipped_file(name, None)) is None
    every = [one for known in earlier.TEXTS.values() for one in known]
    assert len(every) == len(set(every))


async def test_an_unchanged_copy_is_renewed_at_the_start(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's record says so; a copy with one more line stays as it is."""
    now = sha256_hex(shipped_file("slack", None))
    monkeypatch.setitem(earlier.TEXTS, "slack", (sha256_hex(OLD), now))
    folder = short / "home" / "services"
    async with standing(short) as stand:
        await stand.service(head=OLD, name="chat")
        await stand.service(head=f"{OLD}# ours\n", name="own")
    async with standing(short) as again:
        services = {one.name: one for one in again.gateway.services}
        assert str(services["chat"].origin) == "https://slack.com"
        assert str(services["own"].origin) == "https://old.test"
        event = (await again.bench.events("service.changed"))[-1]
        assert (event.actor.kind, event.resource) == ("system", "services/chat.toml")
        assert event.detail["before"] == sha256_hex(OLD)
        assert event.detail["after"] == now
    path = folder / "chat.toml"
    assert path.read_text() == shipped_file("slack", None)
    assert path.stat().st_mode & 0o777 == 0o600
