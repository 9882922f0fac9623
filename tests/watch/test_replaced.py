"""The last events of a replaced ``alerts.toml`` go by its own text too."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from support.alert_stand import AlertStand, answering
from support.bench import Bench
from support.gateway_stand import Upstream
from support.manual_clock import ManualClock
from support.policies import ALLOW_ALL
from support.stepups import FACTOR, approve
from watch.test_outbox import note

from agentvault_tui.errors import LedgerUnwritableError
from agentvault_tui.home import Home
from agentvault_tui.model import AgentId, Draft, EventType
from agentvault_tui.settings import Settings, TokenSettings
from agentvault_tui.watch.outbox import PLACE
from agentvault_tui.watch.replaced import REPLACED

FIRST: Final = '[[routes]]\nsinks = ["old"]\nevents = ["tenant.away"]\n'
SECOND: Final = '[[routes]]\nsinks = ["other"]\nevents = ["tenant.away"]\n'


def sink(stand: AlertStand, name: str, **more: str) -> str:
    """Return a destination whose messages arrive under its name."""
    keys = {"kind": "webhook", "url": f"{stand.url}/{name}", "secret": "hook"} | more
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in keys.items()]
    return f"[sinks.{name}]\n{''.join(lines)}allow_private = true\n"


def write(stand: AlertStand, text: str) -> None:
    stand.bench.home.alerts_file.write_text(text)


def arrived(stand: AlertStand, at: str) -> list[tuple[str, str]]:
    """Return kind and event of each message that arrived at an address."""
    return [
        (body["type"], body["data"]["event"])
        for one in stand.server.received
        if one.target == f"/{at}" and (body := json.loads(one.body))
    ]


def calls_first(sent: tuple[str, str]) -> bool:
    """Order messages as if other alerts did not overtake a slow one."""
    return sent[0] != "loosened"


def rows(stand: AlertStand) -> list[str]:
    """Return the stored keys about replaced destinations."""
    meta = stand.bench.broker.recording.meta
    return [key for key in meta if key.startswith(REPLACED) or f"{PLACE}old!" in key]


async def started(stand: AlertStand) -> str:
    """Start with two destinations; return the text of the file."""
    text = sink(stand, "old") + sink(stand, "other") + FIRST + SECOND
    write(stand, text)
    await stand.watch.start()
    await stand.bench.record_start()
    await stand.settle()
    return text


EDITS: Final = {
    "the file is empty": lambda _: "",
    "the destination is removed": lambda stand: sink(stand, "other") + SECOND,
    "its address is another": lambda stand: (
        sink(stand, "old", url=f"{stand.url}/elsewhere")
        + sink(stand, "other")
        + FIRST
        + SECOND
    ),
    "its kind is another": lambda stand: (
        f'[sinks.old]\nkind = "ntfy"\nurl = "{stand.url}/elsewhere"\n'
        "allow_private = true\n" + sink(stand, "other") + FIRST + SECOND
    ),
    "its route is removed": lambda stand: (
        sink(stand, "old") + sink(stand, "other") + SECOND
    ),
    "its route is about another event": lambda stand: (
        sink(stand, "old")
        + sink(stand, "other")
        + FIRST.replace("tenant.away", "panic.off")
        + SECOND
    ),
    "another route goes first": lambda stand: (
        sink(stand, "old")
        + sink(stand, "other")
        + f'{FIRST}digest = "366d"\n'
        + FIRST
        + SECOND
    ),
    "its route is narrowed": lambda stand: (
        sink(stand, "old")
        + sink(stand, "other")
        + f'{FIRST}agents = ["nothing"]\n'
        + SECOND
    ),
}
"""Edits that take alerts from the destination ``old``."""


@pytest.mark.parametrize("edit", EDITS)
async def test_the_old_destination_gets_the_event_of_the_edit(
    stand: AlertStand, edit: str
) -> None:
    """Once, although no route of it names that event; later events go by the edit."""
    await started(stand)
    write(stand, EDITS[edit](stand))
    await stand.watch.look()
    await stand.settle()
    assert arrived(stand, "old") == [("loosened", "service.changed")]
    await note(stand.bench)
    await stand.until(lambda: not rows(stand))
    await stand.settle()
    assert arrived(stand, "old") == [("loosened", "service.changed")]


@pytest.mark.parametrize("edit", EDITS)
async def test_it_gets_the_events_of_a_start_that_found_the_edit(
    stand: AlertStand, edit: str
) -> None:
    """Those of edited settings and policy too; and those before by its own routes."""
    await started(stand)
    stand.server.answer = answering(500)
    await note(stand.bench)
    await stand.settle()
    stand.server.received.clear()
    stand.server.answer = answering(200)
    home = stand.bench.home

    def edited() -> None:
        write(stand, EDITS[edit](stand))
        home.policy_file.write_text(ALLOW_ALL)

    settings = replace(Settings(), tokens=TokenSettings(standard_ttl=80_000))
    async with stand.restarted(edit=edited, settings=settings) as later:
        await later.until(lambda: not rows(later))
        await note(later.bench)
        await later.settle()
        assert sorted(arrived(later, "old"), key=calls_first) == [
            ("loosened", "service.changed"),
            ("loosened", "policy.changed"),
            ("loosened", "change.applied"),
            ("tenant.away", "tenant.away"),
        ]


async def test_an_export_ends_with_the_event_of_its_removal(
    stand: AlertStand, tmp_path: Path
) -> None:
    """So that its reader knows that further events are missing there."""
    await started(stand)
    path = tmp_path / "events.jsonl"
    export = f'[sinks.file]\nkind = "file"\npath = "{path}"\n'
    write(stand, export + sink(stand, "old") + sink(stand, "other") + FIRST + SECOND)
    await stand.watch.look()
    await stand.settle()
    write(stand, sink(stand, "old") + sink(stand, "other") + FIRST + SECOND)
    await stand.watch.look()
    await note(stand.bench)
    await stand.until(lambda: not rows(stand))
    records = [json.loads(line)["metadata"] for line in path.read_text().splitlines()]
    (last,) = (await stand.bench.events("service.changed"))[-1:]
    assert records[-1]["sequence"] == last.seq
    assert [one["sequence"] for one in records] == list(range(1, last.seq + 1))


async def test_a_removed_destination_that_is_away_is_tried_for_a_day(
    stand: AlertStand,
) -> None:
    """It delays no other; then its alert is dead, and nothing of it is left."""
    await started(stand)
    failing = answering(500)
    taking = answering(200)

    async def answer(request: Any, writer: Any) -> None:
        await (failing if request.target == "/old" else taking)(request, writer)

    stand.server.answer = answer
    write(stand, sink(stand, "other") + SECOND + SECOND.replace("away", "back"))
    await stand.watch.look()
    await note(stand.bench)
    await stand.settle()
    assert arrived(stand, "other") == [("tenant.away", "tenant.away")]
    assert any("old (replaced)" in one for one in stand.watch.warnings)
    assert "old (replaced)" in [one.name for one in stand.alerts.listing().sinks]
    async with stand.restarted() as later:
        later.server.received.clear()
        later.bench.clock.advance(3600)
        await later.settle()
        assert arrived(later, "old") == [("loosened", "service.changed")]
        later.bench.clock.advance(86_400)
        await later.until(lambda: not rows(later))
        dead = await later.bench.events("alert.dead")
        assert {one.resource for one in dead} == {"old"}
        assert later.watch.warnings == []
        # No command could send it again: its destination is gone.
        assert later.alerts.listing().dead == ()


async def test_a_removed_secret_delays_no_other_destination(stand: AlertStand) -> None:
    """The old destination cannot be reached without it, and is given up."""
    await started(stand)
    more = sink(stand, "other", secret="second")
    stand.secrets["second"] = stand.secrets.pop("hook")
    write(stand, more + SECOND)
    await stand.watch.look()
    await note(stand.bench)
    await stand.settle()
    assert arrived(stand, "other")[-1] == ("tenant.away", "tenant.away")
    stand.bench.clock.advance(86_500)
    await stand.until(lambda: not rows(stand))
    dead = await stand.bench.events("alert.dead")
    assert {one.resource for one in dead} == {"old", "other"}


async def test_each_of_two_edits_is_sent_by_the_text_before_it(
    stand: AlertStand,
) -> None:
    """Also if the first destination took nothing until after the second edit."""
    text = await started(stand)
    stand.server.answer = answering(500)
    write(stand, text.replace("/old", "/new"))
    await stand.watch.look()
    await stand.settle()
    write(stand, sink(stand, "other") + SECOND)
    await stand.watch.look()
    await stand.settle()
    stand.server.answer = answering(200)
    stand.server.received.clear()
    stand.bench.clock.advance(10)
    await stand.until(lambda: not rows(stand))
    first, second = (
        one.seq
        for one in await stand.bench.events("service.changed")
        if one.reason == "changed"
    )
    numbers = {
        at: [
            json.loads(one.body)["data"]["seq"]
            for one in stand.server.received
            if one.target == f"/{at}"
        ]
        for at in ("old", "new")
    }
    assert numbers == {"old": [first], "new": [second]}


async def test_an_address_that_comes_back_gets_both_edits(stand: AlertStand) -> None:
    """A quick change there and back hides none of them."""
    text = await started(stand)
    for edited in (text.replace("/old", "/new"), text):
        write(stand, edited)
        await stand.watch.look()
    await stand.until(lambda: not rows(stand))
    edits = (await stand.bench.events("service.changed"))[1:]
    seqs = [json.loads(one.body)["data"]["seq"] for one in stand.server.received]
    assert set(seqs) == {one.seq for one in edits}
    assert ("loosened", "service.changed") in arrived(stand, "old")


@pytest.mark.parametrize("edit", EDITS)
async def test_a_kill_after_the_record_loses_no_event(
    stand: AlertStand, edit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next process finds in the ledger who has to get it."""
    await started(stand)
    destinations = stand.alerts.destinations

    class KilledError(Exception):
        """Nothing of this process goes on."""

    async def killed(_: object) -> None:
        raise KilledError

    stand.server.answer = answering(500)
    monkeypatch.setattr(destinations, "follow", killed)
    write(stand, EDITS[edit](stand))
    with pytest.raises(KilledError):
        await stand.watch.look()
    for task in [one for each in destinations._tasks.values() for one in each]:
        task.cancel()
    assert (await stand.bench.events())[-1].type is EventType.SERVICE_CHANGED
    stand.server.received.clear()
    stand.server.answer = answering(200)
    async with stand.restarted(killed=True) as later:
        await later.until(lambda: not rows(later))
        assert ("loosened", "service.changed") in arrived(later, "old")


async def test_a_start_that_is_killed_leaves_its_events_to_the_next(
    stand: AlertStand,
) -> None:
    """An edited policy of the next start is still sent by the replaced file."""
    await started(stand)
    await stand.watch.aclose()
    write(stand, "")
    async with stand.bench.restarted() as bench:
        killed = AlertStand(bench, stand.server)
        killed.secrets = stand.secrets
        await killed.watch.start()
        await killed.watch.look()
        await killed.settle()
        edit = lambda: bench.home.policy_file.write_text(ALLOW_ALL)  # noqa: E731
        async with killed.restarted(edit=edit) as later:
            await later.until(lambda: not rows(later))
            assert arrived(later, "old") == [
                ("loosened", "service.changed"),
                ("loosened", "policy.changed"),
            ]


async def test_an_edit_that_removes_alerts_counts_once_it_is_recorded(
    stand: AlertStand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the ledger cannot write, the file before stays active."""
    await started(stand)
    commit = stand.bench.ledger.commit

    def full(*drafts: Draft, **more: Any) -> Any:
        if any(one.type is EventType.SERVICE_CHANGED for one in drafts):
            raise LedgerUnwritableError("the disk is full")
        return commit(*drafts, **more)

    with monkeypatch.context() as patched:
        patched.setattr(stand.bench.ledger, "commit", full)
        write(stand, "")
        await stand.watch.look()
        assert set(stand.alerts.file.sinks) == {"old", "other"}
        await note(stand.bench)
        await stand.settle()
    assert arrived(stand, "old") == [("tenant.away", "tenant.away")]
    await stand.until(lambda: stand.alerts.file.sinks == {})
    await stand.until(lambda: not rows(stand))
    assert arrived(stand, "old")[1:] == [("loosened", "service.changed")]


async def test_collected_alerts_of_a_removed_destination_are_sent(
    stand: AlertStand,
) -> None:
    """They do not wait for the end of their digest, which nobody would send."""
    text = await started(stand)
    later = f'{FIRST}digest = "24h"\n'
    write(stand, text.replace(FIRST, later))
    await stand.watch.look()
    await stand.until(lambda: not rows(stand))
    await note(stand.bench)
    await stand.settle()
    stand.server.received.clear()
    write(stand, sink(stand, "other") + SECOND)
    await stand.watch.look()
    await stand.until(lambda: not rows(stand))
    assert sorted(arrived(stand, "old")) == [
        ("loosened", "service.changed"),
        ("tenant.away", "tenant.away"),
    ]


async def test_rows_are_bounded_and_the_first_ones_stay(stand: AlertStand) -> None:
    """A flood of edits cannot push a destination out that was there before."""
    text = await started(stand)
    stand.server.answer = answering(500)
    write(stand, text.replace("/old", "/first"))
    await stand.watch.look()
    names = [f"more{number}" for number in range(40)]
    for turn in range(3):
        many = "".join(sink(stand, f"{one}{turn}") for one in names)
        write(stand, many + sink(stand, "other") + SECOND)
        await stand.watch.look()
    kept = [key for key in rows(stand) if key.startswith(REPLACED)]
    assert len(kept) == 64
    assert sum("old!" in key for key in kept) == 2


async def test_an_approved_edit_is_sent_to_the_destinations_it_removes(
    short: Path, clock: ManualClock, server: Upstream
) -> None:
    """The proof of the approval comes with it."""
    bench = await Bench.open(Home.locate(short / "factor"), clock, "", FACTOR)
    stand = AlertStand(bench, server)
    await started(stand)
    write(stand, "")
    await stand.watch.look()
    await stand.settle()
    assert arrived(stand, "old") == []
    (change,) = bench.broker.stepups.open(AgentId(""))
    await approve(bench, change)
    await stand.until(lambda: stand.alerts.file.sinks == {} and not rows(stand))
    assert arrived(stand, "old") == [("loosened", "change.applied")]
    await stand.watch.aclose()
    await bench.close()
