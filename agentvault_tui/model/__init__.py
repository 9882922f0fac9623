"""The data types that all rooms share: frozen, without I/O, standard library only."""

from importlib import import_module
from typing import TYPE_CHECKING, Final

from agentvault_tui.model.decision import (
    DETAIL_TYPE,
    Action,
    Outcome,
    Risk,
    Scope,
    Verdict,
    detail_members,
    limits_nothing,
    other_details,
)
from agentvault_tui.model.event import (
    CALL_TYPES,
    DECISION_TYPES,
    OUTCOME_TYPES,
    Actor,
    ActorKind,
    Draft,
    Event,
    EventType,
)
from agentvault_tui.model.ids import (
    AgentId,
    DecisionId,
    StepUpId,
    TokenId,
    new_id,
    new_secret,
    sha256_hex,
)
from agentvault_tui.model.money import Money
from agentvault_tui.model.waiting import (
    CHANGE_ID,
    CHANGE_KINDS,
    ParameterBound,
    Repeat,
    StepUpStatus,
    repeat_words,
)

if TYPE_CHECKING:
    from agentvault_tui.model.account import Account, IssuedProviderToken, Lease
    from agentvault_tui.model.agent import (
        Agent,
        AgentCounts,
        AgentStatus,
        Credential,
        Delegate,
    )
    from agentvault_tui.model.stepup import (
        ChangedText,
        DeviceCode,
        Evidence,
        StepUp,
        WaitingChange,
        fingerprint,
    )
    from agentvault_tui.model.token import Token, TokenKind

__all__ = [
    "CALL_TYPES",
    "CHANGE_ID",
    "CHANGE_KINDS",
    "DECISION_TYPES",
    "DETAIL_TYPE",
    "OUTCOME_TYPES",
    "Account",
    "Action",
    "Actor",
    "ActorKind",
    "Agent",
    "AgentCounts",
    "AgentId",
    "AgentStatus",
    "ChangedText",
    "Credential",
    "DecisionId",
    "Delegate",
    "DeviceCode",
    "Draft",
    "Event",
    "EventType",
    "Evidence",
    "IssuedProviderToken",
    "Lease",
    "Money",
    "Outcome",
    "ParameterBound",
    "Repeat",
    "Risk",
    "Scope",
    "StepUp",
    "StepUpId",
    "StepUpStatus",
    "Token",
    "TokenId",
    "TokenKind",
    "Verdict",
    "WaitingChange",
    "detail_members",
    "fingerprint",
    "limits_nothing",
    "new_id",
    "new_secret",
    "other_details",
    "repeat_words",
    "sha256_hex",
]

_STATE: Final = {
    "account": ("Account", "IssuedProviderToken", "Lease"),
    "agent": ("Agent", "AgentCounts", "AgentStatus", "Credential", "Delegate"),
    "stepup": (
        *("ChangedText", "DeviceCode", "Evidence", "StepUp", "WaitingChange"),
        "fingerprint",
    ),
    "token": ("Token", "TokenKind"),
}
"""The broker's own state, by module: a console and most commands open without it."""


def __getattr__(name: str) -> object:
    """Import a type of `_STATE` where it is first used (PEP 562)."""
    for module, names in _STATE.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
