"""Keeps every answer that a client's device flow polled."""

from __future__ import annotations

from agentvault_tui.vault import DeviceFlow, TenantClient


def polled(client: TenantClient) -> list[object]:
    """Return a list that each answer to *client*'s polls is added to."""
    seen: list[object] = []
    once = client.poll_once

    async def noting(flow: DeviceFlow) -> object:
        seen.append(await once(flow))
        return seen[-1]

    client.poll_once = noting  # type: ignore[assignment,method-assign]
    return seen
