"""Recorded exchanges with Auth0, replayed byte for byte: status, headers, body.

Each file under tests/vault/exchanges/ says at its top where its entries come from,
and what of them is inferred. Ids, names and tokens are invented.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from support.rogue_tenant import Answer

FOLDER = Path(__file__).parent.parent / "vault" / "exchanges"
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
"""A moment after all that was recorded."""


@cache
def recorded(file: str) -> dict[str, Any]:
    """Return the exchanges of one *file*, by name."""
    exchanges: dict[str, Any] = json.loads((FOLDER / f"{file}.json").read_text())
    return exchanges


def names(file: str) -> list[str]:
    """Return the names of the exchanges of one *file*."""
    return [name for name in recorded(file) if name != "source"]


def answer(file: str, name: str, tenant: str = "") -> Answer:
    """Return what Auth0 answered; its own address becomes *tenant*'s."""
    found = recorded(file)[name]
    text = json.dumps(found.get("body"))
    body: Any = found.get("body", b"")
    if isinstance(body, str):
        body = body.encode()
    elif body != b"":
        body = json.loads(text.replace("https://tenant.test/", tenant))
    headers = {
        key: value.replace("https://tenant.test/", tenant)
        for key, value in found.get("headers", {}).items()
    }
    return Answer(body, found["status"], headers)


async def rows_of(listing: AsyncIterator[Any]) -> list[Any]:
    """Return all rows of a listing."""
    return [row async for row in listing]
