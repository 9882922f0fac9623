"""Take the README's pictures and its film from the console over the running demo.

Starts `agentvault demo --headless`, waits for its story to unfold, then drives the
console as an operator would and saves what it shows: ``make screenshots``.
"""

from __future__ import annotations

import asyncio
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, chdir
from pathlib import Path

import httpx
from film import Frame, film
from textual.pilot import Pilot

from agentvault_tui.clock import SystemClock
from agentvault_tui.console.app import build
from agentvault_tui.home import Home
from agentvault_tui.settings import Settings

FOLDER = Path(__file__).parent
AGENTVAULT = [sys.executable, "-P", "-m", "agentvault_tui.cli"]
ARMED = 0.7
"""Seconds after which a dialog's decision keys count."""
LOG = 12
"""Seconds after which the tenant's log has been read once more."""


def unfolded(home: Home) -> bool:
    """Tell whether two step-ups wait, and three accounts are connected."""
    transport = httpx.HTTPTransport(uds=str(home.socket))
    with httpx.Client(transport=transport, base_url="http://broker") as client:
        try:
            waiting = client.get("/api/status").json()["stepups_pending"]
            accounts = client.get("/api/connections").json()["connections"]
        except httpx.HTTPError:
            return False
    return waiting >= 2 and len(accounts) >= 3


def head(home: Home) -> int:
    """Return the number of the last event."""
    transport = httpx.HTTPTransport(uds=str(home.socket))
    with httpx.Client(transport=transport, base_url="http://broker") as client:
        return int(client.get("/api/status").json()["ledger"]["head"])


def confirmed(home: Home, name: str) -> bool:
    """Tell whether nothing of the agent's revocation is pending any more."""
    transport = httpx.HTTPTransport(uds=str(home.socket))
    with httpx.Client(transport=transport, base_url="http://broker") as client:
        agents = client.get("/api/agents").json()["agents"]
        agent = next(agent for agent in agents if agent["name"] == name)
        steps = client.get(f"/api/agents/{agent['id']}").json()["upstream"]
    return bool(steps) and all(step["status"] != "pending" for step in steps)


async def until(done: Callable[[], bool], seconds: float = 60.0) -> None:
    """Look twice a second until *done*."""
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(done):
            await asyncio.sleep(0.5)


@asynccontextmanager
async def demo(folder: Path) -> AsyncIterator[Home]:
    """Run the demo without a console for as long as it is needed."""
    line = [*AGENTVAULT, "--home", str(folder), "demo", "--headless", "--for", "400"]
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL)
    try:
        home = Home.locate(folder)
        await until(lambda: unfolded(home), 180)  # a busy machine is slow to start
        yield home
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)


@asynccontextmanager
async def console(home: Home, size: tuple[int, int]) -> AsyncIterator[Pilot[int]]:
    """Run the console in a terminal of *size* cells."""
    app = build(
        home.socket,
        read_only=False,
        settings=Settings(),
        clock=SystemClock(),
        environ={"TERM": "xterm-256color", "COLORTERM": "truecolor", "LANG": "C.UTF-8"},
        memory_folder=home.data / "console",
        known_to=await asyncio.to_thread(head, home),  # the demo's own set-up
    )
    app.desk.activate = "agentvault tenant activate"  # as for the usual home
    async with app.run_test(size=size) as pilot:
        await asyncio.sleep(4)  # a few seconds of the feed make the picture
        yield pilot


async def picture(pilot: Pilot[int]) -> str:
    """Return what the console shows now, as SVG."""
    await pilot.pause()
    return at_home(pilot.app.export_screenshot(title="AgentVault"), Path.cwd())


def at_home(svg: str, folder: Path) -> str:
    """Write *folder* as a home, as a shell does; what is drawn stays as wide."""
    return re.sub(
        rf"{re.escape(str(folder))}((?:/[\w.-]+)?)",
        lambda found: f"~{found[1]}".ljust(len(found[0]), "\u00a0"),
        svg,
    )


def save(name: str, svg: str) -> None:
    """Write one picture beside this program.

    Raises:
        ValueError: a place of this machine is in it.
    """
    for place in (tempfile.gettempdir(), Path.home(), FOLDER.parent, platform.node()):
        if re.search(rf"(?<![\w/]){re.escape(str(place))}\b", svg):
            raise ValueError(f"{place} is in the picture {name}")
    (FOLDER / f"{name}.svg").write_text(svg)
    print(f"screenshots/{name}.svg")


async def take(pilot: Pilot[int], name: str) -> None:
    """Save what the console shows now."""
    save(name, await picture(pilot))


async def press(pilot: Pilot[int], *keys: str) -> None:
    """Press keys one after the other, each once the dialog before it counts."""
    for key in keys:
        await pilot.press(key)
        await asyncio.sleep(ARMED)


async def decide(home: Home) -> None:
    """Approve, look at the stages, cut an agent off."""
    async with console(home, (120, 40)) as pilot:
        await take(pilot, "watch-120x40")
        await press(pilot, "s", "enter")
        await take(pilot, "stepup-asked")
        await press(pilot, "a")
        await asyncio.sleep(2)
        await take(pilot, "stepup-second-factor")
        approve = [str(home.data / "demo" / "approve"), "--yes"]
        await asyncio.to_thread(subprocess.run, approve, check=True)
        await asyncio.sleep(5)
        await take(pilot, "stepup-decided")
        await press(pilot, "escape", "escape", "colon", *"calendar", "enter", "r")
        await take(pilot, "revoke")
        await press(pilot, "y")
        await until(lambda: confirmed(home, "calendar-agent"))
        await asyncio.sleep(1)
        await take(pilot, "revoked")
        await asyncio.sleep(LOG)
        await press(pilot, "escape", "enter")
        await asyncio.sleep(2)
        await take(pilot, "agent-revoked")
        await press(pilot, "escape", "L", "slash", *"type:tenant", "enter")
        await asyncio.sleep(2)
        await take(pilot, "tenant-log")
        await press(pilot, "escape", "escape", "question_mark")
        await take(pilot, "keys")
        await press(pilot, "escape", "t", *["left_square_bracket"] * 12)
        await asyncio.sleep(1)
        await take(pilot, "past")


INCIDENT = (
    ("", "a payment and a mail to 500 people wait for someone", 5.0),
    ("s j enter", "the mail: what is certain first, the agent's own words last", 5.0),
    ("d", "denied; the agent is told", 3.0),
    ("escape escape colon e m a i l", "everything by name: find the agent", 3.0),
    ("enter enter", "all there is to know of it", 4.0),
    ("r", "what revoking cuts, and what it cannot undo", 4.5),
    ("y", "closed here at once; the tenant follows, step by step", 5.0),
    ("escape L", "its audit; every link on screen is computed again here", 4.5),
    ("e enter", "the evidence, in a file that only you can read", 4.5),
)
"""Keys, what is said about them, and how long that stands."""
_SHOWN = {"escape": "Esc", "enter": "Enter", "colon": ":"}


async def play(home: Home) -> None:
    """Go through a whole incident, and save it as a film."""
    frames: list[Frame] = []
    async with console(home, (110, 32)) as pilot:
        for keys, said, seconds in INCIDENT:
            await press(pilot, *keys.split())
            await asyncio.sleep(6 if keys == "y" else 1)
            shown = " ".join(_SHOWN.get(key, key) for key in keys.split())
            caption = f"{shown}  -  {said}" if shown else said
            frames.append(Frame(await picture(pilot), caption, seconds))
    save("incident", film(frames))


async def main() -> None:
    """Take every picture."""
    with tempfile.TemporaryDirectory(prefix="av") as folder:
        async with demo(Path(folder)) as home:
            for width, height in ((80, 24), (200, 60)):
                async with console(home, (width, height)) as pilot:
                    await take(pilot, f"watch-{width}x{height}")
            await decide(home)
    with tempfile.TemporaryDirectory(prefix="av") as folder, chdir(folder):
        async with demo(Path(folder)) as home:
            await play(home)


if __name__ == "__main__":
    asyncio.run(main())
