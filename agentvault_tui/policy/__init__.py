"""The policy decision point: Cedar over a catalogue; no clock, network, database."""

from agentvault_tui.policy.catalogue import Catalogue, Effect, is_scope_name
from agentvault_tui.policy.engine import SHIPPED, Policy
from agentvault_tui.policy.inputs import Environment, Inputs
from agentvault_tui.policy.limits import Limit, LimitSet
from agentvault_tui.policy.texts import PolicyTexts, shipped_catalogue, shipped_policy
from agentvault_tui.policy.tightening import differences, only_tightens

__all__ = [
    "SHIPPED",
    "Catalogue",
    "Effect",
    "Environment",
    "Inputs",
    "Limit",
    "LimitSet",
    "Policy",
    "PolicyTexts",
    "differences",
    "is_scope_name",
    "only_tightens",
    "shipped_catalogue",
    "shipped_policy",
]
