"""Runs the demo: broker, approver and agents, then the console or a summary."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import shlex
import shutil
import signal
import sys
import tempfile
import textwrap
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

from agentvault_tui.clock import SystemClock
from agentvault_tui.demo import approver, people, processes
from agentvault_tui.demo.company import (
    Company,
    open_company,
    open_workspace,
    put_behind_the_gateway,
    register,
    set_shadow_policy,
    write_limits_and_sinks,
)
from agentvault_tui.demo.operator import Operator, Record
from agentvault_tui.errors import UsageError
from agentvault_tui.qr import draw

_OUTCOMES: Final = ("allowed", "denied", "escalated")
_SEED: Final = 42
_SETTLED: Final = 2.0
"""Seconds after which accounts are connected where no console opens."""
_BESIDE: Final = 37
"""Cells for words next to the QR code: both fit on a terminal of 80 x 24."""


def run(
    *,
    home: str | None = None,
    agents: int = 6,
    rate: float = 5.0,
    headless: bool = False,
    seconds: float | None = None,
    link: str | None = None,
) -> int:
    """Run the demo until its console closes, its time is up, or a signal comes.

    Args:
        home: a permanent home; by default a temporary one, removed at the end.
        agents: how many; the first six play the story.
        rate: ordinary decisions a second that all agents together aim at.
        headless: without a console; prints the ledger's content as JSON at the end.
        seconds: how long; by default until something ends it.
        link: the console's ``--link``, if it was given.

    Returns:
        an exit code.

    Raises:
        AgentVaultError: a part did not start, or the agents' answers differ from the
            ledger.
    """
    if not 1 <= agents <= 1000:
        raise UsageError(f"--agents is {agents}", "it may be 1 to 1000")
    if not 0 < rate <= 10_000:
        raise UsageError(f"--rate is {rate:g}", "above 0, at most 10000")
    if seconds is not None and not 0 < seconds < math.inf:
        raise UsageError(f"--for is {seconds:g}", "a number above 0")
    if not headless and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "there is no terminal for the console", "add --headless --for SECONDS"
        )
    with _home(home) as folder:
        console = partial(processes.console, folder, link, passing=not home)
        opens = None if headless else console
        code, summary = asyncio.run(_play(folder, agents, rate, seconds, opens))
    text = json.dumps(summary) if headless else _ending(summary, with_home=bool(home))
    print(text)  # noqa: T201 - the command's output
    return code


@contextlib.contextmanager
def _home(named: str | None) -> Iterator[Path]:
    """Yield the named home, or a temporary one."""
    try:
        folder = (
            Path(named).expanduser().absolute()
            if named
            else Path(tempfile.mkdtemp(prefix="av-demo-"))
        )
        for path in (*reversed(folder.parents), folder, folder / "demo"):
            if not path.exists():
                path.mkdir()
                path.chmod(0o700)
    except OSError as error:
        raise UsageError(
            f"cannot use the folder {error.filename} ({error.strerror})", "name another"
        ) from error
    try:
        yield folder
    finally:
        if not named:
            shutil.rmtree(folder, ignore_errors=True)


_Opens = Callable[[int], Awaitable[asyncio.subprocess.Process]]
"""Opens the console; the demo's own set-up ends with that event."""


async def _play(
    home: Path, agents: int, rate: float, seconds: float | None, opens: _Opens | None
) -> tuple[int, dict[str, Any]]:
    """Run it; return the exit code, and the ledger's content at the end."""
    clock, ending = SystemClock(), asyncio.Event()
    write_limits_and_sinks(home)
    if opens:
        print("starting workspace, tenant and broker", flush=True)  # noqa: T201 - its face
    elif seconds is None:
        line = "running until ctrl+c; counts follow"
        print(line, file=sys.stderr, flush=True)  # noqa: T201 - its face
    with _signals(ending):
        async with (
            open_workspace() as place,
            processes.serving(people.prepare(home, place.url)) as ready,
            Operator(ready.socket) as operator,
        ):
            if opens:
                line = f"registering {agents} agents and an approver"
                print(line, flush=True)  # noqa: T201 - the command's output
            clients, person, *_ = await asyncio.gather(
                register(home, operator, agents),
                approver.prepare(home),
                put_behind_the_gateway(home, place.url),
                set_shadow_policy(home),
            )
            before = await operator.head()
            async with open_company(
                home, ready, place, clients, operator, seed=_SEED
            ) as company:
                started = clock.boot()
                async with asyncio.TaskGroup() as setting_up:
                    connecting = setting_up.create_task(
                        company.connect(0.0 if opens else _SETTLED)
                    )
                    if opens:
                        await _welcome(home, person, ready.agents_url, ending)
                        await connecting  # no header is to announce our own set-up
                    code = await _work(company, rate, seconds, opens, ending)
            for problem in company.problems:
                print(f"agentvault: {problem}", file=sys.stderr)  # noqa: T201 - its face
            took = round(clock.boot() - started, 1)
            company.compare(await operator.record(before))
            record, names = await operator.record(), await operator.names()
        chain = await processes.ask(home, "audit", "verify")
    held = {name: chain[name] for name in ("events", "head")}
    summary = _summary(record, names)
    return code, {"home": str(home), "seconds": took, **held, **summary}


@contextlib.contextmanager
def _signals(ending: asyncio.Event) -> Iterator[None]:
    """Set *ending* on SIGINT, SIGTERM and SIGHUP."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, ending.set)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def _work(
    company: Company,
    rate: float,
    seconds: float | None,
    opens: _Opens | None,
    ending: asyncio.Event,
) -> int:
    """Let the agents work until the console closes or it is time; then let them finish.

    Returns:
        the console's exit code if it closed by itself, else 0.
    """
    if opens and ending.is_set():
        return 0
    async with asyncio.TaskGroup() as whole:
        whole.create_task(company.work(rate))
        console = await opens(await company.operator.head()) if opens else None
        ended = asyncio.create_task(ending.wait())
        closed = asyncio.create_task(console.wait()) if console else None
        waits = {ended, closed} if closed else {ended}
        await asyncio.wait(waits, timeout=seconds, return_when="FIRST_COMPLETED")
        ended.cancel()
        code = closed.result() if closed and closed.done() else 0
        if console:
            await processes.stop(console)
        company.stopping.set()
    return code


def _instructions(home: Path, person: approver.Approver, url: str) -> list[str]:
    """Return how to approve, in lines that fit next to the QR code."""
    prose = [
        f"Example agents ask at {url}",
        f"Home {home}",
        "",
        (
            "The console opens next. When something waits: s, Enter if several do, "
            "then a; a code appears. Approving takes a password and a one-time code, "
            "either way:"
        ),
        "",
        (
            "With an authenticator app: scan this, open the console's link in a "
            f"browser on this machine, sign in as {approver.NAME}. The password is in"
        ),
        str(person.password_file),
        "",
        "Without: in a second terminal run",
        str(person.script),
    ]
    wrap = partial(
        textwrap.wrap, width=_BESIDE, break_long_words=False, break_on_hyphens=False
    )
    return [line for text in prose for line in wrap(text) or [""]]


async def _welcome(
    home: Path, person: approver.Approver, url: str, ending: asyncio.Event
) -> None:
    """Print how to approve; wait for Enter."""
    columns, height = shutil.get_terminal_size()
    lines = _instructions(home, person, url)
    room = columns - _BESIDE - 2
    code = draw(person.otpauth_uri, room, height - 2, ascii_only=False)
    if code is not None and max(map(len, lines)) <= _BESIDE:
        rows = zip_longest(lines, code.lines(), fillvalue="")
        lines = [f"{line:{_BESIDE + 2}}{modules}".rstrip() for line, modules in rows]
    elif code := draw(person.otpauth_uri, columns, None, ascii_only=False):
        # On a low terminal the picture scrolls away, and the words must not.
        lines = [*code.lines(), *lines]
    print("\n".join(lines), end="\n\n")  # noqa: T201 - the command's output
    print("Press Enter to open the console", flush=True)  # noqa: T201 - same
    loop = asyncio.get_running_loop()
    entered = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), entered.set)
    waits = [asyncio.create_task(event.wait()) for event in (entered, ending)]
    await asyncio.wait(waits, return_when="FIRST_COMPLETED")
    loop.remove_reader(sys.stdin.fileno())
    for wait in waits:
        wait.cancel()
    if entered.is_set():
        sys.stdin.readline()
        print("opening the console", flush=True)  # noqa: T201 - the command's output


def _ending(summary: dict[str, Any], *, with_home: bool) -> str:
    """Word the result, and the command to type next."""
    totals, home = summary["totals"], shlex.quote(summary["home"])
    counts = ", ".join(f"{totals[name]:,} {name}" for name in _OUTCOMES)
    start = f"agentvault --home {home} serve" if with_home else "agentvault serve"
    requests, agents = sum(totals.values()), len(summary["agents"])
    took = f"{summary['seconds']:.0f} s"
    return (
        f"{requests:,} requests of {agents} agents in {took}: {counts}."
        f"\nEach is in the ledger, whose {summary['events']:,} events verify."
        f"\nThe demo's home is {home if with_home else 'removed'}."
        f"\nNext, for an agent of your own: {start}"
    )


def _summary(record: Record, names: dict[str, str]) -> dict[str, object]:
    """Return the ledger's counts by agent name and in all."""
    agents = {
        name: {outcome: held.get(outcome, 0) for outcome in _OUTCOMES}
        for agent_id, name in names.items()
        if (held := record.outcomes.get(agent_id))
    }
    totals = {
        outcome: sum(row[outcome] for row in agents.values()) for outcome in _OUTCOMES
    }
    return {"agents": agents, "totals": totals}
