"""Run jobs that read the whole history in processes of their own, one of each kind."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import defaultdict
from datetime import datetime, timedelta
from typing import Final, TypeVar

import msgspec

from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.operators_api.long_work import OperatorShares
from agentvault_tui.errors import LedgerUnwritableError, PolicyError
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
REFUSED: Final = 3
"""Exit code of a job whose policy is refused."""


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
            advice = advise(db, policy, Window(self.since, self.until))
        return AdviceList(advice=advice, hit_rate=HitRateInfo())


Job = PlanJob | AdviceJob


class Jobs:
    """Runs jobs of each kind one after another."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._turns: defaultdict[type[Job], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._shares = OperatorShares("plans or advices")

    async def run(self, job: Job, answer: type[AnswerT], by: str) -> AnswerT:
        """Run *job* when those of its kind that were asked for before have ended.

        Args:
            job: the job.
            answer: the type of its answer.
            by: the operator who asks.

        Returns:
            the answer.

        Raises:
            PolicyError: the job's policy is refused.
            ConflictError: as many jobs of this operator run or wait as may.
            LedgerUnwritableError: its process ended before it was done.
        """
        with self._shares.of(by):
            async with self._turns[type(job)]:
                code, output = await self._run(job)
        if code == REFUSED:
            raise PolicyError(*msgspec.json.decode(output, type=tuple[str, str]))
        try:
            return decode(output, answer)
        except ValueError as error:
            raise LedgerUnwritableError(
                "the process that reads the history ended before it was done",
                "look at the broker's log",
            ) from error

    async def _run(self, job: Job) -> tuple[int, bytes]:
        """Return the exit code and the output of a process that does *job*."""
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
            output = await process.stdout.read()
            return await process.wait(), output
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
