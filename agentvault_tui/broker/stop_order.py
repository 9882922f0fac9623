"""An order to stop everything, left as a file where the broker does not answer.

The command writes it if no broker runs or the operators' socket is busy. A running
broker looks for the file; one that starts obeys it before it serves. The home
directory is closed to other users, so the file counts by being there, also if its
content cannot be read.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from agentvault_tui.broker.core import SYSTEM, Broker
from agentvault_tui.broker.usecases.revoke import panic
from agentvault_tui.errors import AgentVaultError
from agentvault_tui.home import (
    Home,
    file_stamp,
    fsync_folder,
    put_private,
    read_own,
)
from agentvault_tui.model import Actor, ActorKind

_SIZE_CAP_BYTES: Final = 64 * 1024

log = logging.getLogger("agentvault.stop_order")


class StopOrder(msgspec.Struct, frozen=True):
    """The content of the file."""

    id: str
    """Of the operator who gave it, as `Actor` has it."""
    name: str
    reason: str = ""


def leave_order(home: Home, operator: Actor, reason: str) -> None:
    """Write the order to stop everything, on disk when this returns.

    Args:
        home: the home directory of the broker.
        operator: who gives it.
        reason: for the record.

    Raises:
        OSError: it cannot be written.
    """
    order = StopOrder(operator.id, operator.name, reason)
    put_private(home.stop_order, msgspec.json.encode(order), replace=True)


def withdraw_order(home: Home) -> None:
    """Delete the order, if there is one.

    Raises:
        OSError: it cannot be deleted.
    """
    home.stop_order.unlink(missing_ok=True)
    fsync_folder(home.stop_order.parent)


def order_watch(broker: Broker) -> Callable[[], Awaitable[None]]:
    """Return a function that obeys each order to stop everything once, and deletes it.

    If the file cannot be deleted it is obeyed once, and again by the next start.
    """
    obeyed: tuple[int, ...] | None = None

    async def look() -> None:
        """Panic once for a new order, also for one that is malformed."""
        nonlocal obeyed
        file = broker.home.stop_order
        stamp = file_stamp(file)
        if stamp is None or stamp == obeyed:
            return
        operator, reason = SYSTEM, "ordered by a file that cannot be read"
        with contextlib.suppress(AgentVaultError, msgspec.MsgspecError):
            content = read_own(file, _SIZE_CAP_BYTES)
            order = msgspec.json.decode(content, type=StopOrder)
            operator = Actor(ActorKind.OPERATOR, order.id, order.name)
            reason = order.reason
        obeyed = stamp
        await panic(broker, reason, operator)
        try:
            await asyncio.to_thread(withdraw_order, broker.home)
        except OSError as error:
            log.error("%s cannot be deleted: %s", file, error.strerror)  # noqa: TRY400 - one line

    return look
