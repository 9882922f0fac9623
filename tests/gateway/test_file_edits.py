"""With a factor at the socket, a new or edited service file waits for an approver."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from support.bench import OPERATOR, Bench
from support.manual_clock import ManualClock
from support.scripted_tenant import ALICE

from agentvault_tui.broker.usecases.stepup import begin_approval
from agentvault_tui.broker.usecases.stepup_end import expire_due
from agentvault_tui.gateway import Gateway
from agentvault_tui.home import Home
from agentvault_tui.model import AgentId, StepUp
from agentvault_tui.settings import ChangeSettings, Settings, StepUpSettings

FACTOR = Settings(
    changes=ChangeSettings(socket="factor"),
    stepup=StepUpSettings(approvers=(ALICE["sub"],)),
)
FIRST = """
origin = "https://api.stripe.com"
[credential]
kind = "bearer"
secret = "stripe"
[[routes]]
method = "GET"
path = "/v1/x"
scope = "read:finance"
"""
EVIL = FIRST.replace("api.stripe.com", "evil.example")


@asynccontextmanager
async def started(
    short: Path, clock: ManualClock, settings: Settings = FACTOR
) -> AsyncIterator[tuple[Bench, Gateway]]:
    bench = await Bench.open(Home.locate(short / "home"), clock, "", settings)
    bench.broker.gateway = gateway = Gateway(bench.broker)
    await gateway.start()
    yield bench, gateway
    await gateway.aclose()
    await bench.close()


def waiting(bench: Bench) -> list[StepUp]:
    return bench.broker.stepups.open(AgentId(""))


def origin(gateway: Gateway) -> str:
    service = gateway.services.get("stripe")
    return "" if service is None else str(service.origin)


async def approve(bench: Bench, change: StepUp) -> None:
    await begin_approval(bench.broker, change.id, change.digest, OPERATOR)
    bench.tenant.approve()
    known = bench.broker.stepups
    await bench.until(lambda: known.get(change.id).status != "authorizing")


async def test_an_edit_points_a_service_nowhere_until_it_is_approved(
    short: Path, clock: ManualClock
) -> None:
    """Its version before goes on, over a restart too; the text on disk is approved."""
    async with started(short, clock, Settings()) as (bench, gateway):
        file = bench.home.config / "services" / "stripe.toml"
        file.write_text(FIRST)
        await gateway.look()
        assert origin(gateway) == "https://api.stripe.com"
        event = (await bench.events("service.changed"))[-1]
        assert (event.detail["by"], event.detail["loosened"]["proof"]) == ("file",) * 2
    async with started(short, clock) as (bench, gateway):
        assert origin(gateway) == "https://api.stripe.com"
        file.write_text(EVIL)
        await gateway.look()
        await gateway.look()
        assert origin(gateway) == "https://api.stripe.com"
        (change,) = waiting(bench)
        assert any("services/stripe.toml" in one for one in gateway.notices)
        assert gateway.warnings == []
        file.write_text(FIRST)
        await gateway.look()
        await expire_due(bench.broker)
        assert bench.broker.stepups.get(change.id).status == "cancelled"
        file.write_text(EVIL)
        await gateway.look()
    async with started(short, clock) as (bench, gateway):
        assert origin(gateway) == ""  # what is in force now is not on the disk
        (change,) = waiting(bench)
        await approve(bench, change)
        assert bench.broker.stepups.get(change.id).status == "applied"
        assert origin(gateway) == "https://evil.example"
        (applied,) = await bench.events("change.applied")
        assert applied.detail["loosened"]["kinds"] == ["services"]
        changed = (await bench.events("service.changed"))[-1]
        assert changed.actor.id == ALICE["sub"]
        file.unlink()
        await gateway.look()
        assert origin(gateway) == ""
        assert waiting(bench) == []


async def test_an_approval_of_an_edit_counts_once_and_for_its_file_alone(
    short: Path, clock: ManualClock
) -> None:
    """A text that was approved, and replaced since, waits again; so does a copy."""
    async with started(short, clock, Settings()) as (bench, gateway):
        file = bench.home.config / "services" / "stripe.toml"
        file.write_text(FIRST)
        await gateway.look()
    async with started(short, clock) as (bench, gateway):
        for text in (EVIL, FIRST):
            file.write_text(text)
            await gateway.look()
            (change,) = waiting(bench)
            await approve(bench, change)
        assert origin(gateway) == "https://api.stripe.com"
        file.write_text(EVIL)
        await gateway.look()
        assert origin(gateway) == "https://api.stripe.com"
        file.with_name("copy.toml").write_text(EVIL)
        await gateway.look()
        assert gateway.services.get("copy") is None
        assert len(waiting(bench)) == 2
