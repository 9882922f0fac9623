"""With a factor at the socket, an edit that takes alert routes away waits."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.bench import OPERATOR, Bench
from support.manual_clock import ManualClock
from support.stepups import FACTOR, approve

from agentvault_tui.broker.usecases.stepup import begin_approval
from agentvault_tui.broker.usecases.stepup_end import deny, expire_due
from agentvault_tui.errors import LedgerUnwritableError, ServiceError
from agentvault_tui.home import Home
from agentvault_tui.model import AgentId, Draft, EventType
from agentvault_tui.watch.alerts import Alerts
from agentvault_tui.watch.config import parse_alerts
from agentvault_tui.web.local_ca import CaFiles, renew

ONE = """
[sinks.log]
kind = "file"
path = "alerts.jsonl"
[[routes]]
sinks = ["log"]
events = ["needs_person"]
"""
LATER = '[[routes]]\nsinks = ["log"]\nevents = ["needs_person"]\ndigest = "366d"\n'
MORE = ONE + '[[routes]]\nsinks = ["log"]\nevents = ["panic.on"]\n'


async def test_a_route_is_taken_away_once_that_is_approved(
    short: Path, clock: ManualClock
) -> None:
    """One that is added counts at once; the file before goes on meanwhile."""
    bench = await Bench.open(Home.locate(short / "home"), clock, "", FACTOR)
    alerts = Alerts(bench.broker, lambda _: None)  # type: ignore[arg-type,return-value]
    bench.home.alerts_file.write_text(ONE)
    await alerts.start()
    bench.home.alerts_file.write_text(MORE)
    await alerts.look()
    assert len(alerts.file.routes) == 2
    sinks, routes = MORE.split("[[routes]]", 1)
    bench.home.alerts_file.write_text(f"{sinks}{LATER}[[routes]]{routes}")
    await alerts.look()
    assert len(alerts.file.routes) == 2  # the new one would take their alerts
    await expire_due(bench.broker)
    (change,) = bench.broker.stepups.open(AgentId(""))
    await deny(bench.broker, change.id, "", OPERATOR)
    bench.home.alerts_file.write_text("")
    await alerts.look()
    assert len(alerts.file.routes) == 2
    (change,) = bench.broker.stepups.open(AgentId(""))
    assert change.action == "change:alerts"
    await approve(bench, change)
    assert alerts.file.routes == ()
    loosened = [e for e in await bench.events() if "loosened" in e.detail]
    assert [e.type.value for e in loosened] == ["change.applied"]
    bench.home.alerts_file.write_text(ONE)
    await alerts.look()
    bench.home.alerts_file.write_text("")
    await alerts.look()
    assert len(alerts.file.routes) == 1  # the approval was for once
    await alerts.aclose()
    await bench.close()


async def test_an_approved_edit_that_cannot_be_recorded_is_not_in_effect(
    short: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its change waits on, and is applied once the ledger can write."""
    bench = await Bench.open(Home.locate(short / "home"), clock, "", FACTOR)
    alerts = Alerts(bench.broker, lambda _: None)  # type: ignore[arg-type,return-value]
    bench.home.alerts_file.write_text(ONE)
    await alerts.start()
    bench.home.alerts_file.write_text("")
    await alerts.look()
    (change,) = bench.broker.stepups.open(AgentId(""))
    commit = bench.ledger.commit

    def full(*drafts: Draft, **more: Any) -> Any:
        if any(one.type is EventType.CHANGE_APPLIED for one in drafts):
            raise LedgerUnwritableError("the disk is full")
        return commit(*drafts, **more)

    with monkeypatch.context() as patched:
        patched.setattr(bench.ledger, "commit", full)
        await begin_approval(bench.broker, change.id, change.digest, OPERATOR)
        bench.tenant.approve()
        known = bench.broker.stepups
        await bench.until(lambda: known.get(change.id).status != "authorizing")
    assert known.get(change.id).status == "pending"
    assert len(alerts.file.routes) == 1
    await approve(bench, change)
    assert alerts.file.routes == ()
    await alerts.aclose()
    await bench.close()


async def test_other_authorities_of_a_destination_wait_for_an_approval(
    short: Path, clock: ManualClock
) -> None:
    """They could read all alerts; the old ones vouch for it, over a restart too."""
    pems = list[str]()
    for name in "ab":
        other = Home.locate(short / name)
        other.prepare()
        renew(other, now=datetime.now(UTC))
        pems.append(CaFiles.of(other).ca.read_text())
    text = """
[sinks.ops]
kind = "ntfy"
url = "https://ntfy.example/ops"
ca_file = "ca.pem"
"""
    for turn in range(2):
        bench = await Bench.open(Home.locate(short / "home"), clock, "", FACTOR)
        pem = bench.home.config / "ca.pem"
        alerts = Alerts(bench.broker, lambda _: None)  # type: ignore[arg-type,return-value]
        if turn == 0:
            pem.write_text(pems[0])
            bench.home.alerts_file.write_text(text)
        await alerts.start()
        assert alerts.file.sinks["ops"].authorities == pems[0]
        pem.write_text(pems[1])
        await alerts.look()
        assert alerts.file.sinks["ops"].authorities == pems[0]
        (change,) = bench.broker.stepups.open(AgentId(""))
        if turn == 1:
            await approve(bench, change)
            assert alerts.file.sinks["ops"].authorities == pems[1]
        await alerts.aclose()
        await bench.close()


def test_a_destination_states_no_authorities_itself(short: Path) -> None:
    """They come from its ``ca_file`` alone, whose owner was checked."""
    text = '[sinks.a]\nkind = "ntfy"\nurl = "https://a.test/"\nauthorities = "x"\n'
    with pytest.raises(ServiceError, match="no authorities"):
        parse_alerts(text, Home.locate(short / "home"))
