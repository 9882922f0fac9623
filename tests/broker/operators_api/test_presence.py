"""Who else is here: a seat for each open stream, on a real broker's real socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import pwd
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from support.manual_clock import ManualClock
from support.vault import PAYMENT, Vault

from agentvault_tui.broker.authority import Standing
from agentvault_tui.broker.operators_api.presence import MOST, Presence, terminal_of
from agentvault_tui.errors import NotFoundError
from agentvault_tui.model import Actor, ActorKind
from agentvault_tui.operator_api.shapes import PresenceInfo

pytestmark = pytest.mark.slow

NAME = pwd.getpwuid(os.getuid()).pw_name
OLGA = Actor(ActorKind.OPERATOR, "uid:1000", "olga")
BOB = Actor(ActorKind.OPERATOR, "uid:1001", "bob")


class Stream:
    """One open stream of events."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self._lines = lines
        self.you = ""

    async def until(self, wanted: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Read on until a presence event that is *wanted*."""
        kind = ""
        async with asyncio.timeout(15):
            async for line in self._lines:
                if line.startswith("event: "):
                    kind = line.removeprefix("event: ")
                elif line.startswith("data: ") and kind == "presence":
                    data: dict[str, Any] = json.loads(line.removeprefix("data: "))
                    self.you = data.get("you") or self.you
                    if wanted(data):
                        return data
        raise AssertionError("the stream ended")


@contextlib.asynccontextmanager
async def streaming(vault: Vault, query: str = "?as=console") -> AsyncIterator[Stream]:
    transport = httpx.AsyncHTTPTransport(uds=vault.ready["operator_socket"])
    async with (
        httpx.AsyncClient(transport=transport, base_url="http://b") as client,
        client.stream("GET", f"/api/events{query}", timeout=20) as answer,
    ):
        assert answer.status_code == 200
        stream = Stream(answer.aiter_lines())
        await stream.until(lambda data: data.get("you"))
        yield stream


def here(data: dict[str, Any]) -> set[str]:
    return {each["id"] for each in data["operators"]}


async def look(vault: Vault, seat: str, stepup_id: str | None) -> httpx.Response:
    body = {"seat": seat, "looking_at": stepup_id}
    return await asyncio.to_thread(vault.operator.post, "/api/presence", json=body)


async def test_each_hears_of_the_other_and_of_leaving(vault: Vault) -> None:
    """A second console appears to the first at once, and is gone with its stream."""
    async with streaming(vault) as one:
        async with streaming(vault, "?as=plain") as two:
            both = await one.until(lambda data: two.you in here(data))
            (other,) = (o for o in both["operators"] if o["id"] == two.you)
            assert other["name"] == NAME
            assert other["uid"] == f"uid:{os.getuid()}"
            assert (other["face"], other["signed_in"]) == ("plain", False)
            assert other["looking_at"] is None
        await one.until(lambda data: two.you not in here(data))
        listed = await asyncio.to_thread(vault.operator.get, "/api/presence")
        assert here(listed.json()) == {one.you}


async def test_what_someone_looks_at_is_told_and_ends_with_the_stream(
    vault: Vault,
) -> None:
    """Opening a step-up, another, none: each is heard by everyone."""
    agent = vault.register("payer", "send:payment")
    asked = agent.token("send:payment", PAYMENT).json()["auth_req_id"]
    async with streaming(vault) as one, streaming(vault) as two:
        answer = await look(vault, two.you, asked)
        assert answer.status_code == 200

        def looks(data: dict[str, Any]) -> dict[str, Any]:
            return {each["id"]: each["looking_at"] for each in data["operators"]}

        await one.until(lambda data: looks(data).get(two.you) == asked)
        await look(vault, two.you, None)
        await one.until(lambda data: looks(data).get(two.you, "") is None)
    vault.operator.post("/api/agents/stepup", json={"id": asked, "decision": "deny"})


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"seat": "con_none", "looking_at": None}, 404),
        ({"seat": "con_none", "looking_at": "sup_none"}, 404),
        ({"seat": "x" * 65, "looking_at": None}, 400),
        ({"seat": 3}, 400),
        ({"seat": "con_none", "looking_at": 3}, 400),
        ({"looking_at": None}, 400),
        ({"seat": "con_none", "name": "root"}, 400),
    ],
)
def test_bad_words_are_refused(vault: Vault, body: object, status: int) -> None:
    """Only a seat of one's own, and only a step-up there is; no name is taken."""
    assert vault.operator.post("/api/presence", json=body).status_code == status
    assert vault.operator.get("/api/events?as=root").status_code == 400


async def test_an_old_console_is_seated_as_a_stream(vault: Vault) -> None:
    """Who does not say what it is still counts as somebody who listens."""
    async with streaming(vault) as one, streaming(vault, "") as old:
        data = await one.until(lambda data: old.you in here(data))
        faces = {each["id"]: each["face"] for each in data["operators"]}
        assert faces[old.you] == "stream"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's word is Linux's")
async def test_the_terminal_is_read_from_the_kernel(vault: Vault) -> None:
    """A console in a terminal is named by it, whatever its environment claims."""
    parent, child = pty.openpty()
    number = os.ttyname(child).removeprefix("/dev/")
    program = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        "s.sendall(b'GET /api/events?as=console HTTP/1.1\\r\\nHost: b\\r\\n\\r\\n');"
        "sys.stdin.read()"
    )
    line = [sys.executable, "-c", program, vault.ready["operator_socket"]]
    take = f"import fcntl, os, termios, sys; os.setsid(); fcntl.ioctl({child}, "
    take += "termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
    async with streaming(vault) as one:
        with subprocess.Popen(  # noqa: ASYNC220 - it takes a millisecond
            [sys.executable, "-c", take, *line],
            stdin=subprocess.PIPE,
            pass_fds=(child,),
            env={"SSH_TTY": "/dev/pts/999"},
        ):
            data = await one.until(lambda data: len(data["operators"]) == 2)
        terminals = [each["terminal"] for each in data["operators"]]
        assert terminals[1] == number
    os.close(parent)
    os.close(child)


@pytest.mark.parametrize(
    ("number", "name"),
    [(0, None), (34816, "pts/0"), (34816 + 255, "pts/255"), (1025, "tty1")],
)
def test_device_numbers_become_names(
    tmp_path: Path, number: int, name: str | None
) -> None:
    """As proc(5) encodes them; a process whose name tries to be fields does not."""
    folder = tmp_path / "42"
    folder.mkdir()
    (folder / "stat").write_text(f"42 (a) R 1 1) S 1 42 42 {number} -1 4194304")
    assert terminal_of(42, tmp_path) == name
    assert terminal_of(43, tmp_path) is None
    (folder / "stat").write_bytes(struct.pack("3i", 1, 2, 3))
    assert terminal_of(42, tmp_path) is None


class Told:
    """Collects what would be sent to all streams."""

    def __init__(self, clock: ManualClock) -> None:
        self.sent: list[PresenceInfo] = []
        self.sessions: dict[str, Any] = {}
        self.presence = Presence(
            clock,
            lambda _, data: self.sent.append(data()),
            lambda uid: Standing(self.sessions.get(uid), None, {}),
        )

    async def settle(self) -> None:
        before = len(self.sent)
        async with asyncio.timeout(30):
            while len(self.sent) == before:  # noqa: ASYNC110 - a timer, no event
                await asyncio.sleep(0.005)


async def test_many_changes_are_one_message(clock: ManualClock) -> None:
    """A flapping console costs everyone else one message in a while."""
    told = Told(clock)
    seat = told.presence.enter(OLGA, "console", None)
    assert seat is not None
    for number in range(50):
        told.presence.look(OLGA, seat.id, f"sup_{number}")
    await told.settle()
    assert len(told.sent) == 1
    assert told.sent[0].operators[0].looking_at == "sup_49"


async def test_one_user_cannot_fill_the_list(clock: ManualClock) -> None:
    """Beyond its seats a user's streams are counted, and others still fit."""
    told = Told(clock)
    seats = [told.presence.enter(OLGA, "stream", None) for _ in range(MOST + 3)]
    assert seats[MOST:] == [None] * 3
    assert told.presence.enter(BOB, "console", None) is not None
    here = told.presence.info()
    assert (len(here.operators), here.unlisted) == (MOST + 1, 3)
    for seat in seats:
        told.presence.leave(seat)
    here = told.presence.info()
    assert (len(here.operators), here.unlisted) == (1, 0)
    await told.settle()


async def test_nobody_speaks_from_another_users_seat(clock: ManualClock) -> None:
    """The seat is bound to the uid the kernel names."""
    told = Told(clock)
    seat = told.presence.enter(OLGA, "console", None)
    assert seat is not None
    with pytest.raises(NotFoundError):
        told.presence.look(BOB, seat.id, None)
    await told.settle()


async def test_the_name_is_the_one_signed_in_under(clock: ManualClock) -> None:
    """Signed in, the tenant's name stands there; signed out, the user's again."""
    told = Told(clock)
    told.presence.enter(OLGA, "console", None)
    olga = SimpleNamespace(name="Olga Petrova")
    told.sessions["uid:1000"] = SimpleNamespace(identity=olga)
    told.presence.changed()
    await told.settle()
    (seat,) = told.sent[-1].operators
    assert (seat.name, seat.signed_in) == ("Olga Petrova", True)
    told.sessions.clear()
    told.presence.changed()
    await told.settle()
    (seat,) = told.sent[-1].operators
    assert (seat.name, seat.signed_in) == ("olga", False)
