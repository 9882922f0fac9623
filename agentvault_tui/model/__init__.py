"""The data types that all rooms share: frozen, without I/O, standard library only."""

from agentvault_tui.model.account import Account, IssuedProviderToken, Lease
from agentvault_tui.model.agent import (
    Agent,
    AgentCounts,
    AgentStatus,
    Credential,
    Delegate,
)
from agentvault_tui.model.decision import (
    DETAIL_TYPE,
    Action,
    Outcome,
    Verdict,
    detail_members,
    limits_nothing,
    other_details,
)
from agentvault_tui.model.event import (
    CALL_TYPES,
    DECISION_TYPES,
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
from agentvault_tui.model.scope import Risk, Scope
from agentvault_tui.model.stepup import (
    DeviceCode,
    Evidence,
    ParameterBound,
    Repeat,
    StepUp,
    StepUpStatus,
    fingerprint,
    repeat_words,
)
from agentvault_tui.model.token import Token, TokenKind

__all__ = [
    "CALL_TYPES",
    "DECISION_TYPES",
    "DETAIL_TYPE",
    "Account",
    "Action",
    "Actor",
    "ActorKind",
    "Agent",
    "AgentCounts",
    "AgentId",
    "AgentStatus",
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
    "detail_members",
    "fingerprint",
    "limits_nothing",
    "new_id",
    "new_secret",
    "other_details",
    "repeat_words",
    "sha256_hex",
]
