"""The body of a held call, for the people who decide about it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Final

from msgspec import convert

from agentvault_tui.broker.core import Broker
from agentvault_tui.errors import ConflictError, LedgerError, SealedError
from agentvault_tui.held_body import (
    PAGE,
    BodyText,
    Described,
    DocumentInfo,
    ForeignBodyError,
    HeldContent,
    LostBody,
    OpaqueBody,
    Room,
    read,
    text,
    with_documents,
)
from agentvault_tui.model import StepUp

_PAGE_BYTES: Final = 64 * 1024
"""The size in bytes of a body whose members are listed on the approval page. A page is
made for each held call, and the agent decides how large its body is."""
_SMALL: Final = Room(20, 1_000, 6_000)
"""Of each document on that page."""
log = logging.getLogger("agentvault.stepup")


async def held_content(broker: Broker, stepup: StepUp) -> HeldContent:
    """Return the content of a held call, from the memory of the broker that holds it.

    Args:
        broker: the broker.
        stepup: of a held call.

    Returns:
        the content; `LostBody` if no broker has the bytes that the digest covers.

    Raises:
        SealedError: another broker may have it, and the team's key is missing.
        LedgerError: another broker may have it, and could not be asked.
    """
    described, body = Described.of(stepup.request or {}), None
    if broker.extensions.gateway is not None:
        body = await broker.extensions.gateway.held_body(stepup.id)
    try:
        return await asyncio.to_thread(read, described, body)
    except ForeignBodyError:
        log.exception("the body of step-up %s cannot be shown", stepup.id)
        return LostBody()


async def held_documents(
    broker: Broker, stepup: StepUp
) -> list[tuple[DocumentInfo, HeldContent]]:
    """Return the documents that a held call names, as they were fetched.

    Args:
        broker: the broker.
        stepup: of a held call.

    Returns:
        each with its content; `LostBody` as for `held_content`.

    Raises:
        SealedError: another broker may have one, and the team's key is missing.
        LedgerError: another broker may have one, and could not be asked.
    """
    documents: list[tuple[DocumentInfo, HeldContent]] = []
    for place, one in enumerate((stepup.request or {}).get("references", ())):
        described, body = convert(one, DocumentInfo), None
        if broker.extensions.gateway is not None:
            body = await broker.extensions.gateway.held_body(f"{stepup.id}/{place}")
        try:
            content = await asyncio.to_thread(read, described.described, body)
        except ForeignBodyError:
            log.exception("a document of step-up %s cannot be shown", stepup.id)
            content = LostBody()
        documents.append((described, content))
    return documents


async def check_not_lost(broker: Broker, stepup: StepUp) -> None:
    """Refuse to approve a held call with a lost body.

    Raises:
        ConflictError: no broker has it.
    """
    if stepup.request_json is None:
        return
    with suppress(SealedError, LedgerError):  # another broker may have it
        contents = [await held_content(broker, stepup)]
        contents += [content for _, content in await held_documents(broker, stepup)]
        if any(isinstance(one, LostBody) for one in contents):
            raise ConflictError(
                "the body of this call is lost: the broker that held it has restarted",
                f"agentvault stepup deny {stepup.id}; the agent may ask again",
            )


async def page_body(broker: Broker, stepup: StepUp) -> dict[str, object] | None:
    """Return a held call's body for the approval page; see `tenant.details.PageBody`.

    It is None if there is no call, or if another broker has it and cannot be asked.
    """
    if stepup.request_json is None:
        return None
    described = Described.of(stepup.request or {})
    try:
        content = await held_content(broker, stepup)
        documents = await held_documents(broker, stepup)
        large = described.size > _PAGE_BYTES and not isinstance(
            content, OpaqueBody | LostBody
        )
        if large:
            shown = BodyText(f"{described.kind}, {described.size:,} bytes")
        else:
            shown = await asyncio.to_thread(text, described, content, PAGE)
        shown = await asyncio.to_thread(with_documents, shown, documents, _SMALL)
    except (SealedError, LedgerError):
        return None
    except ForeignBodyError:
        log.exception("the body of step-up %s cannot be shown", stepup.id)
        content = LostBody()
        shown = text(described, content)
        large, documents = False, []
    lost = any(
        isinstance(one, LostBody) for _, one in [(described, content), *documents]
    )
    return {
        **shown._asdict(),
        "members": shown.members[: 2 * PAGE.members],
        "too_large": large,
        "lost": lost,
    }
