"""Who asks, and the answer for one scope: what engine, messages and explain share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from agentvault_tui.model import Outcome

UNCLEAR: Final = "parameter_unclear"
"""The reason when a rule reads what the request does not say clearly."""


class Principal(NamedTuple):
    """What a rule may know about the agent; hashable."""

    id: str
    name: str
    owner: str
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ruling:
    """The answer for one scope of a request."""

    scope: str
    outcome: Outcome
    reason: str
    rule: str
    why: str
    unclear: tuple[str, ...] = ()
    """What the rule reads and the request does not say clearly, if that decided."""
