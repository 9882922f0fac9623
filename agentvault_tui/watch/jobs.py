"""Run what reads all of the history in a process beside the broker's, one at a time."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from datetime import datetime, timedelta
from typing import TypeVar

import msgspec

from agentvault_tui.broker.core import Broker
from agentvault_tui.errors import LedgerUnwritableError
from agentvault_tui.home import Home
from agentvault_tui.ledger.schema import read_home
from agentvault_tui.operator_api.advice import AdviceList, HitRateInfo
from agentvault_tui.operator_api.codec import decode
from agentvault_tui.operator_api.planning import PlanInfo
from agentvault_tui.operator_api.shapes import WireShape
from agentvault_tui.policy import Policy, PolicyTexts
from agentvault_tui.process import home_arguments
from agentvault_tui.watch.advice import Window, advise
from agentvault_tui.watch.plan import plan

AnswerT = TypeVar("AnswerT", bound=WireShape)
_CANDIDATE = "the candidate"


class PlanJob(msgspec.Struct, tag="plan"):
    """Decide the history by other texts."""

    texts: PolicyTexts
    in_force: str
    lasts: float
    """Seconds that a step-up waits."""
    since: datetime | None = None

    def run(self, home: Home) -> PlanInfo:
        """Read the history of *home*."""
        candidate = Policy.of(self.texts, (_CANDIDATE,) * 3)
        lasts = timedelta(seconds=self.lasts)
        with read_home(home) as db:
            return plan(db, candidate, self.in_force, lasts=lasts, since=self.since)


class AdviceJob(msgspec.Struct, tag="advice"):
    """Look for authority that agents do not need."""

    texts: PolicyTexts
    since: datetime
    until: datetime

    def run(self, home: Home) -> AdviceList:
        """Read the history of *home*."""
        policy = Policy.of(self.texts, (_CANDIDATE,) * 3, strict=False)
        with read_home(home) as db:
            found = advise(db, policy, Window(self.since, self.until))
        return AdviceList(advice=found, hit_rate=HitRateInfo())


Job = PlanJob | AdviceJob


class Jobs:
    """Runs jobs one after another."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._turn = asyncio.Lock()

    async def run(self, job: Job, answer: type[AnswerT]) -> AnswerT:
        """Run *job*; return its *answer*.

        Raises:
            LedgerUnwritableError: its process ended before it was done.
        """
        async with self._turn:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-E", "-P", "-m", "agentvault_tui.watch"),
                *home_arguments(self._broker.home),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            assert process.stdin is not None  # noqa: S101 - both are pipes
            assert process.stdout is not None  # noqa: S101
            try:
                with contextlib.suppress(ConnectionError):
                    process.stdin.write(msgspec.json.encode(job) + b"\n")
                    await process.stdin.drain()
                told = await process.stdout.read()
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        try:
            return decode(told, answer)
        except ValueError as error:
            raise LedgerUnwritableError(
                "the process that reads the history ended before it was done",
                "look at the broker's log",
            ) from error
