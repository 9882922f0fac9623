"""The decorator for agents' functions: asks first, runs after a yes alone."""

from __future__ import annotations

import asyncio
import enum
import inspect
import subprocess
import sys
import typing
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.agents_http import Caller, Live, live_broker
from support.bench import OPERATOR, Bench
from support.manual_clock import ManualClock

from agentvault_tui.agent import RefusalError, Vault, guard
from agentvault_tui.broker.usecases.stepup import begin_approval
from agentvault_tui.broker.usecases.stepup_end import deny
from agentvault_tui.home import Home
from agentvault_tui.model import StepUpStatus

Say = Callable[..., Any]


@pytest.fixture
async def live(short: Path) -> AsyncIterator[Live]:
    clock = ManualClock(datetime(2026, 11, 24, tzinfo=UTC))
    bench = await Bench.open(Home.locate(short / "home"), clock)
    async with live_broker(bench) as live:
        yield live
    await bench.close()


@pytest.fixture
async def caller(live: Live) -> Caller:
    return await live.caller("tooled", "send:payment", "read:files", "send:email")


@pytest.fixture
def vault(live: Live, caller: Caller) -> Vault:
    return Vault(live.url, caller.agent.client_id, caller.secret)


async def test_a_function_runs_after_a_yes(
    live: Live, caller: Caller, vault: Vault
) -> None:
    """Its arguments are the action's parameters, defaults among them."""

    @guard("read:files", resource="file:{path}", reason="to sum up", vault=vault)
    def read(path: str, most: int = 10) -> str:
        """Read a file."""
        return f"{path} {most}"

    assert await asyncio.to_thread(read, "/srv/a") == "/srv/a 10"
    (event,) = await live.bench.events("access.decision")
    assert (event.action, event.resource) == ("read:files", "file:/srv/a")
    assert event.detail["parameters"] == {"path": "/srv/a", "most": 10}
    assert event.detail["agent_says"] == "to sum up"


class Row(str, enum.Enum):  # noqa: UP042 - StrEnum writes its value
    SECRET = "secret1"


class Masked(int):
    def __str__(self) -> str:
        return "7"

    __format__ = __repr__ = lambda *_: "7"  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("value", "named"), [(Row.SECRET, "secret1"), (Masked(42), "42"), ("a", "a")]
)
async def test_a_resource_names_an_argument_as_its_json_form_does(
    live: Live, vault: Vault, value: object, named: str
) -> None:
    """A rule on the resource then sees the value that the function works with."""

    @guard("read:files", resource="file:{path}", vault=vault)
    def read(path: object) -> None:
        """Read a file."""

    await asyncio.to_thread(read, value)
    (event,) = await live.bench.events("access.decision")
    assert event.resource == f"file:{named}"


@pytest.mark.parametrize("value", [True, None, 1.5, ["a"], {"a": 1}])
async def test_a_resource_names_no_argument_of_another_type(
    live: Live, vault: Vault, value: object
) -> None:
    """Its text would be one that programs write in different ways."""

    @guard("read:files", resource="file:{path}", vault=vault)
    def read(path: object) -> None:
        """Read a file."""

    with pytest.raises(TypeError, match="no string or whole number"):
        await asyncio.to_thread(read, value)
    assert await live.bench.events("access.decision") == []


@pytest.mark.parametrize(
    "value",
    [
        *(object(), Decimal(5), datetime(2026, 1, 1, tzinfo=UTC), b"x", {1, 2}),
        *(float("nan"), float("inf"), {1: "a"}, {"a": [object()]}, Path("/a")),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_an_argument_without_a_json_form_is_an_error_before_it_asks(
    live: Live, vault: Vault, value: object
) -> None:
    """It would be under no approval; `on_refusal` does not make a result of it."""
    ran = []

    @guard("read:files", vault=vault, on_refusal=str)
    def read(given: object) -> None:
        ran.append(given)

    @guard("read:files", vault=vault, on_refusal=str)
    async def read_later(given: object) -> None:
        ran.append(given)

    with pytest.raises(TypeError, match=r"'given'.*describe="):
        await asyncio.to_thread(read, value)
    with pytest.raises(TypeError, match="given"):
        await read_later(value)
    assert ran == []
    assert not await live.bench.events("access.decision")


async def test_describe_states_an_argument(live: Live, vault: Vault) -> None:
    """In the parameters and in the resource; the function gets it as it was."""

    @guard(
        "read:files",
        resource="file:{path}",
        describe={"path": str, "factor": str, "client": lambda _: "the client"},
        vault=vault,
    )
    def read(path: Path, factor: Decimal, client: object) -> object:
        return path, factor, client

    client = object()
    given = (Path("/srv/a"), Decimal("1.50"), client)
    assert await asyncio.to_thread(read, *given) == given
    (event,) = await live.bench.events("access.decision")
    assert event.resource == "file:/srv/a"
    assert event.detail["parameters"] == {
        "path": "/srv/a",
        "factor": "1.50",
        "client": "the client",
    }
    with pytest.raises(TypeError, match="factor"):
        guard("read:files", describe={"factor": lambda one: one}, vault=vault)(
            lambda factor: factor
        )(Decimal(1))
    with pytest.raises(ValueError, match="'fcator'"):
        guard("read:files", describe={"fcator": str})(lambda factor: factor)


async def test_a_coroutine_function_stays_one(live: Live, vault: Vault) -> None:
    """Asked in a thread: the event loop goes on."""

    @guard("read:files", vault=vault)
    async def read(path: str) -> str:
        return path

    assert inspect.iscoroutinefunction(read)
    assert await read("x") == "x"
    (event,) = await live.bench.events("access.decision")
    assert event.resource.endswith("read")  # type: ignore[union-attr]


def test_the_signature_is_that_of_the_function() -> None:
    """Frameworks read names, types and the docstring from it."""

    def send(to: str, body: str = "") -> str:
        """Send a message."""
        return to + body

    guarded = guard("send:email")(send)
    assert inspect.signature(guarded) == inspect.signature(send)
    assert typing.get_type_hints(guarded) == typing.get_type_hints(send)
    assert (guarded.__name__, guarded.__doc__) == ("send", "Send a message.")


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_no_leaves_the_function_alone(
    live: Live, vault: Vault, kind: str
) -> None:
    """The error has reason and message; on_refusal makes the result of it."""
    ran = []

    def delete(path: str) -> None:
        ran.append(path)

    async def delete_later(path: str) -> None:
        ran.append(path)

    async def call(**more: Any) -> Any:
        if kind == "sync":
            plain = guard("delete:files", vault=vault, **more)(delete)
            return await asyncio.to_thread(plain, "a")
        return await guard("delete:files", vault=vault, **more)(delete_later)("a")

    with pytest.raises(RefusalError, match="delete:files") as caught:
        await call()
    assert caught.value.reason == "scope_not_granted"
    (event,) = await live.bench.events("access.decision")
    assert caught.value.decision_id == event.decision_id
    assert "delete:files" in await call(on_refusal=str)
    assert ran == []


def paying(vault: Vault, ran: list[int], wait: float) -> Say:
    @guard("send:payment", resource="stripe:{to}", vault=vault, wait=wait)
    async def pay(to: str, amount: int, currency: str) -> int:
        ran.append(amount)
        return amount

    return pay


async def test_a_held_call_waits_for_the_person(live: Live, vault: Vault) -> None:
    """Approved it runs, once; denied it does not."""
    ran: list[int] = []
    pay, bench = paying(vault, ran, 60), live.bench
    stepups = bench.broker.stepups
    asked = asyncio.create_task(pay("acct_1", 4200, "USD"))
    await bench.until(lambda: bool(stepups.open()))
    stepup = stepups.open()[0]
    assert stepup.parameters == {"to": "acct_1", "amount": 4200, "currency": "USD"}
    await begin_approval(bench.broker, stepup.id, stepup.digest, OPERATOR)
    bench.tenant.approve()
    assert await asked == 4200
    asked = asyncio.create_task(pay("acct_1", 4200, "USD"))
    await bench.until(lambda: bool(stepups.open()))
    await deny(bench.broker, stepups.open()[0].id, "no", OPERATOR)
    with pytest.raises(RefusalError) as caught:
        await asked
    assert caught.value.reason == "stepup_denied"
    assert ran == [4200]


async def test_without_waiting_the_step_up_is_named(live: Live, vault: Vault) -> None:
    """Approved later, the same call runs once."""
    ran: list[int] = []
    pay = paying(vault, ran, 0)
    with pytest.raises(RefusalError) as caught:
        await pay("acct_1", 1, "USD")
    assert caught.value.reason == "stepup_required"
    assert caught.value.auth_req_id is not None
    await live.approve(caught.value.auth_req_id)
    with pytest.raises(RefusalError):
        await pay("acct_1", 2, "USD")
    assert await pay("acct_1", 1, "USD") == 1
    with pytest.raises(RefusalError):
        await pay("acct_1", 1, "USD")
    assert ran == [1]


async def approve_waiting(bench: Bench) -> None:
    stepup = bench.broker.stepups.open()[0]
    await begin_approval(bench.broker, stepup.id, stepup.digest, OPERATOR)
    bench.tenant.approve()


async def test_the_function_gets_the_arguments_that_were_approved(
    live: Live, vault: Vault
) -> None:
    """What its caller changes while a person decides, or later, is not sent."""
    ran: list[object] = []
    stepups = live.bench.broker.stepups

    @guard("send:payment", resource="stripe:x", vault=vault)
    async def pay(order: dict[str, Any], *more: list[int]) -> None:
        await asyncio.sleep(0)
        ran.append((order, *more))

    order, more = {"to": ["acct_1"], "amount": 1}, [1]
    asked = asyncio.create_task(pay(order, more))
    await live.bench.until(lambda: bool(stepups.open()))
    order["amount"] = 9_999
    order["to"].append("acct_2")
    more.append(2)
    await approve_waiting(live.bench)
    await asked
    assert ran == [({"to": ["acct_1"], "amount": 1}, [1])]


@pytest.mark.parametrize("later", [False, True])
async def test_a_described_argument_that_changes_meanwhile_is_a_no(
    live: Live, vault: Vault, later: bool
) -> None:
    """It cannot be copied, so it is stated again after the yes."""
    ran: list[object] = []
    stepups = live.bench.broker.stepups
    options = {"resource": "stripe:x", "describe": {"order": vars}, "vault": vault}

    @guard("send:payment", **options)
    def pay(order: object) -> None:
        ran.append(order)

    @guard("send:payment", **options)
    async def pay_later(order: object) -> None:
        ran.append(order)

    order = SimpleNamespace(to=["acct_1"])
    asked = asyncio.create_task(
        pay_later(order) if later else asyncio.to_thread(pay, order)
    )
    await live.bench.until(lambda: bool(stepups.open()))
    order.to.append("acct_2")
    await approve_waiting(live.bench)
    with pytest.raises(RefusalError) as caught:
        await asked
    assert caught.value.reason == "arguments_changed"
    assert ran == []


async def test_a_cancelled_call_spends_no_approval(live: Live, vault: Vault) -> None:
    """A framework that gives the call up leaves the approval for another."""
    ran: list[int] = []
    pay, bench = paying(vault, ran, 60), live.bench
    stepups = bench.broker.stepups
    asked = asyncio.create_task(pay("acct_1", 7, "USD"))
    await bench.until(lambda: bool(stepups.open()))
    stepup = stepups.open()[0]
    await bench.until(lambda: stepup.id in stepups.awaited)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    await bench.until(lambda: stepup.id not in stepups.awaited)
    await live.approve(stepup.id)
    assert stepups.get(stepup.id).status is StepUpStatus.APPROVED
    assert await pay("acct_1", 7, "USD") == 7
    assert ran == [7]


async def test_a_token_file_is_read_at_each_call(
    caller: Caller, live: Live, tmp_path: Path
) -> None:
    """It may be rewritten while the agent runs, as `agentvault run` does."""
    file = tmp_path / "token"
    vault = Vault(live.url, token_file=str(file))

    @guard("read:files", vault=vault)
    async def read() -> int:
        return 1

    with pytest.raises(RefusalError) as caught:
        await read()
    assert caught.value.reason == "undecided"
    file.write_text((await caller.token("read:files")).json()["access_token"] + "\n")
    assert await read() == 1


async def test_the_environment_names_the_broker(
    caller: Caller, live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """URL, client id and a file with the secret; none of them is one."""

    @guard("read:files")
    async def read() -> int:
        return 1

    (tmp_path / "secret").write_text(caller.secret)
    monkeypatch.setenv("AGENTVAULT_URL", live.url)
    monkeypatch.setenv("AGENTVAULT_CLIENT_ID", caller.agent.client_id)
    monkeypatch.setenv("AGENTVAULT_CLIENT_SECRET_FILE", str(tmp_path / "secret"))
    assert await read() == 1
    monkeypatch.setenv("AGENTVAULT_CLIENT_SECRET_FILE", str(tmp_path / "none"))
    with pytest.raises(RefusalError, match="FileNotFoundError"):
        await read()


@pytest.mark.parametrize("what", ["closed", "secret", "silent", "rubbish", "redirect"])
async def test_nobody_who_decides_is_a_no(
    live: Live, vault: Vault, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No broker, a wrong secret, and answers that are none run nothing."""
    answers = {
        "silent": b"",
        "rubbish": b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ntrue",
        "redirect": b"HTTP/1.1 302 X\r\nlocation: /\r\ncontent-length: 0\r\n\r\n",
    }
    if what == "closed":
        vault = replace(vault, url="http://127.0.0.1:1")
    elif what == "secret":
        vault = replace(vault, client_secret="wrong")

    async def answer(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readuntil(b"}}")
        writer.write(answers[what])
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        if what in answers:
            port = server.sockets[0].getsockname()[1]
            vault = replace(vault, url=f"http://127.0.0.1:{port}")
        ran: list[int] = []
        with pytest.raises(RefusalError) as caught:
            await paying(vault, ran, 0)("acct", 1, "USD")
        assert caught.value.reason == "undecided"
        assert ran == []


async def test_long_arguments_are_under_the_approval_by_their_digest(
    live: Live, vault: Vault
) -> None:
    """The broker bounds texts; two long ones that differ are two actions."""

    @guard("read:files", vault=vault)
    async def read(text: str) -> int:
        return len(text)

    assert await read("x" * 100_000) == 100_000
    await read("y" * 100_000)
    first, second = await live.bench.events("access.decision")
    told = first.detail["parameters"]["text"]
    assert told["length"] == 100_002
    assert told != second.detail["parameters"]["text"]


async def test_parameters_can_be_said_for_policy(live: Live, vault: Vault) -> None:
    """Beside the arguments, which they may replace."""

    def reach(to: list[str]) -> dict[str, object]:
        return {"recipients": len(to), "to": sorted(to)}

    @guard("send:email", resource="mail:list", parameters=reach, vault=vault)
    async def send(to: list[str]) -> int:
        return len(to)

    assert await send(["b@x.test", "a@x.test"]) == 2
    (event,) = await live.bench.events("access.decision")
    assert event.detail["parameters"] == {
        "recipients": 2,
        "to": ["a@x.test", "b@x.test"],
    }


def test_what_cannot_be_guarded_is_told_when_it_is_decorated() -> None:
    """Generators, a resource without a type, a placeholder of no argument."""

    def numbers() -> Any:
        yield 1

    with pytest.raises(TypeError, match="generator"):
        guard("read:files")(numbers)
    with pytest.raises(ValueError, match="type:id"):
        guard("read:files", resource="file")
    with pytest.raises(ValueError, match="path"):
        guard("read:files", resource="file:{path}")(len)


def test_a_secret_is_in_no_repr() -> None:
    """A traceback with local variables shows none."""
    assert "hush" not in repr(Vault("http://x", "id", "hush"))


@pytest.mark.slow
def test_it_needs_the_standard_library_alone() -> None:
    """It stands in an agent's own environment, beside any framework."""
    code = (
        "import sys; sys.path.insert(0, '.'); import agentvault_tui.agent;"
        "print([m for m in sys.modules if m.split('.')[0] not in"
        " sys.stdlib_module_names and not m.startswith(('agentvault_tui', '__'))])"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent,
    )
    assert done.stdout.strip() in {"[]", "['httpx._main']"}
