"""With a factor at the socket, a new or edited service file waits for an approver."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.bench import OPERATOR, Bench
from support.gateway_stand import gateway_of
from support.manual_clock import ManualClock
from support.scripted_tenant import ALICE
from support.stepups import FACTOR, approve, start

from agentvault_tui.broker.usecases.revoke import panic
from agentvault_tui.broker.usecases.stepup_end import expire_due
from agentvault_tui.gateway import Gateway
from agentvault_tui.gateway.tools import shipped_tools
from agentvault_tui.home import Home
from agentvault_tui.ledger import Meta
from agentvault_tui.model import AgentId, StepUp, sha256_hex
from agentvault_tui.settings import GatewaySettings, Settings
from agentvault_tui.web.local_ca import CaFiles, renew

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
FILES = {
    "services/x.toml": FIRST,
    "mcp/x.toml": 'command = ["/bin/id"]\n[tools."*"]\nscope = "read:files"\n',
    "hosts/codex.toml": '[tools."*"]\nscope = "read:files"\n',
}
EVIL = FIRST.replace("api.stripe.com", "evil.example")


@asynccontextmanager
async def started(
    short: Path, clock: ManualClock, settings: Settings = FACTOR
) -> AsyncIterator[tuple[Bench, Gateway]]:
    bench = await Bench.open(Home.locate(short / "home"), clock, "", settings)
    async with gateway_of(bench) as gateway:
        yield bench, gateway
    await bench.close()


def waiting(bench: Bench) -> list[StepUp]:
    return bench.broker.stepups.open(AgentId(""))


def origin(gateway: Gateway) -> str:
    service = gateway.services.get("stripe")
    return "" if service is None else str(service.origin)


def maps(gateway: Gateway, tool: str = "Read") -> bool:
    """Tell whether the map of Claude Code names a tool: else it is denied."""
    rules = gateway.tools.of("claude-code").rules
    return any(rule.matches.fullmatch(tool) for rule in rules)


def differing(change: StepUp) -> list[str]:
    """Return the lines that a change shows of its one text."""
    assert change.change is not None
    (text,) = change.change.texts
    return text.diff.splitlines()


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
        assert origin(gateway) == "https://api.stripe.com"  # no longer on the disk
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


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("path", ["services/x.toml", "mcp/x.toml", "hosts/codex.toml"])
async def test_the_first_file_of_a_home_waits_as_well(
    short: Path, clock: ManualClock, path: str, restarts: bool
) -> None:
    """A home that never had a file is not one whose files are not known yet."""
    async with started(short, clock) as (bench, gateway):
        file = bench.home.config / path
        if not restarts:
            file.write_text(FILES[path])
            await gateway.look()
            assert [one.resource for one in waiting(bench)] == [path]
    if restarts:
        file.write_text(FILES[path])
        async with started(short, clock) as (bench, _):
            assert [one.resource for one in waiting(bench)] == [path]


@pytest.mark.parametrize(
    "now", [None, "unmatched = \"deny\"\n[tools.Read]\nscope = 'read:files'\n"]
)
async def test_a_map_whose_last_text_is_lost_denies_and_is_not_the_shipped_one(
    short: Path, clock: ManualClock, now: str | None
) -> None:
    """As after an upgrade from a version that recorded no texts."""
    async with started(short, clock, Settings()) as (bench, gateway):
        file = bench.home.config / "hosts" / "claude-code.toml"
        file.write_text('unmatched = "deny"\n[tools.Bash]\nscope = "read:files"\n')
        await gateway.look()
        assert not maps(gateway)
        text = Meta("gateway_text:hosts/claude-code.toml", None)
        await bench.broker.record(changes=[text])
    if now is None:
        file.unlink()
    else:
        file.write_text(now)
    for _ in range(2):
        async with started(short, clock) as (bench, gateway):
            assert (maps(gateway), maps(gateway, "WebSearch")) == (False, False)
            await expire_due(bench.broker)
            await gateway.look()
            (change,) = waiting(bench)
            assert change.resource == "hosts/claude-code.toml"


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


@pytest.mark.parametrize(
    ("before", "after"), [(FIRST, EVIL), (None, EVIL), (FIRST, None)]
)
async def test_an_edit_that_ends_as_it_is_carried_out_is_not_in_effect(
    short: Path,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    before: str | None,
    after: str | None,
) -> None:
    """A panic came when it was read, so that its record was refused."""
    record, ends = Gateway._record, False
    file = short / "home" / "services" / "stripe.toml"

    async def stopped(gateway: Gateway) -> None:
        if ends and gateway.broker.registry.revocations.panic is None:
            await panic(gateway.broker, "drill", OPERATOR)
        await record(gateway)

    monkeypatch.setattr(Gateway, "_record", stopped)
    through = GatewaySettings(pass_through=("api.stripe.com",))
    settings = replace(FACTOR, gateway=through)
    async with started(short, clock, Settings(gateway=through)) as (bench, gateway):
        if before is not None:
            file.write_text(before)
        await gateway.look()
    async with started(short, clock, settings) as (bench, gateway):
        was = origin(gateway)
        file.unlink() if after is None else file.write_text(after)
        await gateway.look()
        (change,) = waiting(bench)
        ends, known = True, bench.broker.stepups
        await start(bench, change)
        bench.tenant.approve()
        await bench.until(lambda: not known.get(change.id).status.open)
        await gateway.look()
        assert known.get(change.id).status == "cancelled"
        assert origin(gateway) == was
        assert await bench.events("change.applied") == []


async def test_who_approves_an_edit_sees_the_lines_that_differ(
    short: Path, clock: ManualClock
) -> None:
    """Also of a new file whose command runs as the broker's user, and after a start."""
    command = 'command = ["/bin/sh", "-c", "id"]\n[tools."*"]\nscope = "read:files"\n'
    async with started(short, clock, Settings()) as (bench, gateway):
        file = bench.home.config / "services" / "stripe.toml"
        file.write_text(FIRST)
        await gateway.look()
    async with started(short, clock) as (bench, gateway):
        (bench.home.config / "mcp" / "x.toml").write_text(command)
        await gateway.look()
        (change,) = waiting(bench)
        assert [f"+{line}" for line in command.splitlines()] == differing(change)[1:]
        facts = json.loads(change.parameters_json)
        assert facts["starts"] == "/bin/sh -c id (as the broker's user)"
        assert "origin" not in facts
    file.write_text(EVIL)
    async with started(short, clock) as (bench, gateway):
        changes = {one.resource: one for one in waiting(bench)}
        lines = differing(changes["services/stripe.toml"])
        assert [one for one in lines if one[0] in "+-"] == [
            '-origin = "https://api.stripe.com"',
            '+origin = "https://evil.example"',
        ]


@pytest.mark.parametrize("then", ["removed", "edited", "folder gone"])
async def test_a_strict_map_counts_until_its_removal_is_approved(
    short: Path, clock: ManualClock, then: str
) -> None:
    """The shipped map would count in its place; after a restart the last one does."""
    strict = 'unmatched = "deny"\n[tools.Bash]\nscope = "execute:command"\n'
    async with started(short, clock, Settings()) as (bench, gateway):
        file = bench.home.config / "hosts" / "claude-code.toml"
        assert maps(gateway)
        file.write_text(strict)
        await gateway.look()
    async with started(short, clock) as (bench, gateway):
        if then == "edited":
            file.write_text(shipped_tools("claude-code"))
        elif then == "removed":
            file.unlink()
        else:
            file.parent.rename(file.parent.with_name("away"))
        await gateway.look()
        await gateway.look()
        assert not maps(gateway)
        (change,) = waiting(bench)
        assert "+[tools.Read]" in differing(change)
    async with started(short, clock) as (bench, gateway):
        assert not maps(gateway)
        (change,) = waiting(bench)
        await approve(bench, change)
        assert bench.broker.stepups.get(change.id).status == "applied"
        assert maps(gateway)
        assert waiting(bench) == []
        (changed,) = (await bench.events("service.changed"))[-1:]
        assert changed.actor.id == ALICE["sub"]
    async with started(short, clock) as (bench, gateway):
        assert maps(gateway)


async def test_a_removal_that_is_undone_cancels_its_change(
    short: Path, clock: ManualClock
) -> None:
    """The file is there again with the text that never stopped counting."""
    async with started(short, clock, Settings()) as (bench, gateway):
        file = bench.home.config / "hosts" / "claude-code.toml"
        file.write_text('unmatched = "deny"\n')
        await gateway.look()
    async with started(short, clock) as (bench, gateway):
        file.unlink()
        await gateway.look()
        (change,) = waiting(bench)
        file.write_text('unmatched = "deny"\n')
        await gateway.look()
        await expire_due(bench.broker)
        assert bench.broker.stepups.get(change.id).status == "cancelled"
        assert not maps(gateway)


@pytest.mark.parametrize("passed", ["*.stripe.com", "api.stripe.com:443", "other.com"])
async def test_a_service_of_a_host_that_is_passed_through_is_removed_once_approved(
    short: Path, clock: ManualClock, passed: str
) -> None:
    """Without it agents would reach that host through the proxy, unread."""
    through = GatewaySettings(pass_through=(passed,))
    opens = passed != "other.com"
    async with started(short, clock, Settings(gateway=through)) as (bench, gateway):
        file = bench.home.config / "services" / "stripe.toml"
        file.write_text(FIRST)
        await gateway.look()
    async with started(short, clock, replace(FACTOR, gateway=through)) as both:
        bench, gateway = both
        file.unlink()
        await gateway.look()
        assert origin(gateway) == ("https://api.stripe.com" if opens else "")
        assert len(waiting(bench)) == opens
        for change in waiting(bench):
            assert "api.stripe.com through the proxy" in change.parameters["then"]
            await approve(bench, change)
        assert origin(gateway) == ""


async def test_a_removal_that_loosens_is_recorded_as_one(
    short: Path, clock: ManualClock
) -> None:
    """Where no factor is asked it counts at once, and the event says so."""
    through = GatewaySettings(pass_through=("*.stripe.com",))
    async with started(short, clock, Settings(gateway=through)) as (bench, gateway):
        for host in ("stripe.com", "other.com"):
            file = bench.home.config / "services" / "stripe.toml"
            file.write_text(FIRST.replace("stripe.com", host))
            await gateway.look()
            file.unlink()
            await gateway.look()
            removed = (await bench.events("service.changed"))[-1]
            assert removed.reason == "removed"
            assert ("loosened" in removed.detail) is (host == "stripe.com")


def authority(folder: Path) -> bytes:
    home = Home.locate(folder)
    home.prepare()
    renew(home, now=datetime.now(UTC))
    return CaFiles.of(home).ca.read_bytes()


async def test_other_authorities_of_a_service_count_once_they_are_approved(
    short: Path, clock: ManualClock
) -> None:
    """A changed ``ca_file`` waits as an edited file does, over a restart too.

    The change shows the digest of the new one, and is cancelled by another edit of it.
    """
    ours, theirs, others = (authority(short / name) for name in "abc")

    def vouching(gateway: Gateway) -> str:
        service = gateway.services.get("stripe")
        return "" if service is None else service.authorities

    async with started(short, clock, Settings()) as (bench, gateway):
        folder = bench.home.config
        pem = folder / "ca.pem"
        pem.write_bytes(ours)
        named = f'ca_file = "ca.pem"\n{FIRST}'
        (folder / "services" / "stripe.toml").write_text(named)
        await gateway.look()
        assert vouching(gateway) == ours.decode()
    async with started(short, clock) as (bench, gateway):
        pem.write_bytes(others)
        await gateway.look()
        (outdated,) = waiting(bench)
        pem.write_bytes(theirs)
        await gateway.look()
        await expire_due(bench.broker)
        assert bench.broker.stepups.get(outdated.id).status == "cancelled"
        (change,) = waiting(bench)
        assert f"+# ca.pem has SHA-256 {sha256_hex(theirs.decode())}" in differing(
            change
        )
        assert vouching(gateway) == ours.decode()
    async with started(short, clock) as (bench, gateway):
        assert vouching(gateway) == ours.decode()
        (change,) = waiting(bench)
        await approve(bench, change)
        assert bench.broker.stepups.get(change.id).status == "applied"
        assert vouching(gateway) == theirs.decode()
        changed = (await bench.events("service.changed"))[-1]
        assert changed.resource == "services/stripe.toml"
        assert changed.detail["before"] != changed.detail["after"]
        pem.write_bytes(ours)
        await gateway.look()
        assert vouching(gateway) == theirs.decode()  # the approval was for once


async def test_authorities_that_others_could_write_leave_the_last_ones_active(
    short: Path, clock: ManualClock
) -> None:
    """The warning names the file; closing it is enough to have it read again."""
    async with started(short, clock, Settings()) as (bench, gateway):
        outside = short / "outside"
        outside.mkdir()
        pem = outside / "ca.pem"
        pem.write_bytes(authority(short / "a"))
        pem.chmod(0o644)
        file = bench.home.config / "services" / "stripe.toml"
        file.write_text(f'ca_file = "{pem}"\n{FIRST}')
        await gateway.look()
        before = gateway.services.get("stripe")
        assert before is not None
        pem.write_bytes(authority(short / "b"))
        pem.chmod(0o666)
        await gateway.look()
        assert gateway.services.get("stripe") is before
        assert any(f"others can write to {pem}" in one for one in gateway.warnings)
        pem.chmod(0o600)
        await gateway.look()
        after = gateway.services.get("stripe")
        assert after is not None
        assert after.authorities == pem.read_text()
        assert gateway.warnings == []
