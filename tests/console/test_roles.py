"""A viewer at the console and the command line, on a real broker and a real tenant."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.console_scenes import console, drawn
from support.patience import PATIENT
from support.vault import PAYMENT, Vault, serving

from agentvault_tui.clock import SystemClock
from agentvault_tui.console.app import ConsoleApp
from agentvault_tui.console.dialogs.base import Dialog
from agentvault_tui.console.dialogs.revoke import RevokeDialog
from agentvault_tui.console.dialogs.stepup import StepUpDialog
from agentvault_tui.console.screens.watch import Watch

NEEDS = "revoking, denying or taking away needs the role operator; victor is viewer"
WHY = f"Not for you: {NEEDS}."


@pytest.fixture(scope="module")
def vault() -> Iterator[Vault]:
    """A broker where victor, a viewer, has signed in, and an agent waits."""
    with (
        tempfile.TemporaryDirectory(prefix="h-") as folder,
        serving(Path(folder)) as vault,
    ):
        vault.register("payer", "send:payment").token("send:payment", PAYMENT)
        sign_in(vault, add(vault, "victor", "--role", "viewer"))
        yield vault


def add(vault: Vault, name: str, *options: str) -> dict[str, str]:
    argv = ("tenant", "user", "add", name, *options, "--json")
    return dict(json.loads(vault.cli(*argv).stdout))


def sign_in(vault: Vault, user: dict[str, str]) -> dict[str, Any]:
    started = vault.operator.post("/api/auth/login").json()
    vault.activate(started["device"], user)
    while (me := vault.operator.get("/api/auth/me").json())["pending"]:
        pass
    assert me["user"]["name"] == user["user"], me
    return dict(me)


async def until(done: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENT):
        while not done():  # noqa: ASYNC110 - seen from outside
            await asyncio.sleep(0.02)


@pytest.mark.slow
async def test_the_console_says_who_one_is_and_refuses_with_the_reason(
    vault: Vault, tmp_path: Path
) -> None:
    """Nothing is hidden: revoke, deny and approve each open, and each say why not."""
    app = console(Path(vault.ready["operator_socket"]), tmp_path, clock=SystemClock())
    async with app.run_test(size=(140, 40)) as pilot:
        await until(lambda: "victor (viewer)" in drawn(app))
        await pilot.press("r")
        await until(lambda: isinstance(app.screen, RevokeDialog))
        await until(lambda: WHY in unboxed(app))
        await until(lambda: armed(app))
        await pilot.press("y")
        await pilot.press("escape")
        await until(lambda: isinstance(app.screen, Watch))
        await pilot.press("s")
        await until(lambda: isinstance(app.screen, StepUpDialog))
        for key, word in (("d", "revoking, deny"), ("a", "approving needs the role")):
            while f"Not for you: {word}" not in unboxed(app):
                # News about the request arms it anew: a key may have come too early.
                await until(lambda: armed(app))
                await pilot.press(key)
    (agent,) = vault.operator.get("/api/agents").json()["agents"]
    assert agent["status"] == "active"
    (stepup,) = vault.operator.get("/api/agents/stepup").json()["stepups"]
    assert stepup["status"] == "pending"


def armed(app: ConsoleApp) -> bool:
    return isinstance(app.screen, Dialog) and app.screen.armed


def unboxed(app: ConsoleApp) -> str:
    return " ".join(drawn(app).replace("│", " ").split())


@pytest.mark.slow
def test_the_broker_refuses_whatever_a_face_lets_through(vault: Vault) -> None:
    """The decision is the broker's: the same by HTTP and by the command line."""
    answer = vault.operator.post("/api/agents/revoke", json={"all": True, "reason": ""})
    assert (answer.status_code, answer.json()["needed_role"]) == (403, "operator")
    done = vault.cli("agents", "revoke", "payer")
    assert done.returncode == 1
    assert NEEDS in done.stderr
    assert "agentvault login" in done.stderr
    assert vault.cli("agents", "list").returncode == 0


@pytest.mark.slow
def test_whoami_says_role_and_what_is_refused(vault: Vault) -> None:
    """The role, when it locks, and each refusal with its reason."""
    told = vault.cli("whoami").stdout
    for words in (
        "role       viewer",
        "unless something is decided",
        "may not     approving needs the role approver; victor is viewer",
    ):
        assert words in told, told


@pytest.mark.slow
def test_an_approver_in_the_same_seat_may(short: Path) -> None:
    """Signing in as someone else takes the viewer's place, and the cut is theirs."""
    with serving(short) as vault:
        vault.register("payer", "send:payment")
        sign_in(vault, add(vault, "victor", "--role", "viewer"))
        assert vault.cli("agents", "revoke", "payer").returncode == 1
        me = sign_in(vault, add(vault, "olga", "--approver"))
        assert (me["role"], me["refused"]) == ("approver", {})
        assert vault.cli("agents", "revoke", "payer").returncode == 0
        page = vault.operator.get("/api/audit?type=agent.revoked&before=9999")
        (event,) = page.json()["events"]
        assert event["actor"]["id"] == me["user"]["sub"]
        assert event["actor"]["name"] == "olga"
