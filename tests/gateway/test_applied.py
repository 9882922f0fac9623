"""Service files that come with applied files are recorded, then written, or neither."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.bench import OPERATOR, Bench

from agentvault_tui.broker.usecases.apply import apply_files, plan_files
from agentvault_tui.broker.usecases.apply_entries import files_of
from agentvault_tui.broker.usecases.policy_apply import edits_of
from agentvault_tui.errors import ConflictError, LedgerUnwritableError, UsageError
from agentvault_tui.gateway import Gateway
from agentvault_tui.gateway.applied import APPLYING
from agentvault_tui.home import Home
from agentvault_tui.ledger import Meta
from agentvault_tui.ledger.state import read_meta
from agentvault_tui.model import Actor, sha256_hex
from agentvault_tui.operator_api.files import AgentEntry, FilesRequest
from agentvault_tui.web.local_ca import CaFiles, renew

MAIL = 'origin = "https://api.mail.example"\n'
OTHER = 'origin = "https://api.other.example"\n'


async def operator(_: bool) -> Actor:
    return OPERATOR


async def gateway(bench: Bench) -> Gateway:
    made = bench.broker.extensions.gateway = Gateway(bench.broker)
    await made.start()
    return made


def files(**services: str) -> FilesRequest:
    return FilesRequest(services=services, agents={"a": AgentEntry(owner="olga")})


def there(bench: Bench) -> dict[str, str]:
    folder = bench.home.config / "services"
    return {path.stem: path.read_text() for path in folder.glob("*.toml")}


async def test_services_are_in_force_with_the_reply(bench: Bench) -> None:
    """One commit records agents and services; the gateway then knows them."""
    known = await gateway(bench)
    await apply_files(bench.broker, files(mail=MAIL), operator)
    assert known.services.get("mail") is not None
    assert there(bench) == {"mail": MAIL}
    (event,) = await bench.events("service.changed")
    (applied,) = await bench.events("config.applied")
    assert event.actor == OPERATOR
    assert event.detail["after"] == sha256_hex(MAIL)
    assert event.detail["applied"] == applied.detail["digest"]
    assert event.seq == applied.seq + 1
    await known.look()
    assert len(await bench.events("service.changed")) == 1
    said = await files_of(bench.broker)
    wanted = FilesRequest(agents=said.agents, services=said.services)
    edits = await edits_of(bench.broker, wanted)
    assert not await plan_files(bench.broker, wanted, frozenset(), edits)


async def test_a_start_after_a_kill_writes_what_was_recorded(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the commit and before the files are written, both come."""
    known = await gateway(bench)
    await apply_files(bench.broker, files(mail=MAIL), operator)

    def killed(*_: Any) -> None:
        raise RuntimeError("killed")

    monkeypatch.setattr(known._applied, "write", killed)
    changed = files(mail=OTHER, second=MAIL)
    with pytest.raises(RuntimeError):
        await apply_files(bench.broker, changed, operator)
    assert there(bench) == {"mail": MAIL}
    async with bench.restarted() as again:
        started = await gateway(again)
        assert there(again) == {"mail": OTHER, "second": MAIL}
        assert started.services.get("second") is not None
        assert await again.ledger.read(read_meta, APPLYING) is None
        assert len(await again.events("service.changed")) == 3


async def test_a_file_that_was_changed_since_is_left_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a person wrote after the kill is not written over."""
    known = await gateway(bench)
    monkeypatch.setattr(known._applied, "write", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        await apply_files(bench.broker, files(mail=MAIL), operator)
    (bench.home.config / "services" / "mail.toml").write_text(OTHER)
    async with bench.restarted() as again:
        await gateway(again)
        assert there(again) == {"mail": OTHER}


async def test_a_text_that_no_event_names_is_not_written(bench: Bench) -> None:
    """Whoever can write a row of the store cannot add a service with it."""
    planted = {"evil": [None, MAIL]}
    await bench.broker.record(changes=[Meta(APPLYING, json.dumps(planted))])
    async with bench.restarted() as again:
        await gateway(again)
        assert there(again) == {}


async def test_nothing_is_written_where_the_commit_failed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file, no agent."""
    await gateway(bench)

    def broken(*_: Any, **__: Any) -> Any:
        raise LedgerUnwritableError("no space left")

    monkeypatch.setattr(bench.ledger, "commit", broken)
    with pytest.raises(LedgerUnwritableError):
        await apply_files(bench.broker, files(mail=MAIL), operator)
    assert there(bench) == {}
    assert not bench.broker.registry.agents()


async def test_a_file_that_cannot_be_written_is_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Agents are in force, the answer says so, and applying again mends it."""
    await gateway(bench)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("agentvault_tui.gateway.applied.put_private", full)
        with pytest.raises(ConflictError, match="cannot be written"):
            await apply_files(bench.broker, files(mail=MAIL), operator)
    assert len(bench.broker.registry.agents()) == 1
    await apply_files(bench.broker, files(mail=MAIL), operator)
    assert there(bench) == {"mail": MAIL}


async def test_a_linked_service_file_is_left_alone(
    bench: Bench, tmp_path: Path
) -> None:
    """What a symbolic link points to is not written over."""
    await gateway(bench)
    target = tmp_path / "elsewhere.toml"
    target.write_text(MAIL)
    (bench.home.config / "services" / "mail.toml").symlink_to(target)
    with pytest.raises(ConflictError, match="symbolic link"):
        await apply_files(bench.broker, files(mail=OTHER), operator)
    assert target.read_text() == MAIL


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("../evil", MAIL, "cannot be called that"),
        ("Mail", MAIL, "cannot be called that"),
        ("mail", "origin = 1", "services/mail.toml: origin"),
        ("mail", MAIL + 'secret = "x"', "unknown key 'secret'"),
        pytest.param("mail", MAIL + "#" * 300_000, "larger than 256 KiB", id="huge"),
        ("mail", MAIL + 'unmatched = "read:nothing"', "unknown scope"),
    ],
)
async def test_broken_services_refuse_all_of_the_files(
    bench: Bench, name: str, text: str, told: str
) -> None:
    """No agent comes with a service that cannot be put in force."""
    await gateway(bench)
    with pytest.raises(UsageError, match=told):
        await apply_files(bench.broker, files(**{name: text}), operator)
    assert not bench.broker.registry.agents()
    assert there(bench) == {}


@pytest.mark.parametrize("on_disk", [OTHER, OTHER + "typo", ""])
@pytest.mark.parametrize("asked", [OTHER, OTHER + "# reviewed\n"])
@pytest.mark.parametrize("active", [MAIL, None])
async def test_an_applied_text_is_compared_with_the_active_one(
    bench: Bench, on_disk: str, asked: str, active: str | None
) -> None:
    """A file on disk that waits, or is broken, may have most of the asked text."""
    known = await gateway(bench)
    file = bench.home.config / "services" / "mail.toml"
    if active:
        file.write_text(active)
        await known.look()
    known.services.admits = lambda *_: False  # an edit waits for an approver
    file.write_text(on_disk)
    await known.look()
    wanted = files(mail=asked)
    plan = await plan_files(
        bench.broker, wanted, frozenset(), await edits_of(bench.broker, wanted)
    )
    assert plan.edits.services == {"mail": (active, asked)}
    assert (await files_of(bench.broker)).services == (
        {"mail": active} if active else {}
    )


async def test_an_applied_service_is_active_with_the_authorities_it_names(
    bench: Bench, short: Path
) -> None:
    """The digest on record covers both, and a later look finds nothing changed."""
    known = await gateway(bench)
    other = Home.locate(short / "other")
    other.prepare()
    renew(other, now=datetime.now(UTC))
    pem = CaFiles.of(other).ca.read_bytes()
    (bench.home.config / "ca.pem").write_bytes(pem)
    text = f'ca_file = "ca.pem"\n{MAIL}'
    await apply_files(bench.broker, files(mail=text), operator)
    service = known.services.get("mail")
    assert service is not None
    assert service.authorities == pem.decode()
    await known.look()
    (event,) = await bench.events("service.changed")
    assert event.detail["after"] == service.sha256 != sha256_hex(text)
    said = await files_of(bench.broker)
    assert said.services["mail"] == text
    assert not (await edits_of(bench.broker, files(mail=text))).services
