"""The body of a held call, for the people who decide about it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Final

from agentvault_tui.broker.core import Broker
from agentvault_tui.errors import ConflictError, LedgerError, SealedError
from agentvault_tui.held_body import (
    PAGE,
    BodyText,
    Described,
    ForeignBodyError,
    HeldContent,
    LostBody,
    OpaqueBody,
    read,
    text,
)
from agentvault_tui.model import StepUp

_PAGE_BYTES: Final = 64 * 1024
"""Bytes of a body whose members are listed on the approval page. A page is made for
each held call, and the agent decides how large its body is."""
log = logging.getLogger("agentvault.stepup")


async def held_content(broker: Broker, stepup: StepUp) -> HeldContent:
    """Return what a held call sends, from the memory of the broker that holds it.

    Args:
        broker: the broker.
        stepup: of a held call.

    Returns:
        the content; `LostBody` if no broker has the bytes that the digest covers.

    Raises:
        SealedError: another broker may have it, and the team's key is missing.
        LedgerError: another broker may have it, and could not be asked.
    """
    said, body = Described.of(stepup.request or {}), None
    if broker.gateway is not None:
        body = await broker.gateway.held_body(stepup.id)
    try:
        return await asyncio.to_thread(read, said, body)
    except ForeignBodyError:
        log.exception("the body of step-up %s cannot be shown", stepup.id)
        return LostBody()


async def check_not_lost(broker: Broker, stepup: StepUp) -> None:
    """Refuse to approve a held call whose body nobody can look at any more.

    Raises:
        ConflictError: no broker has it.
    """
    if stepup.request_json is None:
        return
    with suppress(SealedError, LedgerError):  # another broker may have it
        if isinstance(await held_content(broker, stepup), LostBody):
            raise ConflictError(
                "the body of this call is lost: the broker that held it has restarted",
                f"agentvault stepup deny {stepup.id}; the agent may ask again",
            )


async def page_body(broker: Broker, stepup: StepUp) -> dict[str, object] | None:
    """Return a held call's body for the approval page; see `tenant.details.PageBody`.

    None: there is none, or another broker has it and cannot be asked.
    """
    if stepup.request_json is None:
        return None
    said = Described.of(stepup.request or {})
    try:
        content = await held_content(broker, stepup)
        if said.size > _PAGE_BYTES and not isinstance(content, OpaqueBody | LostBody):
            found = BodyText(f"{said.kind}, {said.size:,} bytes")
            return {**found._asdict(), "too_large": True}
        found = await asyncio.to_thread(text, said, content, PAGE)
    except (SealedError, LedgerError):
        return None
    except ForeignBodyError:
        log.exception("the body of step-up %s cannot be shown", stepup.id)
        content = LostBody()
        found = text(said, content)
    return {**found._asdict(), "lost": isinstance(content, LostBody)}
