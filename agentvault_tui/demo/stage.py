"""Runs the whole demo: home, broker, approver, agents, then console or summary."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import shutil
import signal
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Final

from agentvault_tui.clock import Clock, SystemClock
from agentvault_tui.demo import approver, people, processes
from agentvault_tui.demo.company import Company, open_company, register
from agentvault_tui.demo.operator import Operator, Record
from agentvault_tui.errors import UsageError
from agentvault_tui.qr import QrCode, draw

_OUTCOMES: Final = ("allowed", "denied", "escalated")
_SEED: Final = 42
_BESIDE: Final = 37
"""Cells for words beside the QR code: both fit on a terminal of 80 x 24."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the person asked for."""

    home: str | None = None
    agents: int = 6
    rate: float = 5.0
    headless: bool = False
    seconds: float | None = None
    link: str | None = None

    def check(self) -> None:
        """Refuse what makes no sense.

        Raises:
            UsageError: says which option, and its bounds.
        """
        if not 1 <= self.agents <= 1000:
            raise UsageError(f"--agents is {self.agents}", "it may be 1 to 1000")
        if not 0 < self.rate <= 10_000:
            raise UsageError(f"--rate is {self.rate:g}", "above 0, at most 10000")
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise UsageError(f"--for is {self.seconds:g}", "a number above 0")
        if not self.headless and not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise UsageError(
                "there is no terminal for the console", "add --headless --for SECONDS"
            )


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
        home: a home to use and keep; by default a temporary one, removed at the end.
        agents: how many; the first six play the story.
        rate: ordinary decisions a second that all agents together aim at.
        headless: without a console; prints what the ledger holds as JSON at the end.
        seconds: how long; by default until something ends it.
        link: the console's ``--link``, if it was given.

    Returns:
        an exit code.

    Raises:
        AgentVaultError: something did not start, or what the agents saw is not what
            the ledger holds.
    """
    plan = DemoOptions(home, agents, rate, headless, seconds, link)
    plan.check()
    with _home(home) as folder:
        return asyncio.run(_play(plan, folder, SystemClock()))


@contextlib.contextmanager
def _home(named: str | None) -> Iterator[Path]:
    """Yield the named home, or a temporary one that is gone afterwards."""
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


async def _play(plan: DemoOptions, home: Path, clock: Clock) -> int:
    ending = asyncio.Event()
    people.prepare(home)
    if not plan.headless:
        print(  # noqa: T201 - the command's output
            f"starting tenant, broker, workspace and {plan.agents} agents", flush=True
        )
    with _signals(ending):
        async with processes.serving(home) as ready, Operator(ready.socket) as operator:
            clients = await register(home, operator, plan.agents)
            person = await approver.prepare(home)
            before = await operator.head()
            async with open_company(
                home, ready, clients, operator, seed=_SEED
            ) as company:
                started = clock.boot()
                if plan.headless:
                    code = await _until_over(plan, company, ending)
                else:
                    await _welcome(home, person, ready.agents_url, ending)
                    code = await _with_console(plan, company, home, ending)
            for problem in company.problems:
                print(f"agentvault: {problem}", file=sys.stderr)  # noqa: T201 - its face
            seconds = round(clock.boot() - started, 1)
            company.compare(await operator.record(before))
            record, names = await operator.record(), await operator.names()
        if plan.headless:
            summary = _summary(record, names)
            chain = await processes.ask(home, "audit", "verify")
            print(  # noqa: T201 - the command's output
                json.dumps(
                    {"home": str(home), "seconds": seconds, **_place(chain), **summary}
                )
            )
    return code


@contextlib.contextmanager
def _signals(ending: asyncio.Event) -> Iterator[None]:
    """Let SIGINT, SIGTERM and a closing terminal end the demo in good order."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, ending.set)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def _until_over(
    plan: DemoOptions, company: Company, ending: asyncio.Event
) -> int:
    """Let the agents work until the time is up, then let them finish."""
    async with asyncio.TaskGroup() as whole:
        whole.create_task(company.work(plan.rate))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ending.wait(), plan.seconds)
        company.stopping.set()
    return 0


async def _with_console(
    plan: DemoOptions, company: Company, home: Path, ending: asyncio.Event
) -> int:
    """Let the agents work until the console closes, then let them finish."""
    if ending.is_set():
        return 0
    async with asyncio.TaskGroup() as whole:
        whole.create_task(company.work(plan.rate))
        console = await processes.console(home, plan.link, passing=not plan.home)
        closed = whole.create_task(console.wait())
        ended = asyncio.create_task(ending.wait())
        await asyncio.wait(
            {closed, ended}, timeout=plan.seconds, return_when="FIRST_COMPLETED"
        )
        ended.cancel()
        closed_by_itself = closed.done()
        await processes.stop(console)
        company.stopping.set()
    return closed.result() if closed_by_itself else 0


def _instructions(home: Path, person: approver.Approver, url: str) -> list[str]:
    """Return how to approve in this demo, in lines that fit beside its QR code."""
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


def _beside(lines: list[str], code: QrCode) -> list[str]:
    """Set *code* to the right of *lines*."""
    rows = zip_longest(lines, code.lines(), fillvalue="")
    return [f"{line:{_BESIDE + 2}}{modules}".rstrip() for line, modules in rows]


async def _welcome(
    home: Path, person: approver.Approver, url: str, ending: asyncio.Event
) -> None:
    """Say, before the console covers the screen, how to approve; wait for Enter."""
    columns, rows = shutil.get_terminal_size()
    lines = _instructions(home, person, url)
    room = columns - _BESIDE - 2
    code = draw(person.otpauth_uri, room, rows - 2, ascii_only=False)
    if code is not None and max(map(len, lines)) <= _BESIDE:
        lines = _beside(lines, code)
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


def _summary(record: Record, names: dict[str, str]) -> dict[str, object]:
    """Return what the ledger holds, by agent name and in all."""
    agents = {
        name: {outcome: held.get(outcome, 0) for outcome in _OUTCOMES}
        for agent_id, name in names.items()
        if (held := record.outcomes.get(agent_id))
    }
    totals = {
        outcome: sum(row[outcome] for row in agents.values()) for outcome in _OUTCOMES
    }
    return {"agents": agents, "totals": totals}


def _place(chain: dict[str, object]) -> dict[str, object]:
    """Return how long the ledger is and where it ends, as ``audit verify`` found."""
    return {"events": chain["events"], "head": chain["head"]}
