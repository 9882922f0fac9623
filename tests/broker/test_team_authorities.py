"""Certificates that one machine of a team trusts are changed on the record."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from support.manual_clock import ManualClock
from support.postgres import Database
from support.team_members import Member, member, seen

from agentvault_tui.home import Home
from agentvault_tui.web.local_ca import CaFiles, renew

SERVICE = 'origin = "https://one.test"\nca_file = "{}"\n'
SINK = '[sinks.siem]\nkind = "webhook"\nurl = "https://siem.test/"\nsecret = "s"\n'


FILES = {
    "services": ("services/api.toml", SERVICE),
    "alerts": ("alerts.toml", f'{SINK}ca_file = "{{}}"\n'),
}


@pytest.mark.parametrize("kind", FILES)
async def test_a_ca_file_that_changes_on_one_machine_is_recorded(
    homes: list[Home], clock: ManualClock, store: Database, kind: str
) -> None:
    """Once, as a loosening by file, also where nothing ran as it changed."""
    file, text = FILES[kind]
    for home in homes[:2]:
        renew(home, now=datetime.now(UTC))
    own, other = (CaFiles.of(home).ca for home in homes[:2])
    mine, theirs = own.read_bytes(), other.read_bytes()
    async with member(homes[0], clock, store) as a, member(homes[1], clock, store) as b:
        a.path(file).write_text(text.format(own.relative_to(homes[0].config)))
        await a.look()
        await seen(b, a)
        assert await loosened(b) == []
        own.write_bytes(theirs)
        await a.look()
        await seen(b, a)
        assert await loosened(b) == [[kind]]
    own.write_bytes(mine)
    async with member(homes[0], clock, store) as a:
        await a.look()
        assert await loosened(a) == [[kind]] * 2


async def loosened(one: Member) -> list[list[str]]:
    """Return the kinds of each change of a ``ca_file`` that is recorded."""
    events = await one.bench.events("change.applied")
    assert {event.resource for event in events} <= {"ca_file"}
    assert {event.detail["by"] for event in events} <= {"file"}
    return [event.detail["loosened"]["kinds"] for event in events]
