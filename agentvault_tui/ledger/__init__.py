"""The store: one SQLite file, one writer, state and events in one transaction."""

from agentvault_tui.ledger.accepting import accept_rollback, accept_store
from agentvault_tui.ledger.activity import ALLOWED, REDEEMED, Activity, Count
from agentvault_tui.ledger.export import export_ledger
from agentvault_tui.ledger.journal import CAPACITY, CutJournal, KeptCut, encode_cuts
from agentvault_tui.ledger.ledger import Ledger
from agentvault_tui.ledger.opening import CHECKED_AT_START
from agentvault_tui.ledger.past import Around, Past, PastActivity, PastPlace
from agentvault_tui.ledger.past_tokens import PastHolding
from agentvault_tui.ledger.records import (
    Attempt,
    Change,
    Cooldown,
    DropAccount,
    DropAgentTokens,
    DropAllTokens,
    DropScopeTokens,
    DropToken,
    EventQuery,
    Head,
    KeptText,
    Link,
    Loaded,
    Meta,
    OutboxStep,
    Page,
    Panic,
    Recovery,
    Story,
    UsedAssertion,
)
from agentvault_tui.ledger.verify import Verification, verify_export, verify_ledger
from agentvault_tui.ledger.verify_state import StateDivergence

__all__ = [
    "ALLOWED",
    "CAPACITY",
    "CHECKED_AT_START",
    "REDEEMED",
    "Activity",
    "Around",
    "Attempt",
    "Change",
    "Cooldown",
    "Count",
    "CutJournal",
    "DropAccount",
    "DropAgentTokens",
    "DropAllTokens",
    "DropScopeTokens",
    "DropToken",
    "EventQuery",
    "Head",
    "KeptCut",
    "KeptText",
    "Ledger",
    "Link",
    "Loaded",
    "Meta",
    "OutboxStep",
    "Page",
    "Panic",
    "Past",
    "PastActivity",
    "PastHolding",
    "PastPlace",
    "Recovery",
    "StateDivergence",
    "Story",
    "UsedAssertion",
    "Verification",
    "accept_rollback",
    "accept_store",
    "encode_cuts",
    "export_ledger",
    "verify_export",
    "verify_ledger",
]
