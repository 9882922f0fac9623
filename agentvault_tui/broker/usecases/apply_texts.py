"""Limits and service files that come with applied files: checked, recorded, written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from msgspec import UNSET

from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.policy_files import read_texts
from agentvault_tui.broker.usecases.policy_apply import prepare, put_applied, records
from agentvault_tui.errors import LedgerError, PolicyError, ServiceError, UsageError
from agentvault_tui.ledger import Change
from agentvault_tui.model import Actor, Draft
from agentvault_tui.operator_api.files import FilesRequest
from agentvault_tui.policy import Policy, PolicyTexts

TextEdit = tuple[str | None, str]
"""A text before, None where there was none, and after."""


@dataclass(frozen=True, slots=True)
class TextEdits:
    """The texts that change."""

    services: Mapping[str, TextEdit]
    """Of service files, by name."""
    limits: TextEdit | None
    before: PolicyTexts
    policy: Policy | None
    """What is in force with the new limits; None where they stay as they are."""

    def __bool__(self) -> bool:
        """Tell whether any changes."""
        return bool(self.services or self.policy)


async def edits_of(broker: Broker, wanted: FilesRequest) -> TextEdits:
    """Compare the texts that come with files with those of the home.

    Args:
        broker: the broker.
        wanted: what the files say.

    Returns:
        those that differ.

    Raises:
        UsageError: one of them cannot be put in force.
        ConflictError: a file in the home is a symbolic link.
    """
    services: dict[str, TextEdit] = {}
    limits: TextEdit | None = None
    policy: Policy | None = None
    try:
        if wanted.services:
            if broker.gateway is None:
                raise UsageError("this broker has no gateway, and so no services")
            # In a thread: hundreds of routes take longer than a call may wait.
            compare = broker.gateway.changed_services
            befores = await asyncio.to_thread(compare, wanted.services)
            services = {n: (was, wanted.services[n]) for n, was in befores.items()}
        before, now = read_texts(broker.home), broker.policy.texts
        after = wanted.limits
        if after is not UNSET and not after == before.limits == now.limits:
            limits = now.limits, after
            policy = await prepare(broker, before, before._replace(limits=after))
    except (PolicyError, ServiceError) as error:
        raise UsageError(error.what, error.remedy) from None
    return TextEdits(services, limits, before, policy)


@asynccontextmanager
async def putting(
    broker: Broker, edits: TextEdits, operator: Actor, digest: str
) -> AsyncIterator[tuple[list[Draft], list[Change]]]:
    """Put texts in force when a block ends that records what this yields.

    Raises:
        ConflictError: they were recorded, and a service file cannot be written.
    """
    async with AsyncExitStack() as stack:
        drafts: list[Draft] = []
        changes: list[Change] = []
        if edits.services and broker.gateway:
            texts = {name: after for name, (_, after) in edits.services.items()}
            writing = broker.gateway.put_services(texts, operator, digest)
            drafts, changes = await stack.enter_async_context(writing)
        rows: list[Change] = []
        if edits.policy:
            told = {"applied": digest}
            draft, rows = records(broker, edits.before, edits.policy, operator, told)
            drafts.append(draft)
        try:
            yield drafts, [*changes, *rows]
        except LedgerError:
            if edits.policy:
                # Whether it was written is not known.
                broker.policy_state.recorded = "unknown"
            raise
        if edits.policy:
            await put_applied(broker, edits.policy, rows)
