"""Words the windows of limits."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple, TypeAlias

from agentvault_tui.amounts import bare_units, render_units
from agentvault_tui.operator_api.limits import (
    CallOutInfo,
    LimitInfo,
    LimitList,
    LimitUseInfo,
)
from agentvault_tui.text import Shown

CallOutRow: TypeAlias = CallOutInfo[Shown, datetime, Shown]
LimitRows: TypeAlias = LimitList[Shown, datetime, Shown]


class LimitWindow(NamedTuple):
    """One window of a limit, or a limit of which nothing is used."""

    limit: LimitInfo[Shown, datetime]
    use: LimitUseInfo[Shown, datetime, Shown] | None = None

    @property
    def id(self) -> str:
        """What tells it from other windows."""
        return f"{self.limit.id} {self.subject}"

    @property
    def subject(self) -> str:
        """The agent or resource that it counts uses of."""
        if self.limit.per == "all":
            return "everyone"
        if self.use is None:
            return "nothing used"
        return self.use.agent_name or self.use.resource or "no resource"

    @property
    def agent_id(self) -> str:
        """The agent whose window it is; empty where it is of several agents."""
        return self.use.agent_id if self.use else ""

    @property
    def left(self) -> int:
        """Requests, or units of the amount."""
        return self.use.left if self.use else self.limit.most

    @property
    def is_near(self) -> bool:
        """Whether at most a fifth is left."""
        return self.left * 5 <= self.limit.most

    @property
    def frees_at(self) -> datetime | None:
        """When some becomes free."""
        return self.use.frees_at if self.use else None

    @property
    def rest(self) -> str:
        """The rest, in words."""
        return self._bare(self.left)

    @property
    def used(self) -> str:
        """The use, in words."""
        return self._bare(self.use.used if self.use else 0)

    @property
    def allows(self) -> str:
        """The limit, in words."""
        limit = self.limit
        most = render_units(limit.most, limit.currency, in_major=limit.in_major)
        return f"{most} in {limit.within}"

    @property
    def beyond(self) -> str:
        """The answer to a request that has no room in it."""
        return "a person" if self.limit.over == "step_up" else "denied"

    def _bare(self, units: int) -> str:
        return bare_units(units, self.limit.currency, in_major=self.limit.in_major)


def windows(listing: LimitRows) -> Iterator[LimitWindow]:
    """Yield each window in use, and each limit of which nothing is used."""
    for limit in listing.limits:
        uses = [use for use in listing.uses if use.limit == limit.id]
        yield from [LimitWindow(limit, use) for use in uses] or [LimitWindow(limit)]
