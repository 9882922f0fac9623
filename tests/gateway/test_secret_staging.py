"""A change of secrets that was recorded is written, also if the broker was killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.bench import OPERATOR, Bench
from support.gateway_stand import gateway_of

from agentvault_tui.errors import LedgerUnwritableError
from agentvault_tui.gateway import Gateway
from agentvault_tui.gateway import secrets as secrets_module
from agentvault_tui.origins import ServerOrigin

HERE = ServerOrigin("https", "api.test", 443)


async def keep(bench: Bench, gateway: Gateway, name: str, value: str) -> None:
    secrets = gateway.secrets
    await secrets.change(
        lambda: secrets.set(name, value, OPERATOR, [str(HERE)]), bench.broker.record
    )


def value_of(gateway: Gateway, name: str) -> str:
    return gateway.secrets.open(name, [HERE]).reveal()


async def change(bench: Bench, gateway: Gateway, kind: str) -> None:
    """Set, remove or rotate, and be killed before the file is written."""
    secrets = gateway.secrets
    prepare: Any = {
        "set": lambda: secrets.set("a", "two", OPERATOR, [str(HERE)]),
        "remove": lambda: secrets.remove("a", OPERATOR),
        "rotate": lambda: secrets.rotate_key(OPERATOR),
    }[kind]
    await secrets.change(prepare, bench.broker.record)


@pytest.mark.parametrize("kind", ["set", "remove", "rotate"])
async def test_a_start_writes_what_was_recorded(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A set, a removal and a rotation count after the start, as the event says."""

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    async with gateway_of(bench) as gateway:
        await keep(bench, gateway, "a", "one")
        await keep(bench, gateway, "b", "other")
        old = (bench.home.keys / "secrets.key").read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(secrets_module.Secrets, "_write", killed)
            with pytest.raises(KeyboardInterrupt):
                await change(bench, gateway, kind)
        assert value_of(gateway, "a") == "one"
    async with bench.restarted() as again, gateway_of(again) as gateway:
        assert value_of(gateway, "b") == "other"
        if kind == "remove":
            assert gateway.secrets.row("a") is None
        else:
            assert value_of(gateway, "a") == ("two" if kind == "set" else "one")
        key = (bench.home.keys / "secrets.key").read_bytes()
        assert (key == old) is (kind != "rotate")
        assert left(bench.home.data) == []
        assert gateway.secrets.warnings == ()
        await keep(again, gateway, "c", "next")


def left(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if "secrets-next" in path.name]


async def test_a_change_that_was_not_recorded_is_forgotten(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the ledger could not record it, the start removes its content."""

    async def unwritable(*_: object, **__: object) -> None:
        raise LedgerUnwritableError("the disk is full")

    async with gateway_of(bench) as gateway:
        await keep(bench, gateway, "a", "one")
        with monkeypatch.context() as patch:
            patch.setattr(bench.broker, "record", unwritable)
            with pytest.raises(LedgerUnwritableError):
                await keep(bench, gateway, "a", "two")
        assert left(bench.home.data) != []
    async with bench.restarted() as again, gateway_of(again) as gateway:
        assert value_of(gateway, "a") == "one"
        assert left(bench.home.data) == []


async def test_an_older_file_is_a_warning(bench: Bench) -> None:
    """A file that the last event does not name is shown from the next start on."""
    async with gateway_of(bench) as gateway:
        await keep(bench, gateway, "a", "one")
        older = bench.home.secrets_file.read_bytes()
        await keep(bench, gateway, "a", "two")
        assert gateway.warnings == []
    bench.home.secrets_file.write_bytes(older)
    async with bench.restarted() as again, gateway_of(again) as gateway:
        (warning,) = gateway.warnings
        assert "secrets.json is not as its last change was recorded" in warning
        await keep(again, gateway, "a", "three")
        assert gateway.warnings == []
