"""Replace policy and service files of the home and put them in effect, on record."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

from msgspec import UNSET

from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.policy_files import (
    MAX_FILE,
    check_replaceable,
    load_policy,
    read_texts,
    signature,
    write_texts,
)
from agentvault_tui.broker.socket_factor import asks_factor
from agentvault_tui.broker.usecases.policy_change import (
    APPLYING,
    changed_draft,
    copy_of,
    policy_is_recorded,
    reload_policy,
    switch_policy,
)
from agentvault_tui.errors import (
    ConflictError,
    LedgerError,
    PolicyError,
    ServiceError,
    UsageError,
)
from agentvault_tui.ledger import Change, Meta
from agentvault_tui.model import Actor, Draft
from agentvault_tui.operator_api.files import FilesRequest
from agentvault_tui.policy import Policy, PolicyTexts, only_tightens
from agentvault_tui.policy.lint import PolicyProblem
from agentvault_tui.policy.texts import FILES
from agentvault_tui.text import visible


async def apply_policy(
    broker: Broker,
    texts: Mapping[str, str],
    operator: Actor,
    plan: str | None,
    reason: str,
    *,
    may_loosen: bool = True,
) -> None:
    """Record *texts*, write them into the home's files, and put them in effect.

    The record is first and says so until the files are written: a start after a kill
    in between writes them. Either all of it has happened or none.

    Args:
        broker: the broker.
        texts: the changed texts, by the names of `PolicyTexts`.
        operator: who decided.
        plan: the digest of the plan that this is; None: none is compared. An empty one
            is no plan's: if a script's plan failed, it applies nothing.
        reason: why, for the record.
        may_loosen: whether anything may be allowed afterwards that was not before.

    Raises:
        ConflictError: the plan differs, a file is a symbolic link, or the files have
            this content already.
        PolicyError: the texts cannot be put in effect.
        LedgerError: it could not be recorded; nothing was changed.
    """
    async with broker.deciding.state.applying:
        before, policy = await preview(broker, texts, plan)
        detail = {"plan": plan, "why": reason}
        if not may_loosen and not only_tightens(broker.deciding.policy, policy):
            raise ConflictError(
                "the active policy has changed meanwhile, and this would loosen it",
                "look at it, and apply again",
            )
        draft, changes = records(broker, before, policy, operator, detail)
        await record_applied(broker, draft, changes)
        await put_applied(broker, policy, changes)


async def preview(
    broker: Broker, texts: Mapping[str, str], plan: str | None
) -> tuple[PolicyTexts, Policy]:
    """Return the texts of the home's files, and the policy with *texts*.

    Args:
        broker: the broker.
        texts: the changed texts, by the names of `PolicyTexts`.
        plan: the digest of the plan that this is; None: none is compared.

    Returns:
        the texts now, and the policy.

    Raises:
        ConflictError: the plan differs, a file is a symbolic link, or the files have
            this content already.
        PolicyError: the texts cannot be put in effect.
    """
    before, counts = await _texts_now(broker)
    wanted = counts._replace(**texts)
    if plan is not None and plan != wanted.plan_digest(broker.deciding.policy.version):
        raise ConflictError(
            f"'{visible(plan, 80)}' is no plan of these texts under the policy in"
            f" force, {broker.deciding.policy.version}",
            "plan again: agentvault policy plan",
        )
    return before, await prepare(broker, before, wanted)


async def check_rules(broker: Broker, policy: Policy, *, strict: bool) -> None:
    """Refuse a policy with an error that ``policy check`` reports.

    An error that the active policy has already refuses nothing: a rule about an agent
    that was removed must not delay an emergency.

    Args:
        broker: the broker; its active policy and agents are compared.
        policy: the one to be put in the active one's place.
        strict: whether warnings are errors.

    Raises:
        PolicyError: it has one that is new; with line, rule and reason.
    """
    agents = [agent.id for agent in broker.registry.agents()]

    def find(one: Policy) -> list[PolicyProblem]:
        problems = one.problems(agents)
        return [problem for problem in problems if problem.is_error or strict]

    # In a thread: it compares each rule with all the others.
    there, new_problems = await asyncio.to_thread(
        lambda: (find(broker.deciding.policy), find(policy))
    )
    active = {(one.rule, one.what) for one in there}
    new = [one for one in new_problems if (one.rule, one.what) not in active]
    if new:
        raise PolicyError(
            f"{policy.source} {new[0]}", "agentvault policy check lists all there is"
        )


async def _texts_now(broker: Broker) -> tuple[PolicyTexts, PolicyTexts]:
    """Return the texts of the home's files, and the ones that count.

    A team's files are read once they are in step with it. If an edit needs a factor,
    the active texts count: a person who approves another change has not seen the edit.
    """
    await broker.team.look_at_files()
    if not await asks_factor(broker):
        on_disk = read_texts(broker.home)
        return on_disk, on_disk
    await reload_policy(broker)  # what only tightens counts at once
    return read_texts(broker.home), broker.deciding.policy.texts


async def prepare(broker: Broker, before: PolicyTexts, wanted: PolicyTexts) -> Policy:
    """Return the policy of *wanted*, if it can be put in effect.

    Raises:
        ConflictError: it is in effect already, or a file is a symbolic link.
        PolicyError: the texts cannot be put in effect, or one that was is gone.
    """
    if any(len((text or "").encode()) > MAX_FILE for text in wanted):
        raise PolicyError(f"a text is larger than {MAX_FILE // 1024} KiB")
    last = broker.deciding.policy.texts
    if wanted == last == before:
        raise ConflictError("this is in force already")
    check_replaceable(broker.home)
    # In a thread: it takes about as long as fifty decisions.
    return await asyncio.to_thread(load_policy, broker.home, last, wanted)


def records(
    broker: Broker,
    before: PolicyTexts,
    policy: Policy,
    operator: Actor,
    detail: Mapping[str, object],
) -> tuple[Draft, list[Change]]:
    """Return the event and rows that put *policy* in effect, with *detail*."""
    draft, record = changed_draft(broker, policy, operator, detail)
    return draft, [*record, copy_of(policy), Meta(APPLYING, before.digest())]


async def put_applied(broker: Broker, policy: Policy, changes: list[Change]) -> None:
    """Write the home's files and decide by *policy*, once *changes* are recorded."""
    problem = write_texts(broker.home, policy.texts)
    # Read again only if somebody changes the files after this, or an edit waits.
    policy.seen = signature(broker.home)
    with suppress(PolicyError):
        if problem is None and read_texts(broker.home) != policy.texts:
            policy.seen = ()
    switch_policy(broker, policy)
    broker.deciding.state.problem = problem
    policy_is_recorded(broker, changes)
    broker.health.changed()
    if problem is None:
        await broker.record(changes=[Meta(APPLYING, None)])


async def reset_policy(
    broker: Broker, operator: Actor, names: Sequence[str] = ()
) -> None:
    """Let the shipped files count again in the place of those that are gone.

    That may loosen, so that nothing of it is in effect before its record.

    Args:
        broker: the broker.
        operator: who decided.
        names: the files that this was decided about, and no other; empty: all that
            are gone.

    Raises:
        ConflictError: none that was in effect is gone, or one of *names* is not.
        PolicyError: the rest cannot be put in effect.
        LedgerError: it could not be recorded; the policy is as it was.
    """
    texts = None
    async with broker.deciding.state.applying:
        gone = check_gone(broker, names)
        if names or await asks_factor(broker):  # other edits were not approved
            members = dict(zip(FILES, PolicyTexts._fields, strict=True))
            texts = broker.deciding.policy.texts._replace(
                **{members[one]: None for one in gone}
            )
        policy = load_policy(broker.home, texts=texts)
        if texts is not None:
            policy.seen = ()  # an edit that waits is looked at again
        draft, texts_kept = changed_draft(broker, policy, operator, {})
        changes: list[Change] = [*texts_kept, copy_of(policy)]
        await record_applied(broker, draft, changes)
        switch_policy(broker, policy)
        policy_is_recorded(broker, changes)
        broker.health.changed()


async def record_applied(
    broker: Broker, draft: Draft, changes: Sequence[Change]
) -> None:
    """Record a policy that is not in effect yet.

    Raises:
        LedgerError: it could not be recorded.
    """
    try:
        await broker.record(draft, changes=changes, urgent=True)
    except LedgerError:
        # It may be on disk or not: the active policy is recorded again in any case.
        broker.deciding.state.recorded = "unknown"
        raise


def check_gone(broker: Broker, names: Sequence[str] = ()) -> tuple[str, ...]:
    """Refuse to put shipped files back where none that was active is gone.

    Args:
        broker: the broker.
        names: the files that are meant; empty: all that are gone.

    Returns:
        the names of those that are meant.

    Raises:
        ConflictError: none is gone, or one of *names* is not.
    """
    gone = broker.deciding.policy.texts.gone(read_texts(broker.home))
    if not gone or not {*names} <= {*gone}:
        raise ConflictError(
            "no file of the active policy is gone"
            if not gone
            else f"not gone: {visible(', '.join({*names} - {*gone}), 60)}",
            "to return to the shipped policy, move policy.cedar and scopes.toml away"
            " first",
        )
    return tuple(names) or gone


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
    """The state with the new limits; None if they stay as they are."""

    def __bool__(self) -> bool:
        return bool(self.services or self.policy)


async def edits_of(broker: Broker, wanted: FilesRequest) -> TextEdits:
    """Compare the texts that come with files with those of the home.

    Args:
        broker: the broker.
        wanted: the content of the files.

    Returns:
        those that differ.

    Raises:
        UsageError: one of them cannot be put in effect.
        ConflictError: a file in the home is a symbolic link.
    """
    services: dict[str, TextEdit] = {}
    limits: TextEdit | None = None
    policy: Policy | None = None
    try:
        if wanted.services:
            if broker.extensions.gateway is None:
                raise UsageError("this broker has no gateway, and so no services")
            befores = await broker.extensions.gateway.changed_services(wanted.services)
            services = {n: (was, wanted.services[n]) for n, was in befores.items()}
        (before, counts), now = await _texts_now(broker), broker.deciding.policy.texts
        after = wanted.limits
        if after is not UNSET and not after == before.limits == now.limits:
            limits = now.limits, after
            policy = await prepare(broker, before, counts._replace(limits=after))
    except (PolicyError, ServiceError) as error:
        raise UsageError(error.what, error.remedy) from None
    return TextEdits(services, limits, before, policy)


@asynccontextmanager
async def putting(
    broker: Broker, edits: TextEdits, operator: Actor, digest: str
) -> AsyncIterator[tuple[list[Draft], list[Change]]]:
    """Put texts in effect when a block ends that records the yielded rows.

    Raises:
        ConflictError: they were recorded, and a service file cannot be written.
    """
    async with AsyncExitStack() as stack:
        drafts: list[Draft] = []
        changes: list[Change] = []
        if edits.services and broker.extensions.gateway:
            texts = {name: after for name, (_, after) in edits.services.items()}
            writing = broker.extensions.gateway.put_services(texts, operator, digest)
            drafts, changes = await stack.enter_async_context(writing)
        rows: list[Change] = []
        if edits.policy:
            detail = {"applied": digest}
            draft, rows = records(broker, edits.before, edits.policy, operator, detail)
            drafts.append(draft)
        try:
            yield drafts, [*changes, *rows]
        except LedgerError:
            if edits.policy:
                # Whether it was written is not known.
                broker.deciding.state.recorded = "unknown"
            raise
        if edits.policy:
            await put_applied(broker, edits.policy, rows)
