"""Rules of ``config.toml`` about how many people approve, and who."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from agentvault_tui.errors import SettingsError
from agentvault_tui.model.waiting import CHANGE_KINDS
from agentvault_tui.text import visible

_Risk = Literal["low", "medium", "high"]


class StepUpRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which step-ups take several people, certain ones, or no owner of the agent."""

    approvals: Annotated[int, Meta(ge=1, le=10)] = 1
    """How many different people have to approve."""
    scopes: tuple[str, ...] = ()
    """Scopes or groups of the catalogue; none: every scope."""
    risk: _Risk | tuple[_Risk, ...] = ()
    """One risk or several; none: every risk."""
    agents: tuple[str, ...] = ()
    """Names or ids; none: every agent."""
    no_self: bool = False
    """Whether an owner of the agent, or of one that passed it a token, may not."""
    approvers: tuple[str, ...] = ()
    """The only approvers: ``group:NAME``, subjects or e-mail addresses; none: all usual
    approvers."""

    def __post_init__(self) -> None:
        """Refuse a rule that asks for nothing.

        Raises:
            SettingsError: it does not.
        """
        if self.approvals == 1 and not self.no_self and not self.approvers:
            raise SettingsError(
                "a rule of stepup.rules asks for nothing more than usual",
                "give approvals = 2, no_self = true, or approvers",
            )


class ChangeRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Changes that take several people, or another person than the requester."""

    kinds: tuple[str, ...] = ()
    """Of `CHANGE_KINDS`; none: every kind."""
    approvals: Annotated[int, Meta(ge=1, le=10)] = 1
    """How many different people have to approve."""
    no_self: bool = False
    """Whether the person who asked may not approve."""

    def __post_init__(self) -> None:
        """Refuse a rule without a requirement, or with an unknown kind of change.

        Raises:
            SettingsError: it does.
        """
        if self.approvals == 1 and not self.no_self:
            raise SettingsError(
                "a rule of changes.rules asks for nothing more than usual",
                "give approvals = 2, or no_self = true",
            )
        if unknown := sorted(set(self.kinds) - set(CHANGE_KINDS)):
            raise SettingsError(
                f"changes.rules names the unknown kind {visible(unknown[0], 60)}",
                f"one of {', '.join(CHANGE_KINDS)}",
            )
