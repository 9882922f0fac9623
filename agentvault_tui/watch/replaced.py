"""The destinations and routes of a replaced ``alerts.toml``, for its last events.

An edit could otherwise remove the alert about itself. Each event up to that of the edit
is sent as the replaced file says too, and the edit's own event to each destination that
the edit removes or changes, whatever its routes name. An edit made while no broker ran
is recorded by the next start: the other events of that start, such as those of an
edited policy, belong to it.

A row of the ledger, written with the edit's event, has each such destination until it
is done.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import msgspec

from agentvault_tui.broker.core import Broker
from agentvault_tui.ledger import Meta
from agentvault_tui.model import sha256_hex
from agentvault_tui.watch.config import LOOSENED, AlertRoute, AlertsFile, SinkTable

log = logging.getLogger("agentvault.alerts")

REPLACED: Final = "alerts_replaced:"
"""Begins the key of such a row; the destination's key follows."""
_MOST: Final = 64
"""Rows at once. If there are more, the earlier ones stay: an edit that fills the rows
is itself sent to each destination that it leaves as it is."""
_OTHERS_START: Final = timedelta(seconds=30)
"""The time that another broker of the team has for its start."""


class ReplacedSink(msgspec.Struct, frozen=True):
    """A destination as a replaced file had it."""

    name: str
    sink: SinkTable
    routes: tuple[AlertRoute, ...]
    at: datetime
    """When the edit was recorded."""
    head: int
    """The last event before that of the edit."""
    at_start: bool
    """Whether the edit was recorded by a start that had not ended then."""
    until: int | None = None
    """The last event that is sent so; None: the ledger may have further ones."""

    def routes_at(self, seq: int) -> tuple[AlertRoute, ...]:
        """Return the routes by which an event goes to this destination."""
        if self.until is not None and seq > self.until:
            return ()
        if seq <= self.head:
            return self.routes
        return AlertRoute((self.name,), (LOOSENED,)), *self.routes

    def encode(self) -> str:
        """Encode it as JSON, to be stored."""
        return msgspec.json.encode(self).decode()


def key_of(name: str, sink: SinkTable) -> str:
    """Return the key of a destination; one that is reached otherwise has another."""
    return f"{name}!{sha256_hex(msgspec.json.encode(sink).decode())[:16]}"


@dataclass(slots=True)
class Replaced:
    """The rows of replaced destinations, by `key_of`."""

    broker: Broker
    rows: dict[str, ReplacedSink] = field(default_factory=dict)
    is_starting: bool = True
    """Whether this process has not recorded yet that it started."""

    def load(self) -> None:
        """Read the rows as they are recorded."""
        self.rows = {
            key.removeprefix(REPLACED): msgspec.json.decode(text, type=ReplacedSink)
            for key, text in self.broker.recording.meta.items()
            if key.startswith(REPLACED)
        }

    def routes_to(
        self, name: str, sink: SinkTable
    ) -> Callable[[int], tuple[AlertRoute, ...]]:
        """Return a function from an event's number to its routes by replaced files."""
        key = key_of(name, sink)

        def routes(seq: int) -> tuple[AlertRoute, ...]:
            row = self.rows.get(key)
            return row.routes_at(seq) if row else ()

        return routes

    def until(self, key: str) -> int | None:
        """Return the last event of a row; None: none is known to be."""
        row = self.rows.get(key)
        return row.until if row else None

    def changes(self, before: AlertsFile, after: AlertsFile) -> list[Meta]:
        """Return the rows of an edit, to be written with its event.

        Args:
            before: the file that is replaced.
            after: the edited one.

        Returns:
            a row for each destination that is gone, that is reached otherwise, or that
            has other routes than before and further ones at their end.
        """
        self.load()
        changes = list[Meta]()
        for name, sink in before.sinks.items():
            routes, now = before.routes_to(name), after.routes_to(name)
            same = after.sinks.get(name) == sink
            if same and (sink.exports or now[: len(routes)] == routes):
                continue
            key, head = key_of(name, sink), self.broker.ledger.head.seq
            if (earlier := self.rows.get(key)) is not None:
                routes = tuple(dict.fromkeys((*earlier.routes, *routes)))
                head = min(earlier.head, head)
            elif len(self.rows) + len(changes) >= _MOST:
                log.warning("sink %s gets no event of an edit of alerts.toml", name)
                continue
            at = self.broker.clock.now()
            row = ReplacedSink(name, sink, routes, at, head, self.is_starting)
            changes.append(Meta(REPLACED + key, row.encode()))
        return changes

    def may_close(self, row: ReplacedSink) -> bool:
        """Check whether all events that go by a row are recorded."""
        if not row.at_start:
            return True
        if self.is_starting:
            return False
        alone = self.broker.team.files is None
        return alone or self.broker.clock.now() - row.at >= _OTHERS_START
