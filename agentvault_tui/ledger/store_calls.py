"""Messages between a team's brokers next to the log: calls in flight.

The tables are not logged: they cost no flush, and a crash or failover of the store
empties them. A writer here notices that, and writes again the messages that still hold.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from agentvault_tui.ledger.store_schema import REQUESTED

if TYPE_CHECKING:  # it imports psycopg, which few need
    from agentvault_tui.ledger.shared_log import SharedLog

_NO_WAIT: Final = "set_config('synchronous_commit', 'off', true)"
"""Such a transaction's other writes are not waited for either."""
_INSERT: Final = f"""
WITH gone AS (
  DELETE FROM agentvault.calls WHERE broker = %(me)s AND id <> ALL(%(ids)s)
  AND (%(anew)s OR run <> %(run)s
    OR ended < clock_timestamp() - interval '2 seconds')),
put AS (
  INSERT INTO agentvault.calls
  SELECT %(me)s, u.id, %(run)s, %(n)s,
    CASE WHEN u.over THEN clock_timestamp() END, u.doc
  FROM unnest(%(ids)s::text[], %(over)s::boolean[], %(docs)b::bytea[])
    AS u(id, over, doc)
  ON CONFLICT (broker, id) DO UPDATE SET run = excluded.run, n = excluded.n,
    ended = excluded.ended, doc = excluded.doc)
SELECT count(*), {_NO_WAIT} FROM agentvault.calls
  WHERE broker = %(me)s AND run = %(run)s AND ended IS NULL
"""  # noqa: S608 - of a constant alone
_READ: Final = """
SELECT c.broker, c.run, c.n, c.ended IS NOT NULL, c.doc FROM agentvault.calls AS c
  JOIN agentvault.brokers AS b ON b.id = c.broker AND b.run = c.run
    AND b.seen > clock_timestamp() - make_interval(secs => %s)
  LEFT JOIN unnest(%s::text[], %s::bigint[]) AS k(run, n) ON k.run = c.run
  WHERE c.broker <> %s AND c.n > coalesce(k.n, 0)
  ORDER BY c.run, c.n
"""
_ASK: Final = f"""
WITH old AS (
  DELETE FROM agentvault.asks WHERE at < clock_timestamp() - interval '10 seconds'),
put AS (
  INSERT INTO agentvault.asks SELECT %s, u, clock_timestamp(), %b
  FROM unnest(%s::text[]) AS u ON CONFLICT DO NOTHING)
SELECT {_NO_WAIT}
"""  # noqa: S608 - same
_FORGET: Final = f"""
WITH told AS (
  DELETE FROM agentvault.asks WHERE id = %s AND (%s OR answer IS NOT NULL))
SELECT {_NO_WAIT}
"""  # noqa: S608 - same
_ANSWER: Final = f"""
WITH told AS (UPDATE agentvault.asks SET answer = %b WHERE broker = %s AND id = %s)
SELECT {_NO_WAIT}
"""  # noqa: S608 - same


class SharedCall(NamedTuple):
    """A call of another broker, by its message."""

    broker: str
    run: str
    """Random, of that broker's process."""
    n: int
    """Larger than in the earlier messages of the same process."""
    ended: bool
    doc: bytes


class StoreCalls:
    """The tables about calls, as one process of a broker uses them."""

    def __init__(self, shared: SharedLog, run: str) -> None:
        """Use the store of *shared* as the process named *run*."""
        self._shared = shared
        self._me = shared.broker_id
        self._run = run
        self._n = 0

    async def put(self, calls: Sequence[tuple[str, bool, bytes]], *, anew: bool) -> int:
        """Publish calls to the others; one that ended for two seconds.

        Args:
            calls: id, whether it has ended, and the message.
            anew: whether no earlier message holds.

        Returns:
            the number of calls of this process that were published as open before this.

        Raises:
            LedgerUnwritableError: the store did not answer.
        """
        self._n += 1
        ids, over, docs = map(list, zip(*calls, strict=True)) if calls else ([], [], [])
        own = {"me": self._me, "run": self._run, "n": self._n, "anew": anew}
        values = own | {"ids": ids, "over": over, "docs": docs}
        ((count, _),) = await self._shared.on_idle(_INSERT, values)
        return int(count)

    async def read(
        self, lease: float, versions: Mapping[str, int] | None = None
    ) -> list[SharedCall]:
        """Read the messages of other live brokers.

        Args:
            lease: seconds that a broker lives after it last said so.
            versions: the largest `SharedCall.n` that was read, by `SharedCall.run`.

        Raises:
            LedgerUnwritableError: the store did not answer.
        """
        versions = versions or {}
        values = (lease, list(versions), list(versions.values()), self._me)
        return [SharedCall(*row) for row in await self._shared.on_idle(_READ, values)]

    async def ask(self, name: str, brokers: Collection[str], doc: bytes) -> None:
        """Ask other brokers something; each sees it at once, or within 200 ms.

        Args:
            name: random, of the question.
            brokers: whom.
            doc: the question; after ten seconds it is not read any more.

        Raises:
            LedgerUnwritableError: the store did not answer.
        """
        await self._shared.on_idle(_ASK, (name, doc, list(brokers)))
        self._shared.notifier.announce()

    async def answers(self, name: str) -> dict[str, bytes]:
        """Return the answers so far, by broker.

        Raises:
            LedgerUnwritableError: the store did not answer.
        """
        sql = (
            "SELECT broker, answer FROM agentvault.asks"
            " WHERE id = %s AND answer IS NOT NULL"
        )
        return dict(await self._shared.on_idle(sql, (name,)))

    async def forget(self, name: str, *, whole: bool) -> None:
        """Delete a question's answers.

        Args:
            name: of the question.
            whole: whether who has not answered yet sees it no more.

        Raises:
            LedgerUnwritableError: the store did not answer.
        """
        await self._shared.on_idle(_FORGET, (name, whole))

    async def requested(self) -> list[tuple[str, bytes]]:
        """Return the questions that wait for this broker: name, and document.

        Raises:
            LedgerUnwritableError: the store did not answer.
        """
        return [(i, d) for i, d in await self._shared.on_idle(REQUESTED, (self._me,))]

    async def answer(self, name: str, answer: bytes) -> None:
        """Answer a question.

        Raises:
            LedgerUnwritableError: the store did not answer.
        """
        await self._shared.on_idle(_ANSWER, (answer, self._me, name))
