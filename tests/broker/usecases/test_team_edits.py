"""With a factor at the socket, an edit of a team's file waits for an approver."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.bench import OPERATOR
from support.postgres import TEAM
from support.scripted_tenant import ALICE
from support.team_edits import (
    API,
    EVIL,
    FACTOR,
    ONE,
    Place,
    approve,
    edited,
    place,
    settle,
    team,
    waiting,
)
from support.team_members import member, seen

from agentvault_tui.broker.usecases.stepup_end import deny
from agentvault_tui.cli.store import _home_rows, _team_rows
from agentvault_tui.home import Home, put_private
from agentvault_tui.ledger.store_copying import copy_to_home, copy_to_store
from agentvault_tui.store_connection import Connector

__all__ = ["place"]

DENY = 'unmatched = "deny"\n'
SIEM = '[sinks.siem]\nkind = "file"\npath = "siem.jsonl"\n'
EDITED = ((API, ONE, EVIL), ("alerts.toml", SIEM, ""))


@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize(
    "edit",
    [
        (API, ONE, EVIL),
        ("services/new.toml", "", EVIL),
        ("mcp/tickets.toml", "", 'url = "https://mcp.test/mcp"\n'),
        ("hosts/claude-code.toml", "", 'unmatched = "read:files"\n'),
        ("alerts.toml", SIEM, ""),
        ("hosts/claude-code.toml", DENY, None),
    ],
)
async def test_an_edit_that_loosens_counts_once_it_is_approved_at_any_broker(
    place: Place, edit: tuple[str, str, str | None], at: int
) -> None:
    """Until then the version before does, everywhere; then exactly the edited text."""
    file, before, after = edit
    first = (file, before) if before else (API, ONE)
    async with team(place, *first) as (a, b):
        if after is None:
            a.path(file).unlink()
        else:
            a.path(file).write_text(after)
        await settle(a, b)
        assert [one.files.text(file) for one in (a, b)] == [before or None] * 2
        (change,) = waiting(a)
        assert [one.id for one in waiting(b)] == [change.id]
        assert change.change is not None
        lines = change.change.texts[0].diff.splitlines()
        assert len(lines) > 1
        assert {f"+{line}" for line in (after or "").splitlines()} <= {*lines}
        assert any(file in one for one in a.gateway.notices)
        approver = (a, b)[at]
        await approve(approver, change)
        await seen(a, b, a)
        assert [one.files.text(file) for one in (a, b)] == [after, after]
        assert [one.says(file) for one in (a, b)] == [after, after]
        assert approver.bench.broker.stepups.get(change.id).status == "applied"
        changed = (await a.bench.events("service.changed"))[-1]
        assert (changed.actor.id, changed.resource) == (ALICE["sub"], file)
        assert waiting(a) == waiting(b) == []
        assert not any(file in one for one in a.gateway.notices)


async def test_an_edit_that_is_undone_or_denied_changes_nothing(place: Place) -> None:
    """An undone edit cancels its change; a denied one is not asked about again."""
    async with edited(place, API, EVIL) as (a, b, first):
        a.path(API).write_text(ONE)
        await seen(a, b)
        assert b.bench.broker.stepups.get(first.id).status == "cancelled"
        a.path(API).write_text(EVIL)
        await seen(a, b)
        (second,) = waiting(b)
        await deny(b.bench.broker, second.id, "no", OPERATOR)
        await settle(a, b)
        assert waiting(a) == []
        assert (a.origin(), b.origin()) == ("https://one.test",) * 2
        assert a.says(API) == EVIL


async def test_a_change_of_the_file_elsewhere_cancels_the_change_that_waits(
    place: Place,
) -> None:
    """The edit is kept beside the file, and its approval brings nothing in."""
    async with edited(place, API, EVIL) as (a, b, change):
        b.path(API).unlink()  # which is taken away at once
        await seen(b, a, b)
        await settle(a, b)
        assert b.bench.broker.stepups.get(change.id).status == "cancelled"
        assert (a.origin(), b.origin(), a.says(API)) == (None, None, None)
        assert a.says(f"{API}.local") == EVIL


async def test_a_copied_ledger_brings_the_active_texts_and_not_the_edits(
    place: Place, short: Path
) -> None:
    """To a team and back: what waits on the disk for an approver does not count."""
    homes, clock, store = place
    home, back = homes[0], Home(short / "back", short / "back")
    connector = Connector(store.url, TEAM)
    put_private(home.team_key, bytes(range(32)), replace=False)
    async with member(home, clock, None) as one:
        for file, active, _ in EDITED:
            one.path(file).write_text(active)
        await one.look()
    async with member(home, clock, None, **FACTOR) as one:
        for file, _, edited in EDITED:
            one.path(file).write_text(edited)
        await one.look()
        assert {change.resource for change in waiting(one)} == {
            file for file, *_ in EDITED
        }
    await copy_to_store(home, connector, "there", OPERATOR, convert=_team_rows)
    async with member(home, clock, store, **FACTOR) as one:
        await seen(one, one)
        for file, active, edited in EDITED:
            assert (one.files.text(file), one.says(file)) == (active, active)
            assert one.says(f"{file}.local") == edited
        await settle(one)
        assert waiting(one) == []
    back.prepare()
    for file, _, edited in EDITED:
        put_private(back.config / file, edited.encode(), replace=True)
    await copy_to_home(connector, back, OPERATOR, clock, convert=_home_rows)
    async with member(back, clock, None, **FACTOR) as one:
        assert one.origin() == "https://one.test"
        assert set(one.watch.alerts.file.sinks) == {"siem"}
        assert {change.resource for change in waiting(one)} == {
            file for file, *_ in EDITED
        }
