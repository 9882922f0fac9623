"""Decides: Cedar over a catalogue of scopes; no clock, no network, no database."""

from agentvault_tui.policy.catalogue import Catalogue, Effect, is_scope_name
from agentvault_tui.policy.engine import SHIPPED, Policy
from agentvault_tui.policy.texts import PolicyTexts, shipped_catalogue, shipped_policy

__all__ = [
    "SHIPPED",
    "Catalogue",
    "Effect",
    "Policy",
    "PolicyTexts",
    "is_scope_name",
    "shipped_catalogue",
    "shipped_policy",
]
