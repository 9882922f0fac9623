"""The state that a waiting change would replace, and whether it is unchanged."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from agentvault_tui.broker.core import Broker
from agentvault_tui.clock import iso
from agentvault_tui.errors import AgentVaultError
from agentvault_tui.ledger import docs
from agentvault_tui.ledger.canonical import canonical
from agentvault_tui.lookalikes import fold_text
from agentvault_tui.model import AgentId, StepUp

OUTDATED: Final = "what it would change has changed meanwhile"


def basis(broker: Broker, subjects: Sequence[str]) -> str:
    """Return the digest of the things that a change would replace, as they are now.

    Args:
        broker: the broker; its rooms know the things, by kind.
        subjects: such as ``policy`` or ``agent:agt_…``.

    Returns:
        ``sha256:`` and 64 hexadecimal digits.
    """
    now = {}
    for one in subjects:
        kind, _, name = one.partition(":")
        now[one] = broker.extensions.states[kind](name)
    return "sha256:" + hashlib.sha256(canonical(now).encode()).hexdigest()


def states_of(broker: Broker) -> dict[str, Callable[[str], str]]:
    """Return the broker's own state of the things that changes replace.

    Args:
        broker: the broker.

    Returns:
        by kind of thing, a mark of its state now, by its name.
    """

    def agent(name: str) -> str:
        """Everything an agent may do, and whether it may now."""
        return docs.write_agent(broker.registry.agent(name))

    def policy(_: str) -> str:
        """Return the active policy, and the recorded one.

        They differ for a moment: a tightened policy decides before it is recorded, and
        one of another broker is recorded before it decides here.
        """
        recorded = broker.recording.meta.get("policy", "")
        return f"{broker.deciding.policy.texts.digest()} {recorded}"

    def panic(_: str) -> str:
        panic = broker.registry.revocations.panic
        return iso(panic.since) if panic and panic.on else ""

    return {
        "policy": policy,
        "agent": agent,
        "name": lambda name: str(broker.registry.has_name(fold_text(name))),
        "panic": panic,
        "team key": lambda _: (
            broker.team.key.announcement()[1] if broker.team.key else ""
        ),
        "nothing": lambda _: "",
    }


def subjects_of(stepup: StepUp) -> tuple[str, ...]:
    """Return the things that a waiting change would replace."""
    return tuple(stepup.parameters["changes"])


def is_current(broker: Broker, stepup: StepUp) -> bool:
    """Check whether *stepup* matches the present: policy, or its subject."""
    if stepup.change is None:
        return stepup.policy_version == broker.deciding.policy.version
    try:
        return basis(broker, subjects_of(stepup)) == stepup.policy_version
    except (AgentVaultError, KeyError):
        return False  # it is gone, or cannot be read: outdated


def changes_about(broker: Broker, agent_id: AgentId) -> list[StepUp]:
    """Return the changes that wait and would change an agent."""
    about = f"agent:{agent_id}"
    waiting = broker.stepups.open(AgentId(""))
    return [one for one in waiting if one.change and about in subjects_of(one)]


async def forget_answer(broker: Broker, stepup: StepUp) -> None:
    """Remove the answer of a change that was carried out, first from memory.

    Args:
        broker: the broker.
        stepup: the change, as it is now.

    Raises:
        LedgerError: it could not be recorded, and the answer can be read again.
    """
    if stepup.change is not None:
        read = replace(stepup, change=replace(stepup.change, result=""))
        broker.stepups.put(read)
        try:
            await broker.record(changes=[read])
        except BaseException:
            broker.stepups.put_back(read, stepup)
            raise
