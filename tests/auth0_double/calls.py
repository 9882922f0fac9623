"""A call of the double's Management API: a method that knows its tenant."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from agentvault_tui.tenant.management.api import ManagementAnswer as Answer
from agentvault_tui.tenant.management.api import ManagementCall
from agentvault_tui.tenant.management.api import ManagementRequest as Call

__all__ = ["Answer", "Call", "Endpoint"]


def Endpoint(  # noqa: N802 - reads as what it makes
    method: str,
    path: str,
    scopes: tuple[str, ...],
    title: str,
    act: Callable[[Call], Answer | Awaitable[Answer]],
) -> ManagementCall:
    return ManagementCall(method, path, scopes, title, lambda _, asked: act(asked))
