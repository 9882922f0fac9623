"""Limits on the operators' wire: the limits and their uses."""

from __future__ import annotations

from typing import Annotated

from agentvault_tui.operator_api.shapes import ABSENT, Maybe, Text, Time, WireShape


class LimitInfo(WireShape[Text, Time], kw_only=True):
    """How much of some scopes may be used in a rolling window."""

    id: Annotated[Text, 80]
    scopes: tuple[str, ...]
    agents: tuple[str, ...]
    per: str
    within: Annotated[Text, 20]
    most: int
    """Requests, or an amount in the unit of each service."""
    currency: Annotated[Text, 20] | None
    in_major: bool = False
    """Whether `most`, `used` and `left` are ten-thousandths of the currency's major
    unit."""
    over: str


class LimitUseInfo(WireShape[Text, Time, Maybe], kw_only=True):
    """One window that holds something."""

    limit: Annotated[Text, 80]
    agent_id: Annotated[Maybe, 80]
    agent_name: Annotated[Maybe, 80]
    resource: Annotated[Maybe, 80]
    used: int
    left: int
    frees_at: Time | None


class CallOutInfo(WireShape[Text, Time, Maybe], kw_only=True):
    """One call-out of ``[[hooks]]``."""

    id: Annotated[Text, 64]
    url: Text
    scopes: tuple[str, ...]
    budget_ms: int
    signed: bool
    asked_at: Time | None = None
    """When it was asked last, since the broker's start and as it is configured now."""
    answers: bool | None = None
    """Whether it answered then, in its budget and in the form it must."""
    ms: int | None = None
    """How long that took."""
    problem: Maybe = ABSENT
    """Its problem, if it failed."""


class LimitList(WireShape[Text, Time, Maybe], kw_only=True):
    """The limits in effect, the windows in use, those with least left first."""

    limits: tuple[LimitInfo[Text, Time], ...]
    uses: tuple[LimitUseInfo[Text, Time, Maybe], ...]
    hooks: tuple[CallOutInfo[Text, Time, Maybe], ...]
    problem: Maybe
