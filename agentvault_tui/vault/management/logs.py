"""The tenant's log (``/logs``), read forward by checkpoints. Scope ``read:logs``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from agentvault_tui.errors import TenantNotFoundError
from agentvault_tui.vault.api import Purpose, TenantApi
from agentvault_tui.vault.issuer import path
from agentvault_tui.vault.management.rows import text
from agentvault_tui.vault.reply import Json, TenantReply

MOST: Final = 100
"""Rows in one answer, at most."""
_SHOW: Final = Purpose("show its log", "read:logs")


@dataclass(frozen=True, slots=True)
class LogPage:
    """Some rows, oldest first, and the checkpoint to read on from."""

    rows: tuple[Json, ...]
    """As the tenant wrote them; every text is untrusted. Each has a ``log_id``."""
    resume: str
    """The row to ask on from; store it, also after an empty page."""


async def latest(api: TenantApi) -> LogPage:
    """Return the newest row; of an empty log none, and nothing to resume from."""
    return await _end(api, "date:-1")


async def earliest(api: TenantApi) -> LogPage:
    """Return the oldest row there is.

    One alone: a search sorts by date and a checkpoint by id.
    """
    return await _end(api, "date:1")


async def has(api: TenantApi, row: str) -> bool:
    """Check whether the tenant still keeps *row*."""
    try:
        await api.request(
            "GET",
            f"logs/{path(row)}",
            purpose=_SHOW,
        )
    except TenantNotFoundError:
        return False
    return True


async def after(api: TenantApi, row: str, take: int = MOST) -> LogPage:
    """Return the rows after *row*, none when there are none yet.

    The ``Link`` of the answer names the last row, which the rows themselves say too:
    no URL of an answer's is used.
    """
    reply = await api.request(
        "GET",
        "logs",
        query={"from": row, "take": take},
        purpose=_SHOW,
    )
    rows = _rows(reply, take)
    if not rows:
        return LogPage((), row)
    # Ids sort as text; behind the newest none is read twice, whatever the order.
    return LogPage(rows, max(one["log_id"] for one in rows))


async def _end(api: TenantApi, sort: str) -> LogPage:
    reply = await api.request(
        "GET",
        "logs",
        query={"sort": sort, "per_page": 1, "page": 0},
        purpose=_SHOW,
    )
    rows = _rows(reply, 1)
    return LogPage(rows, rows[-1]["log_id"] if rows else "")


def _rows(reply: TenantReply, take: int) -> tuple[Json, ...]:
    """Return at most *take* rows, each with a ``log_id``, however deep they nest."""
    readable = reply.shallow() if reply.unread else reply
    rows = tuple(readable.rows("logs")[:take])
    for one in rows:
        one["log_id"] = text(one, "log_id", "_id")
    return rows
